"""`gpumarket market`: run a market. Each command imports what it needs: a server's libraries take seconds."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from contracts.cli.output import Output, PlainConsole
from contracts.strict_json import write_json
from contracts.text import without_controls

SWITCH_SECONDS = 0.001  # that the event loop waits for each thread that computes; Python's default is five times that

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run a market.")

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Directory of config, keys and data; default: $GPUMARKET_HOME or ~/.gpumarket"),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="As a table, or as JSON for programs.")]


@app.callback()
def market() -> None:
    """Run a market."""


def use_home(home: Path | None) -> None:
    if home is not None:
        os.environ["GPUMARKET_HOME"] = str(home)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the matcher's key.")] = None,
    home: Home = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every request.")] = False,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log one JSON object a line.")] = False,
) -> None:
    """Serve the API, follow the chain, clear the auction. Stops on Ctrl-C or SIGTERM."""
    use_home(home)
    from contracts.program.logs import configure_logs
    from contracts.settings import load_settings
    from market.runtime.settings import load_market_settings
    from market.server import Server, only_one, open_context, works

    settings = load_market_settings(
        host=host,
        port=port,
        key=key,
        log_level="debug" if verbose else None,
        log_format="json" if json_logs else None,
    )
    configure_logs(settings.log_level, settings.log_format)
    with only_one():
        context = open_context(settings, load_settings())
        server = Server(context, works())
        sys.setswitchinterval(SWITCH_SECONDS)
        info = context.info()
        typer.echo(f"market    {server.url}")
        typer.echo(f"chain     {info.chain_id}, escrow {info.escrow}")
        typer.echo(f"token     {info.token_symbol} {info.token}")
        typer.echo(f"matcher   {info.matcher}, fee {info.fee} per checkpoint")
        typer.echo(f"rules     {', '.join(rules.name for rules in info.rules)}")
        typer.echo(f"data      {context.db.engine.url}, {settings.blob_dir}")
        code = server.run()
    raise typer.Exit(code)


@app.command()
def settings(home: Home = None, output: OutputOption = Output.TABLE) -> None:
    """Show all settings that hold here, and where each comes from. Passwords are not shown."""
    use_home(home)
    from market.cli.settings import show_settings

    show_settings(output)


@app.command()
def status(home: Home = None, output: OutputOption = Output.TABLE) -> None:
    """Show what still lives here: leases, the money in them, and until when. The market may run, and may be away."""
    use_home(home)
    from market.cli.status import show_status

    show_status(output)


@app.command()
def collect(
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and remove nothing.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Remove the blobs that nobody needs any more, as a running market does by itself every hour."""
    use_home(home)
    from contracts.chain.client import connect
    from contracts.settings import load_settings
    from market.maintenance import retention
    from market.runtime.context import Context
    from market.runtime.settings import load_market_settings
    from market.server import check_journal, open_database
    from market.store.blobs import BlobStore

    settings = load_market_settings()
    db, blobs = open_database(settings), BlobStore(settings.blob_dir, settings.max_blob_bytes)
    # Orders and keys are not needed for it.
    context = Context(settings, connect(load_settings()), db, blobs, matcher="", rules={}, rules_by_hash={})
    check_journal(context)
    with db.reading() as session:
        names = sorted(retention.unneeded(session, retention.Keep.of(settings), context.now()))
    bytes_by_name = {name: blobs.size(name) or 0 for name in names}
    if not dry_run:
        names = retention.collect(context)
    if output is Output.JSON:
        found = [{"sha256": name, "bytes": bytes_by_name.get(name, 0)} for name in names]
        typer.echo(write_json({"dry_run": dry_run, "blobs": found}, indent=2))
        return
    for name in names:
        typer.echo(f"{name}  {bytes_by_name.get(name, 0)} bytes")
    would = "would go" if dry_run else "removed"
    typer.echo(f"{len(names)} blobs, {sum(bytes_by_name.get(name, 0) for name in names)} bytes {would}")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="New file for the copy.")],
    home: Home = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Copy the database as it is now; the market may run. The blobs' folder is copied after it, with rsync."""
    use_home(home)
    from contracts.program.progress_bar import watching
    from market.maintenance import backup as copying
    from market.runtime.settings import load_market_settings
    from market.store.db import Database

    settings = load_market_settings()
    db = Database(settings.database_url)
    db.check()
    with watching(PlainConsole(stderr=True)) as watch:
        size = copying.save_copy(db, file, watch)
    if output is Output.JSON:
        typer.echo(write_json({"file": str(file), "bytes": size, "blob_dir": str(settings.blob_dir)}, indent=2))
        return
    typer.echo(f"{file}  {size} bytes")
    typer.echo(f"now copy the blobs: rsync -a --exclude incoming {settings.blob_dir}/ elsewhere/")


@app.command()
def reindex(
    home: Home = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace what differs without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what differs and change nothing; the exit code is 1 if anything.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make the whole database anew from the chain, the blobs and the messages beside them. Stop the market first.

    Messages that can't be read are named and left out; then the exit code is 1.
    """
    use_home(home)
    from contracts.chain.client import connect
    from contracts.program.progress_bar import watching
    from contracts.settings import load_settings
    from market.chain import indexer
    from market.maintenance import reindex as anew
    from market.runtime.settings import load_market_settings
    from market.server import only_one, open_database
    from market.store.blobs import BlobStore
    from market.store.journal import FOLDER, Journal

    console = PlainConsole(stderr=True)
    settings, chain = load_market_settings(), connect(load_settings())
    blobs, journal = BlobStore(settings.blob_dir, settings.max_blob_bytes), Journal(settings.blob_dir / FOLDER)
    with only_one():
        old = open_database(settings)
        with anew.as_only_market(old) as leadership, anew.scratch() as new:
            with watching(console) as watch:
                newest = anew.newest_message(old)
                bad = anew.build(new, chain, journal, blobs, until=anew.height(old), newest=newest, watch=watch)
                differences = anew.compare(old, new, watch)
            made, replaces = anew.count(new), bool(differences) and not dry_run
            if output is Output.TABLE:
                for difference in differences:
                    typer.echo(without_controls(f"differs   {difference}"))
                for message in bad:
                    typer.echo(without_controls(f"left out  {message}"))
                typer.echo(f"made      {', '.join(f'{count} {name}' for name, count in made.items())}")
                if bad:
                    typer.echo(f"left out  {len(bad)} of the journal's messages, which can't be read")
            if replaces:
                if not yes:
                    typer.confirm(f"Replace all tables of {old.engine.url}?", abort=True, err=output is Output.JSON)
                with watching(console) as watch:
                    indexer.catch_up(chain, new, watch=watch)
                    anew.replace(old, new, leadership, watch)
    if output is Output.JSON:
        told = {
            "differences": [str(one) for one in differences],
            "rows": made,
            "replaced": replaces,
        } | ({"left_out": [str(message) for message in bad]} if bad else {})
        typer.echo(write_json(told, indent=2))
    elif replaces:
        typer.echo("the database was made anew")
    else:
        typer.echo("nothing was changed" if differences else "the database is what it should be")
    raise typer.Exit(1 if bad or (differences and dry_run) else 0)
