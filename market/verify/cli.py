"""`gpumarket epoch`: what a market has matched, and whether it was right."""

from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer
from eth_utils.address import is_address, to_checksum_address
from rich.table import Table

from contracts.api.client import MarketClient
from contracts.api.epochs import EpochOut
from contracts.api.problems import Problem
from contracts.chain.client import connect
from contracts.cli.output import Output, OutputOption, PlainConsole, marked, print_whole, tokens
from contracts.errors import UserError
from contracts.program.extras import needed_by
from contracts.program.progress_bar import watching
from contracts.settings import load_settings
from contracts.strict_json import write_json
from market.verify.findings import Checked

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look into a market's epochs, and verify them.")
console = PlainConsole()
status = PlainConsole(stderr=True)  # beside the JSON

Number = Annotated[int, typer.Argument(help="The epoch's number", min=1, show_default=False)]
MarketUrl = Annotated[str | None, typer.Option("--market", "--url", help="URL of the market")]


@app.command("list")
def list_epochs(
    limit: Annotated[int, typer.Option(help="At most so many, the newest", min=1)] = 20,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the newest epochs."""
    with MarketClient(load_settings(market_url=market).require("market_url")) as client:
        epochs = list(islice(client.epochs(), limit))
    if output is Output.JSON:
        typer.echo("[" + ",\n".join(epoch.model_dump_json(by_alias=True) for epoch in epochs) + "]")
        return
    table = Table("epoch", "status", "begun", "matches", "opened", "bids left", box=None, pad_edge=False)
    for epoch in epochs:
        opened = sum(match.lease is not None for match in epoch.matches)
        counts = len(epoch.matches), opened, len(epoch.unmatched)
        table.add_row(str(epoch.number), epoch.status, f"{epoch.started:%Y-%m-%d %H:%M:%S UTC}", *map(str, counts))
    if epochs:
        print_whole(console, table)
    else:
        console.print("There are no epochs yet.")


@app.command()
def show(number: Number, market: MarketUrl = None, output: OutputOption = Output.TABLE) -> None:
    """Show what one epoch matched, and why the other bids were left."""
    with MarketClient(load_settings(market_url=market).require("market_url")) as client:
        try:
            epoch, info = client.epoch(number), client.info()
        except Problem as problem:
            if problem.status != 404:
                raise
            raise UserError(f"there is no epoch {number} at this market", "gpumarket epoch list") from problem
    if output is Output.JSON:
        typer.echo(epoch.model_dump_json(by_alias=True, indent=2))
        return
    print_whole(console, _summary(epoch))
    matches = Table("bid", "ask", "price", "lease", box=None, pad_edge=False)
    for match in epoch.matches:
        lease = match.lease[:12] if match.lease else match.note or "not opened yet"
        matches.add_row(match.bid[:12], match.ask[:12], tokens(match.price, info), lease)
    left = Table("bid", "left, because", box=None, pad_edge=False)
    for bid in epoch.unmatched:
        left.add_row(bid.bid[:12], bid.reason)
    for table in (matches, left):
        if table.row_count:
            print_whole(console, table)


def _summary(epoch: EpochOut) -> Table:
    table = Table(title=f"Epoch {epoch.number}", box=None, show_header=False, pad_edge=False, title_justify="left")
    table.add_row("status", epoch.status)
    if epoch.header is not None:
        table.add_row("orders as of block", str(epoch.header.block))
        table.add_row("left out", str(len(epoch.header.left_out)))
    table.add_row("root", epoch.order_root or "")
    table.add_row("published by", epoch.published_tx or "")
    table.add_row("seed", f"{epoch.seed} (block {epoch.seed_block})" if epoch.seed else "")
    return table


@app.command()
def verify(
    number: Number,
    market: MarketUrl = None,
    matcher: Annotated[
        str | None, typer.Option(help="Whose epoch it must be; default: who the market says that it is")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Go on after the first lie")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check an epoch against signatures, receipts and the chain. The exit code is 1 if the market lied."""
    with needed_by("`gpumarket epoch verify`", "verify"):
        from market.verify.verify import verify as verifying
    if matcher is not None and not is_address(matcher):
        raise UserError(f"'{matcher}' is not an address", "0x and 40 hex digits; mixed case must be its checksum")
    matcher = to_checksum_address(matcher) if matcher else None
    settings = load_settings(market_url=market)
    chain = connect(settings)
    with MarketClient(settings.require("market_url")) as client, watching(status) as watch:
        checked = verifying(client, chain, number, matcher, every=every, watch=watch)
    lied = any(one.lies for one in checked)
    if output is Output.JSON:
        typer.echo(
            write_json({"epoch": number, "holds": not lied, "checks": [asdict(one) for one in checked]}, indent=2)
        )
    else:
        _show(number, checked)
    if lied:
        raise typer.Exit(1)


def _show(number: int, checked: list[Checked]) -> None:
    table = Table("check", "compared", "lies", box=None, pad_edge=False)
    for one in checked:
        table.add_row(one.name, str(one.count), str(len(one.lies) or "none"))
    print_whole(console, table)
    for one in checked:
        for note in one.notes:
            console.print(marked("[yellow]Note:[/] {}", note), highlight=False, soft_wrap=True)
    for one in checked:
        for lie in one.lies:
            console.print(marked("[red]lie[/]  {}", lie), highlight=False, soft_wrap=True)
    if not any(one.lies for one in checked):
        console.print(f"Epoch {number} is what it should be.")
