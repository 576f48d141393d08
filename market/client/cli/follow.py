"""`gpumarket job logs` and `job wait`: what a job's recipe printed, and when the job is over."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from contracts.api.bodies import JobOut, JobStatus, ReportOut
from contracts.api.client import MarketClient, Unreachable
from contracts.api.problems import Problem
from contracts.cli.jobs import ID, JobId, MarketUrl, ReadingKey, chosen_job, reader
from contracts.cli.output import Output, OutputOption, PlainConsole, console, one_line, say
from contracts.errors import UserError
from contracts.settings import load_settings
from market.client.cli.common import ENDED, progress_of, status_of

POLL_SECONDS = 2.0
NOT_DONE, TIMED_OUT = 3, 4  # exit codes

app = typer.Typer()


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over")] = False,
    lease: Annotated[str | None, typer.Option(help="Only of the lease with this id, or these first digits")] = None,
    key: ReadingKey = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what the recipe printed, and why leases failed or were given back; newest last. JSON: one object a line."""
    settings = load_settings(market_url=market)
    with MarketClient(settings.require("market_url")) as client:
        found = chosen_job(client, job)
        reading = reader(settings, client, found, key)
        lease = None if lease is None else _lease(found, lease)
        some = False
        for report in _reports(client, found.id, follow):
            if report.text is not None and (lease is None or report.report.lease.startswith(lease)):
                some = True
                _print(reading.opened(report), output)
        if not some and output is Output.TABLE:
            console.print("There are no logs yet." if found.status not in ENDED else "There are no logs.")


def _lease(job: JobOut, prefix: str) -> str:
    """The id of the job's lease that starts so. Raises UserError."""
    wanted = "0x" + prefix.lower().removeprefix("0x")
    found = [lease.id for lease in job.leases if lease.id.startswith(wanted)]
    if len(found) != 1:
        shown = ", ".join(id[:ID] for id in found or [lease.id for lease in job.leases])
        raise UserError(
            f"{len(found) or 'no'} leases of job {job.id[:ID]} have an id that starts with {prefix!r}",
            f"There are: {shown or 'none yet'}",
        )
    return found[0]


def _reports(client: MarketClient, job: str, follow: bool) -> Iterator[ReportOut]:
    """In the order of their coming; with `follow` those that come until the job is over."""
    seen = 0
    while True:
        over = False
        try:
            over = client.job(job).status in ENDED
            for report in client.reports(job):
                if report.id > seen:
                    seen = report.id
                    yield report
        except (Unreachable, Problem) as error:
            if not follow or (isinstance(error, Problem) and error.status < 500 and error.status != 429):
                raise
        if not follow or over:
            return
        time.sleep(POLL_SECONDS)


def _print(report: ReportOut, output: Output) -> None:
    if output is Output.JSON:
        typer.echo(report.model_dump_json(by_alias=True))
        return
    said = report.report
    when = report.received.strftime("%Y-%m-%d %H:%M:%S")
    title = f"{when}  {said.kind}, checkpoint {said.n}, lease {said.lease[:12]}, {report.provider[:12]}"
    console.rule(title, align="left")
    console.print((report.text or "").rstrip("\n"), highlight=False, soft_wrap=True)


@app.command()
def wait(
    job: JobId,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most", show_default=False)] = None,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Wait until a job is over. Exit code: 0 done, 3 failed, cancelled or expired, 4 not over in time."""
    settings = load_settings(market_url=market)
    ends = None if timeout is None else time.monotonic() + timeout
    with MarketClient(settings.require("market_url")) as client:
        found = chosen_job(client, job)
        with PlainConsole(stderr=True).status(f"waiting for {found.id[:12]}") as status:
            while found.status not in ENDED and (ends is None or time.monotonic() < ends):
                status.update(Text(f"{found.id[:ID]}: {progress_of(found)}; {one_line(status_of(found))}"))
                time.sleep(POLL_SECONDS if ends is None else max(0.0, min(POLL_SECONDS, ends - time.monotonic())))
                try:
                    found = client.job(found.id)
                except Unreachable:
                    continue  # markets restart; the job goes on without them
    if output is Output.JSON:
        typer.echo(found.model_dump_json(by_alias=True, indent=2))
    else:
        say(f"{found.id[:ID]}: {one_line(status_of(found))}; {progress_of(found)}")
    if found.status not in ENDED:
        raise typer.Exit(TIMED_OUT)
    if found.status is not JobStatus.DONE:
        raise typer.Exit(NOT_DONE)
