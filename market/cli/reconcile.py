"""`gpumarket reconcile`: chain against database against blobs."""

from typing import Annotated

import typer
from rich.table import Table

from contracts.chain.client import connect
from contracts.cli.output import Output, PlainConsole, marked, print_whole
from contracts.program.progress_bar import watching
from contracts.settings import load_settings
from contracts.strict_json import write_json
from market.maintenance import reconcile as comparing
from market.maintenance import repair
from market.maintenance.retention import Keep
from market.runtime.settings import load_market_settings
from market.store.blobs import BlobStore
from market.store.db import Database

app = typer.Typer(add_completion=False, help="Compare chain, database and files.")
console = PlainConsole()
status = PlainConsole(stderr=True)  # beside the JSON


@app.command()
def reconcile(
    database: Annotated[str | None, typer.Option(help="SQLAlchemy URL; default: the market's")] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="As a table, or as JSON for programs")
    ] = Output.TABLE,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend first what is safe to mend: rows that journal and chain say otherwise.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --fix: only tell what would be mended.")] = False,
) -> None:
    """Compare chain, database and files. The exit code is 1 if anything differs, or still does after --fix."""
    settings = load_market_settings(database_url=database)
    chain = connect(load_settings())
    db = Database(settings.database_url)
    db.check()
    try:
        blobs = BlobStore(settings.blob_dir, settings.max_blob_bytes)
        with watching(status) as watch:
            if fix and dry_run:
                for one in repair.find_repairs(chain, db, blobs, watch):
                    status.print(f"would mend  {one}", highlight=False, soft_wrap=True)
            elif fix:
                for line in repair.fix(chain, db, blobs, watch):
                    status.print(f"mended  {line}", highlight=False, soft_wrap=True)
            checks = comparing.reconcile(chain, db, blobs, Keep.of(settings), watch)
    finally:
        db.close()
    if output is Output.JSON:
        fields = [{"name": c.name, "compared": c.compared, "differences": c.differences} for c in checks]
        typer.echo(write_json(fields, indent=2))
    else:
        _show(checks)
    if any(check.differences for check in checks):
        raise typer.Exit(1)


def _show(checks: list[comparing.Comparison]) -> None:
    table = Table("check", "compared", "differences", box=None, pad_edge=False)
    for check in checks:
        table.add_row(check.name, str(check.compared), str(len(check.differences) or "none"))
    print_whole(console, table)
    for check in checks:
        for difference in check.differences:
            console.print(marked("[red]differs[/]  {}", difference), highlight=False, soft_wrap=True)
