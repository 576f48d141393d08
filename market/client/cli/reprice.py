"""`gpumarket job reprice`: another Bid for the rest of a job, in the place of the one that waits."""

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from contracts.api.bodies import JobOut, JobStatus
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.output import Output, OutputOption, PlainConsole, console
from contracts.errors import UserError
from contracts.settings import load_settings
from contracts.wallet import keys
from market.client.cancellation import Cancellation, NothingToCancel, plan_cancellation
from market.client.cli.cancel import explain_cancellation
from market.client.cli.common import (
    ENDED,
    ClientKey,
    DryRun,
    JobId,
    MarketUrl,
    Yes,
    check_is_ours,
    chosen_job,
    client_key,
    same_time,
    status_of,
)
from market.client.cli.hand_in import hand_in
from market.client.download import accepted_chain, check_against_chain
from market.client.submit import Submission, prepare_again

CANCEL_SECONDS = 120.0  # until the market has seen it

app = typer.Typer()


@app.command()
def reprice(
    job: JobId,
    units: Annotated[
        int | None, typer.Option(min=1, help="Work units per checkpoint, as `recipe measure` finds them")
    ] = None,
    max_price: Annotated[str | None, typer.Option(help="Tokens per checkpoint at most, fee included")] = None,
    rules: Annotated[str | None, typer.Option(help="Name of the rules")] = None,
    key: ClientKey = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    market: MarketUrl = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Go on with a job that waits or is over under other terms: from its last accepted checkpoint, or its start.

    The Bid that waits is cancelled on chain first, so that there are never two for the same work.
    """
    if units is None and max_price is None and rules is None:
        raise UserError("nothing of the job's terms was to be changed", "Give --units, --max-price or --rules.")
    settings = load_settings(market_url=market)
    chain = connect(settings)
    say = console if output is Output.TABLE else PlainConsole(stderr=True)
    with MarketClient(settings.require("market_url")) as client:
        same_time(client, chain)
        found = chosen_job(client, job)
        check_is_ours(chain, found)
        name = client_key(found, key)
        cancellation = _plan(client, chain, found)
        records = accepted_chain(client, found)
        check_against_chain(chain, found, records)
        tip = records[-1].checkpoint.tip if records else found.bid.start_tip
        ask = partial(prepare_again, client, chain.domain, found, tip, units=units, max_price=max_price, rules=rules)
        offer, first = ask(), ask
        if cancellation is not None:
            sender = Sender(chain, keys.load(name), allowed=lambda: not dry_run)
            explain_cancellation(say, cancellation, offer.info, sender.cost(cancellation.call))
            first = partial(_replace, client, chain, found, cancellation, sender, ask, say)
        hand_in(client, chain, name, offer, yes=yes, dry_run=dry_run, output=output, first=first)


def _replace(
    client: MarketClient,
    chain: Chain,
    job: JobOut,
    cancellation: Cancellation,
    sender: Sender,
    ask: Callable[[], Submission],
    say: PlainConsole,
) -> Submission:
    """Cancels the Bid that waits; the offer for the other one, once it is sure that nothing was opened meanwhile."""
    receipt = sender.send(cancellation.call, key=cancellation.key)
    gas = format_ether(receipt["gasUsed"] * receipt["effectiveGasPrice"])
    say.print(f"The Bid before is cancelled, for {gas} ETH of gas.", highlight=False)
    page = chain.account(job.bid.client).page
    late = time.monotonic() + CANCEL_SECONDS
    while True:
        now, offer = client.job(job.id), ask()
        # Between the look at the job and its end lies a question to somebody who may take an hour to answer.
        if _reached(now) != _reached(job):
            raise UserError(
                f"a lease of job {job.id[:12]} was opened before it was cancelled: {status_of(now)}",
                "Nothing new was signed. See `gpumarket job show`, and give the command again when no lease is live.",
            )
        if now.status in ENDED and offer.quote.bid.page >= page:
            return offer
        if time.monotonic() > late:
            raise UserError(
                f"the market has not seen yet that job {job.id[:12]} is cancelled",
                "Nothing new was signed: give the command again in a while.",
            )
        time.sleep(0.5)


def _reached(job: JobOut) -> tuple[int, list[str]]:
    return job.accepted, [lease.id for lease in job.leases]


def _plan(client: MarketClient, chain: Chain, job: JobOut) -> Cancellation | None:
    """How the Bid dies that is replaced; None if it is dead. Raises UserError for a job that is not to be replaced."""
    if job.status is JobStatus.DONE:
        raise UserError(f"job {job.id[:12]} is done", "More steps: gpumarket job extend --steps N")
    if job.status in (JobStatus.RUNNING, JobStatus.CLOSING):
        raise UserError(
            f"a lease of job {job.id[:12]} is not over ({status_of(job)}): more may be made and paid under its Bid",
            "Wait until it is, or cancel the job (gpumarket job cancel) and reprice it when the window has passed.",
        )
    if job.bid.valid_until < chain.now():
        return None
    try:
        plan = plan_cancellation(client, chain, job)
    except NothingToCancel:
        return None
    if plan.free_at is not None:
        raise UserError(
            f"the market says that job {job.id[:12]} waits, but on chain a lease of it is active",
            "Try again in a moment.",
        )
    return plan
