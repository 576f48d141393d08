"""`gpumarket job`: submit a job, watch it, and get its checkpoints."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from contracts import keys
from contracts.amounts import format_amount
from contracts.api.access import Signer
from contracts.api.bodies import Info, JobOut, JobStatus
from contracts.api.client import MarketClient, Unreachable
from contracts.chain.client import connect
from contracts.errors import UserError
from contracts.orders import Domain
from contracts.output import Output
from contracts.settings import Settings, load_settings
from market import pull as pulling
from market import submit as submitting

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Submit training jobs, watch them, get checkpoints.")
console = Console()
ENDED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)


JobId = Annotated[str, typer.Argument(help="The job's id, or its first hex digits", show_default=False)]
MarketUrl = Annotated[str | None, typer.Option("--market", help="URL of the market")]
ReadingKey = Annotated[
    str | None, typer.Option("--key", help="Key that may read the job; default: its client's")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="As a table, or as JSON for programs")]


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(help="job.yaml, or the folder that holds one", show_default=False)],
    key: Annotated[str | None, typer.Option(help="Name of the key that pays")] = None,
    market: MarketUrl = None,
    approver: Annotated[str | None, typer.Option(help="Address that approves for you; default: the market's")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the quote; sign and send nothing")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a job would cost, and after a yes sign the Bid and hand it in."""
    settings = load_settings(market_url=market)
    name = keys.choose(key or settings.key)
    chain = connect(settings)
    with MarketClient(settings.require("market_url")) as client:
        address = keys.address(name)
        say = console if output is Output.TABLE else Console(stderr=True)
        offer = submitting.prepare(client, chain.domain, address, job, approver or settings.approver)
        if output is Output.TABLE or not yes:
            say.print(_quote_table(offer))
        for warning in offer.quote.warnings:
            say.print(f"[yellow]Note:[/] {warning}", highlight=False)
        for twin in submitting.same_again(client, offer):
            say.print(
                f"[yellow]Note:[/] this very job is in already: {twin.id[:12]}, {twin.status}. This would be one more.",
                highlight=False,
            )
        if dry_run:
            if output is Output.JSON:
                typer.echo(offer.quote.model_dump_json(by_alias=True, indent=2))
            else:
                say.print("Dry run: nothing was signed or sent.")
            return
        if offer.quote.missing:
            short = format_amount(offer.quote.missing, offer.info.token_decimals)
            raise UserError(
                f"the job may cost {offer.tokens(offer.quote.highest_cost)}, and {name} has "
                f"{offer.tokens(offer.quote.free)} free in the escrow: {short} are missing",
                f"gpumarket wallet deposit {short} --key {name}",
            )
        if not yes:
            if not sys.stdin.isatty():
                say.print("--yes was not given.")
            if not typer.confirm("Sign the Bid and hand the job in?"):
                say.print("Nothing was signed or sent.")
                raise typer.Exit(1)
        account = keys.load(name)
        client.signer = Signer(account, chain.domain)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            total = sum(ref.size for ref in offer.spec.files.values())
            task = progress.add_task("uploading", total=total)
            made = submitting.submit(client, chain.domain, account, offer, lambda _, size: progress.advance(task, size))
    if output is Output.JSON:
        typer.echo(made.model_dump_json(by_alias=True, indent=2))
    else:
        console.print(
            f"Job [bold]{made.id}[/] is in. Watch it: gpumarket job show {made.id[:12]} --watch", soft_wrap=True
        )


@app.command("list")
def list_jobs(
    mine: Annotated[str | None, typer.Option("--client", help="Only jobs of this address or key name")] = None,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs with this status")] = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the market's jobs."""
    settings = load_settings(market_url=market)
    address = mine if mine is None or mine.startswith("0x") else keys.address(mine)
    with MarketClient(settings.require("market_url")) as client:
        info, jobs = client.info(), list(client.jobs(client=address, status=status))
    if output is Output.JSON:
        typer.echo("[" + ",\n".join(job.model_dump_json(by_alias=True) for job in jobs) + "]")
        return
    table = Table("job", "name", "status", "accepted", "paid", "leases", box=None, pad_edge=False)
    for job in jobs:
        accepted = f"{job.accepted}/{job.bid.checkpoints}"
        table.add_row(
            job.id[:12], job.name, _status(job), accepted, _tokens(job.paid + job.fees, info), str(len(job.leases))
        )
    console.print(table if jobs else "There are no such jobs.")


@app.command()
def show(
    job: JobId,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until the job is over")] = False,
    key: ReadingKey = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one job. With --watch the exit code tells how it ended: 0 done, 3 otherwise."""
    settings = load_settings(market_url=market)
    with MarketClient(settings.require("market_url")) as client:
        info, found = client.info(), _find(client, job)
        if watch:
            found = _watch(client, info, found)
        if output is Output.JSON:
            typer.echo(found.model_dump_json(by_alias=True, indent=2))
        elif not watch:
            console.print(_job_table(found, info))
        if output is Output.TABLE and (found.failures or found.status is JobStatus.FAILED):
            client.signer = _reader(settings, found, key)
            for report in client.reports(found.id):
                if report.report.kind == "failed":
                    console.rule(f"{report.provider} at checkpoint {report.report.n}")
                    console.print(report.text, markup=False, highlight=False)
    if watch and found.status is not JobStatus.DONE:
        raise typer.Exit(3)


@app.command()
def pull(
    job: JobId,
    folder: Annotated[Path, typer.Argument(help="Where to put the checkpoints")] = Path(),
    everything: Annotated[bool, typer.Option("--all", help="All accepted checkpoints, not only the newest")] = False,
    key: ReadingKey = None,
    market: MarketUrl = None,
) -> None:
    """Download checkpoints, and verify them tip by tip against the chain."""
    settings = load_settings(market_url=market)
    chain = connect(settings)
    with MarketClient(settings.require("market_url")) as client:
        found = _find(client, job)
        if not found.accepted:
            raise UserError(f"job {found.id} has no accepted checkpoint yet", "Wait: gpumarket job show --watch")
        client.signer = _reader(settings, found, key)
        with console.status("downloading and verifying"):
            pulled = pulling.pull(client, chain, found, folder, everything, lambda _: None)
    for one in pulled:
        console.print(f"{one.path}  checkpoint {one.index}, verified up to tip {one.tip}", soft_wrap=True)


# ------------------------------------------------------------------ parts


def _find(client: MarketClient, prefix: str) -> JobOut:
    """The job whose id starts with `prefix`."""
    if len(prefix) == 66:
        return client.job(prefix)
    digits = prefix.lower().removeprefix("0x")
    found = [job for job in client.jobs() if digits and job.id.startswith("0x" + digits)]
    if len(found) != 1:
        hint = "Give more digits." if found else "See `gpumarket job list`."
        raise UserError(f"{len(found) or 'no'} jobs have an id that starts with {prefix!r}", hint)
    return found[0]


def _reader(settings: Settings, job: JobOut, key: str | None) -> Signer:
    """For what only some may read of a job: with the key named, else its client's or approver's if it is here."""
    parties = (job.bid.client, job.bid.effective_approver)
    own = next((name for name, address in keys.list_keys().items() if address in parties), None)
    account = keys.load(keys.choose(key or own or settings.key))
    domain = Domain(chain_id=settings.require("chain_id"), verifying_contract=settings.require("escrow"))
    return Signer(account, domain)


def _watch(client: MarketClient, info: Info, job: JobOut) -> JobOut:
    """Refresh once a second until the job is over."""
    with Live(_job_table(job, info), console=console, auto_refresh=False) as live:
        while job.status not in ENDED:
            time.sleep(1)
            try:
                job = client.job(job.id)
            except Unreachable:
                continue  # markets restart; the job goes on without them
            live.update(_job_table(job, info), refresh=True)
    return job


def _tokens(amount: int, info: Info) -> str:
    return f"{format_amount(amount, info.token_decimals)} {info.token_symbol}"


def _status(job: JobOut) -> str:
    return f"{job.status} ({job.reason})" if job.reason else str(job.status)


def _quote_table(offer: submitting.Offer) -> Table:
    quote, bid = offer.quote, offer.quote.bid
    table = Table(
        title=f"Quote for {offer.job.name}", box=None, show_header=False, pad_edge=False, title_justify="left"
    )
    table.add_row("job", quote.job)
    table.add_row("checkpoints", f"{bid.checkpoints}, {bid.units} work units each")
    table.add_row("machines that fit now", str(quote.matching_asks))
    if quote.lowest_price is not None and quote.likely_cost is not None and quote.seconds_per_checkpoint is not None:
        table.add_row(
            "cheapest", f"{offer.tokens(quote.lowest_price)} a checkpoint of {quote.seconds_per_checkpoint:.1f} s"
        )
        table.add_row(
            "likely cost", f"{offer.tokens(quote.likely_cost)}, fees of {offer.tokens(bid.fee)} each included"
        )
    table.add_row("at most", f"{offer.tokens(quote.highest_cost)} ({offer.tokens(bid.max_price)} a checkpoint)")
    table.add_row("provider's stake", offer.tokens(bid.stake))
    table.add_row("approver", bid.effective_approver)
    table.add_row("your free balance", offer.tokens(quote.free))
    if quote.missing:
        table.add_row("[yellow]missing", f"[yellow]{offer.tokens(quote.missing)}: gpumarket wallet deposit")
    return table


def _job_table(job: JobOut, info: Info) -> Table:
    title = f"{job.name}  {job.id}  {_status(job)}"
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in job.metrics.items() if value is not None)
    caption = f"{job.accepted} of {job.bid.checkpoints} checkpoints accepted, paid {_tokens(job.paid, info)}"
    table = Table(
        "lease", "provider", "checkpoints", "accepted", "price", "paid", "state",
        title=title, caption=f"{caption}, fees {_tokens(job.fees, info)}  {metrics}", box=None, pad_edge=False,
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    for lease in job.leases:
        table.add_row(
            lease.id[:12], lease.provider[:12], f"{lease.start + 1}-{lease.end}", str(lease.state.accepted),
            _tokens(lease.price, info), _tokens(lease.paid, info), lease.finished or lease.state.phase,
        )  # fmt: skip
    return table
