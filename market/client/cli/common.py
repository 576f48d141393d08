"""What the `gpumarket job` commands share: options, finding a job, who may read it, tables."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, NamedTuple

import typer
from rich.live import Live
from rich.table import Column, Table

from contracts.amounts import format_amount
from contracts.api.bodies import JobOut, JobStatus, JobSummary, LeaseSummary
from contracts.api.client import MarketClient, Unreachable
from contracts.api.info import Info
from contracts.chain.client import Chain, connect
from contracts.cli.jobs import chosen_job
from contracts.cli.output import Output, PlainConsole, console, one_line, print_whole, tokens, whole
from contracts.clocks import check_clocks
from contracts.errors import UserError
from contracts.program.progress_bar import watching
from contracts.settings import load_settings
from contracts.types import to_hex
from contracts.wallet import keys
from market.client.download import accepted_chain, check_against_chain
from market.client.replacing import OldBid, Reached

SHORT = 10  # characters of an id that tables show; -o json has all
ENDLESS = 1e9  # seconds, from which on a time is not told any more

ENDED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen; sign and send nothing")]
NewPrice = Annotated[
    str | None, typer.Option("--max-price", help="Tokens per checkpoint at most, fee included; default: as before")
]
ClientKey = Annotated[str | None, typer.Option("--key", help="The client's key, if it has another name here")]


def confirm(question: str, yes: bool, say: PlainConsole) -> None:
    """Asks, unless `yes`. Ends the program if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        say.print("--yes was not given.")
    if not typer.confirm(question, err=True):
        say.print("Nothing was signed or sent.")
        raise typer.Exit(1)


class OwnJob(NamedTuple):
    """A job, and what its client needs to do something about it."""

    client: MarketClient
    chain: Chain
    job: JobOut
    key: str  # name of the client's


@contextmanager
def own_job(wanted: str, key: str | None, market: str | None) -> Iterator[OwnJob]:
    """The job that `wanted` names, as options give it. Raises UserError if it is not that of a key here."""
    settings = load_settings(market_url=market)
    chain = connect(settings)
    with MarketClient(settings.require("market_url")) as client:
        job = chosen_job(client, wanted)
        check_is_ours(chain, job)
        yield OwnJob(client, chain, job, client_key(job, key))


def beside_json(output: Output) -> PlainConsole:
    """Where people are told what goes on: JSON stands alone on stdout."""
    return console if output is Output.TABLE else PlainConsole(stderr=True)


def same_time(client: MarketClient, chain: Chain) -> None:
    """Raises UserError if this machine's clock is so far from the market's or the chain's that orders would fail."""
    client.info()
    check_clocks(time.time(), client.clock, chain.now())


def check_is_ours(chain: Chain, job: JobOut) -> None:
    """A market could show another Bid or JobSpec under this id."""
    if job.bid.digest(chain.domain) != job.id or to_hex(job.spec.job_hash()) != job.bid.job:
        raise UserError(f"the market's Bid or JobSpec is not that of job {job.id}", "Nothing is signed or sent.")


def client_key(job: JobOut, key: str | None) -> str:
    """The name of the key that is the job's client. Raises UserError if it is not here."""
    known = keys.list_keys()
    own = next((name for name, address in known.items() if address == job.bid.client), None)
    if key is not None and keys.address(key) != job.bid.client:
        raise UserError(
            f"only its client {job.bid.client} can do that; the key '{key}' is {keys.address(key)}",
            f"--key {own}" if own else "Its key is not here. Another home: GPUMARKET_HOME=...",
        )
    if own is None:
        raise UserError(
            f"only its client {job.bid.client} can do that, and its key is not here",
            f"Keys here: {', '.join(known) or 'none'}. Another home: GPUMARKET_HOME=...",
        )
    return key or own


def reached_on_chain(client: MarketClient, chain: Chain, job: JobOut, old: OldBid) -> Reached:
    """From where another job goes on with what this one leaves, by the chain; and its market has the records that lead
    there. Raises UserError.
    """
    with watching(PlainConsole(stderr=True)) as watch:
        reached = old.look(watch)
        check_against_chain(chain, job, accepted_chain(client, job), watch)
    return reached


def watch_job(client: MarketClient, info: Info, job: JobOut) -> JobOut:
    """Shows a job until it is over, and then as it ended: on a terminal anew each second."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while job.status not in ENDED:
            if console.is_terminal:
                live.update(whole(job_table(job, info), console.width), refresh=True)
            time.sleep(1)
            try:
                job = client.job(job.id)
            except Unreachable:
                continue  # markets restart; the job goes on without them
    print_whole(console, job_table(job, info))
    return job


def status_of(job: JobSummary) -> str:
    return f"{job.status} ({job.reason})" if job.reason else str(job.status)


def progress_of(job: JobSummary) -> str:
    """How far a job is, in one line: what its provider says, what will be paid, what is paid, and how it trains."""
    counts = f"{job.reported} reported, {job.approved} approved, {job.settled} paid of {job.bid.checkpoints}"
    return "; ".join(part for part in (counts, newest_of(job), verdicts_of(job)) if part)


def verdicts_of(job: JobSummary) -> str:
    """What an arbiter has said of its leases; empty if nothing."""
    return ", ".join(f"lease {lease.id[:SHORT]}: verdict {lease.verdict}" for lease in job.leases if lease.verdict)


def newest_of(job: JobSummary) -> str:
    """The newest checkpoint's metrics and speed; empty before the first."""
    newest = job.newest
    if newest is None:
        return ""
    seconds = "" if newest.seconds is None else f"{newest.seconds:.1f} s"
    said = [f"checkpoint {newest.index} {newest.status}", *_metrics(newest.metrics), seconds, newest.reason]
    return one_line(", ".join(part for part in said if part))


def _metrics(metrics: dict[str, float | None]) -> list[str]:
    return [f"{name} {value:.4g}" for name, value in metrics.items() if value is not None]


def list_table(jobs: Sequence[JobSummary], info: Info) -> Table:
    """A line for each job. Of the newest checkpoint there are the loss and the seconds."""
    table = Table(
        "job", Column("name", overflow="fold"), "status", "re-\nported", "ap-\nproved", "paid", "loss", "s each",
        f"cost\n{info.token_symbol}", box=None, pad_edge=False,
    )  # fmt: skip
    for job in jobs:
        newest = job.newest
        loss = None if newest is None else newest.metrics.get("loss")
        table.add_row(
            job.id[:SHORT], one_line(job.name), job.status, str(job.reported), str(job.approved),
            f"{job.settled}/{job.bid.checkpoints}", "" if loss is None else f"{loss:.3g}",
            "" if newest is None or newest.seconds is None else f"{newest.seconds:.1f}",
            format_amount(job.paid + job.fees, info.token_decimals),
        )  # fmt: skip
    return table


def job_table(job: JobOut, info: Info) -> Table:
    told = f"\n{one_line(job.nearest)}" if job.nearest else ""
    caption = (
        f"{progress_of(job)}\npaid {tokens(job.paid, info)}, fees {tokens(job.fees, info)}; "
        f"at most {tokens(job.bid.max_price, info)} per checkpoint"
    )
    table = Table(
        "lease", "provider", "covers", "reported", "approved", "paid", "price", "state",
        title=f"{one_line(job.name)}  {job.id}\n{one_line(status_of(job))}{told}", caption=caption, box=None,
        pad_edge=False, title_justify="left", caption_justify="left",
    )  # fmt: skip
    for lease in job.leases:
        table.add_row(
            lease.id[:SHORT], lease.provider[:SHORT], f"{lease.start + 1}-{lease.end}", str(lease.reported),
            str(lease.approved), str(lease.start + lease.paid // lease.price),
            format_amount(lease.price, info.token_decimals), _state_of(lease),
        )  # fmt: skip
    return table


def _state_of(lease: LeaseSummary) -> str:
    why = f", {lease.stops}" if lease.stops else ""
    why += f", verdict {lease.verdict}" if lease.verdict else ""
    if lease.finished is None:
        return lease.state.phase + why
    return lease.finished + why + ("" if lease.final else ", not final yet")


def short_time(seconds: float) -> str:
    """A time that is never shown as none: three digits of it, from a minute on as hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return str(timedelta(seconds=round(seconds))) if seconds < ENDLESS else "over 30 years"
