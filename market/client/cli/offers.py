"""`gpumarket offer`: what machines are on offer, and what a job would cost on them."""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from contracts.amounts import parse_amount
from contracts.api.client import MarketClient
from contracts.api.info import Info
from contracts.api.offers import OfferOut, OffersIn
from contracts.api.quotes import QuoteIn
from contracts.audits.deterrence import described
from contracts.cli.jobs import MarketUrl
from contracts.cli.output import Output, OutputOption, console, marked, print_whole, tokens
from contracts.errors import UserError
from contracts.job.measured import SecondsBasis
from contracts.job.spec import MAX_TIER, first_problem
from contracts.settings import load_settings
from contracts.types import ZERO_ADDRESS
from contracts.wallet import keys
from market.client import submit as submitting
from market.client.cli.common import short_time

app = typer.Typer(no_args_is_help=True, add_completion=False, help="See what machines are on offer, and their prices.")

MARKS = {SecondsBasis.ELSEWHERE: "~ ", SecondsBasis.COUNTED: ">= "}  # before a time
LEGEND = {
    SecondsBasis.ELSEWHERE: "the job was measured on another kind of machine: an estimate.",
    SecondsBasis.COUNTED: "by `units` that nobody measured: it may take longer; `gpumarket recipe measure` does.",
}
MOST_AT_ONCE = 500  # machines in one answer of the market


@app.callback()
def offer() -> None:
    """See what machines are on offer, and their prices."""


@app.command("list")
def list_offers(
    device: Annotated[list[str] | None, typer.Option(help="Model, exactly; may be repeated: any of them")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs that a job would use; 0: a CPU", min=0, max=8)] = None,
    min_vram: Annotated[int, typer.Option(help="MB of memory of each GPU, at least", metavar="MB", min=0)] = 0,
    region: Annotated[list[str] | None, typer.Option(help="Region, exactly; may be repeated: any of them")] = None,
    tier: Annotated[int, typer.Option(help="Reliability of the provider, at least", min=0, max=MAX_TIER)] = 0,
    environment: Annotated[str | None, typer.Option(help="Software environment, such as torch-2.13")] = None,
    rules: Annotated[str | None, typer.Option(help="Name of the rules")] = None,
    min_speed: Annotated[int, typer.Option(help="Work units an hour, at least", metavar="UNITS", min=0)] = 0,
    max_price: Annotated[str | None, typer.Option(help="Per hour, at most", metavar="TOKENS")] = None,
    free: Annotated[bool, typer.Option("--free", help="Only those that could begin now")] = False,
    job: Annotated[Path | None, typer.Option(help="job.yaml or its folder: what it would cost on each")] = None,
    units: Annotated[int | None, typer.Option(help="Work units per checkpoint; default: the job's", min=1)] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="With --job: those that don't fit it, too, and why")
    ] = False,
    key: Annotated[
        str | None, typer.Option(help="Name of the key that would pay: some providers choose clients")
    ] = None,
    limit: Annotated[int, typer.Option(help="Show so many at most", min=1)] = 50,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show machines: the cheapest work first, or with --job those that fit it by what it would cost there today."""
    if job is None and (everything or units is not None):
        raise UserError(f"{'--all' if everything else '--units'} is about a job", "Name it: --job DIR")
    settings = load_settings(market_url=market)
    payer = key or settings.key
    with MarketClient(settings.require("market_url")) as client:
        info = client.info()
        asked: QuoteIn | None = None
        if job is not None:
            _, asked = submitting.question(info, keys.address(payer) if payer else ZERO_ADDRESS, job, units=units)
        body = _body(
            devices=device or [],
            gpus=gpus,
            min_vram_mb=min_vram,
            regions=region or [],
            min_tier=tier,
            environment=environment,
            rules=rules,
            min_units_per_hour=min_speed,
            max_price_per_hour=None if max_price is None else parse_amount(max_price, info.token_decimals),
            free=free,
            job=asked,
            misfits=everything,
            limit=min(limit + 1, MOST_AT_ONCE),
        )
        found = list(islice(client.offers(body), limit + 1))
    shown = found[:limit]
    if output is Output.JSON:
        typer.echo(TypeAdapter(list[OfferOut]).dump_json(shown, indent=2).decode())
        return
    if not shown:
        what = " that fits the job; --all says why" if asked and not everything else " that is like this"
        console.print(f"There is no machine on offer{what}.")
        return
    print_whole(console, offer_table(shown, info))
    if asked and any(one.job and one.job.likely for one in shown):
        console.print("* the machine that the auction would give the job, if nothing else comes in.")
    for rule_set in info.rules:
        if rule_set.name in {one.rules for one in shown}:
            console.print(
                marked("Rules {}: {}.", rule_set.name, rule_set.newer or described(rule_set.verification)),
                soft_wrap=True,
            )
    bases = {one.job.seconds_basis for one in shown if one.job}
    for basis, mark in MARKS.items():
        if basis in bases:
            console.print(f"{mark.strip()} {LEGEND[basis]}", soft_wrap=True)
    if len(found) > limit:
        console.print(f"There are more: --limit {2 * limit}")


def _body(**fields: Any) -> OffersIn:
    try:
        return OffersIn.model_validate(fields)
    except ValidationError as error:
        raise first_problem(error, OffersIn.model_fields, "offer list") from error


def offer_table(offers: list[OfferOut], info: Info) -> Table:
    columns = ["ask", "provider", "device", "gpus", "VRAM MB", "region", "tier", "units/hour", "per hour", "now"]
    priced = offers[0].job is not None
    if priced:
        columns += ["per checkpoint", "lowest max_price", "job", "takes", "an hour of it", "fits"]
    table = Table(*columns, box=None, pad_edge=False)
    for one in offers:
        row = [
            one.ask[:12], one.provider[:12], one.device, str(one.gpus), str(one.vram_mb), one.region or "-",
            str(one.tier), f"{one.units_per_hour:,}", tokens(one.price_per_hour, info), "free" if one.free else "busy",
        ]  # fmt: skip
        if one.job:
            row += [
                tokens(one.job.price, info), tokens(one.job.lowest_limit, info), tokens(one.job.cost, info),
                MARKS.get(one.job.seconds_basis, "") + short_time(one.job.seconds), tokens(one.job.per_hour, info),
                ("yes *" if one.job.likely else "yes") if one.job.reason is None else f"no: {one.job.reason}",
            ]  # fmt: skip
        table.add_row(*row)
    return table
