"""`gpumarket job`: submit, list, show and pull; its other commands are in the files beside this one, by their names."""

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from contracts.api.bodies import JobStatus
from contracts.api.client import MarketClient
from contracts.chain.client import connect
from contracts.cli.jobs import ID, JobId, MarketUrl, ReadingKey, chosen_job, reader
from contracts.cli.output import Output, OutputOption, PlainConsole, console, one_line, print_whole
from contracts.errors import UserError
from contracts.orders import FAILURES
from contracts.program.progress_bar import watching
from contracts.settings import load_settings
from contracts.strict_json import write_json
from contracts.wallet import keys
from market.client import download as pulling
from market.client import submit as submitting
from market.client.cli import auditors, cancel, cost, extend, follow, grants, reprice
from market.client.cli.common import ENDED, SHORT, Yes, job_table, list_table, same_time, watch_job
from market.client.cli.hand_in import hand_in

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Submit training jobs, watch them, get checkpoints.")


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(help="job.yaml, or the folder that holds one", show_default=False)],
    key: Annotated[str | None, typer.Option(help="Name of the key that pays")] = None,
    market: MarketUrl = None,
    approver: Annotated[str | None, typer.Option(help="Address that approves for you; default: the market's")] = None,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the quote; sign and send nothing")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a job would cost, and after a yes sign the Bid and hand it in."""
    settings = load_settings(market_url=market)
    name = keys.choose(key or settings.key)
    chain = connect(settings)
    with MarketClient(settings.require("market_url")) as client:
        address = keys.address(name)
        same_time(client, chain)
        offer = submitting.prepare(client, chain.domain, address, job, approver or settings.approver)
        hand_in(client, chain, name, offer, yes=yes, dry_run=dry_run, output=output)


@app.command("list")
def list_jobs(
    key: Annotated[str | None, typer.Option("--key", help="Those of this key; default: of the keys here")] = None,
    client: Annotated[str | None, typer.Option("--client", help="Those of this address, or key name")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's")] = False,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs with this status")] = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show my jobs, or with --all everybody's: how far they are, what they cost, and how they train."""
    settings = load_settings(market_url=market, key=key)
    url = settings.require("market_url")
    if sum((everybody, client is not None, key is not None)) > 1:
        raise UserError("--key, --client and --all say whose jobs to show, each in its way", "Give one of them.")
    whose = _whose(settings.key, client, everybody)
    with MarketClient(url) as api:
        info, found = api.info(), [job for one in whose for job in api.jobs(client=one, status=status)]
    jobs = sorted(found, key=lambda job: job.received)
    if output is Output.JSON:
        typer.echo("[" + ",\n".join(job.model_dump_json(by_alias=True) for job in jobs) + "]")
    elif jobs:
        print_whole(console, list_table(jobs, info))
        why = Table(show_header=False, box=None, pad_edge=False)
        for job in jobs:
            if job.reason:
                why.add_row(job.id[:SHORT], f"is {job.status}: {one_line(job.reason)}")
        if why.row_count:
            print_whole(console, why)
    elif everybody or client is not None:
        console.print("There are no such jobs.")
    else:
        console.print("There are no jobs of yours. Everybody's: --all")


def _whose(key: str | None, client: str | None, everybody: bool) -> Sequence[str | None]:
    """Addresses whose jobs to show; None: anybody's. Raises UserError."""
    if everybody:
        return [None]
    if client is not None:
        return [client if client.startswith("0x") else keys.address(client)]
    if key is not None:
        return [keys.address(key)]
    return list(keys.list_keys().values()) or [keys.address(keys.choose(None))]


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
        info, found = client.info(), chosen_job(client, job)
        if watch:
            found = watch_job(client, info, found)
        if output is Output.JSON:
            typer.echo(found.model_dump_json(by_alias=True, indent=2))
        elif not watch:
            print_whole(console, job_table(found, info))
        if output is Output.TABLE and (found.failures or found.status is JobStatus.FAILED):
            reading = reader(settings, client, found, key)
            for report in client.reports(found.id):
                if report.report.kind in FAILURES:
                    console.rule(f"{report.provider} at checkpoint {report.report.n}")
                    console.print(reading.opened(report).text, markup=False, highlight=False)
    if watch and found.status is not JobStatus.DONE:
        raise typer.Exit(3)


@app.command()
def pull(
    job: JobId,
    folder: Annotated[Path, typer.Argument(help="Where to put the checkpoints")] = Path(),
    everything: Annotated[bool, typer.Option("--all", help="All accepted checkpoints, not only the newest")] = False,
    key: ReadingKey = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Download checkpoints, and verify them tip by tip against the chain."""
    settings = load_settings(market_url=market)
    chain = connect(settings)
    with MarketClient(settings.require("market_url")) as client:
        found = chosen_job(client, job)
        if not found.accepted:
            if found.status in ENDED:
                what = f"job {found.id} has no accepted checkpoint, and is {found.status}"
                raise UserError(what, "It will have none any more.")
            hint = f"Wait: gpumarket job show --watch {found.id[:ID]}"
            raise UserError(f"job {found.id} has no accepted checkpoint yet", hint)
        make_folder(folder)
        reading = reader(settings, client, found, key)
        with watching(PlainConsole(stderr=True)) as watch:
            wanted, got = found.accepted if everything else 1, count(1)
            pulled = pulling.pull(
                client, chain, found, folder, everything,
                lambda _: watch("checkpoints downloaded and verified", next(got), wanted), reading.job_key, watch,
            )  # fmt: skip
    if output is Output.JSON:
        rows = [{"checkpoint": one.index, "path": str(one.path), "tip": one.tip} for one in pulled]
        typer.echo(write_json(rows, indent=2))
        return
    for one in pulled:
        console.print(f"{one.path}  checkpoint {one.index}, verified up to tip {one.tip}", soft_wrap=True)


def make_folder(folder: Path) -> None:
    """Raises UserError if it can't be made, or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} can't be made: {error.strerror}", "Give another one.") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"the folder {folder} can't be written to", "Give another one.")


app.add_typer(follow.app)
app.add_typer(cost.app)
app.add_typer(cancel.app)
app.add_typer(extend.app)
app.add_typer(reprice.app)
app.add_typer(auditors.app)
app.add_typer(grants.app)
