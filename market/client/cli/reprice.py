"""`gpumarket job reprice`: another Bid for the rest of a job, in the place of the one that waits."""

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from contracts.api.bodies import JobOut, JobStatus
from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.chain.sending.fees import format_ether
from contracts.chain.sending.sender import Sender
from contracts.cli.jobs import JobId, MarketUrl
from contracts.cli.output import Output, OutputOption, PlainConsole
from contracts.errors import UserError
from contracts.program.progress_bar import watching
from contracts.wallet import keys
from market.client.cancellation import Cancellation, NothingToCancel, plan_cancellation
from market.client.cli.cancel import explain_cancellation
from market.client.cli.common import (
    ClientKey,
    DryRun,
    NewPrice,
    Yes,
    beside_json,
    own_job,
    reached_on_chain,
    same_time,
    status_of,
)
from market.client.cli.hand_in import hand_in
from market.client.replacing import AGAIN, OldBid, Reached, check_not_replaced
from market.client.submit import Submission, prepare_again

CANCEL_SECONDS = 120.0  # until the market has seen it

app = typer.Typer()


@app.command()
def reprice(
    job: JobId,
    units: Annotated[
        int | None, typer.Option(min=1, help="Work units per checkpoint, as `recipe measure` finds them")
    ] = None,
    max_price: NewPrice = None,
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
    say = beside_json(output)
    with own_job(job, key, market) as (client, chain, found, name):
        same_time(client, chain)
        cancellation = _plan(client, chain, found)
        old = OldBid(chain, found)

        def ask(reached: Reached) -> Submission:
            return prepare_again(
                client, chain.domain, found, reached.tip, units=units, max_price=max_price, rules=rules
            )

        offer = ask(reached_on_chain(client, chain, found, old))
        cancel: Callable[[], None] | None = None
        if cancellation is None:
            check_not_replaced(client, found, offer.quote.bid)
        else:
            sender = Sender(chain, keys.load(name), allowed=lambda: not dry_run)
            explain_cancellation(say, cancellation, offer.info, sender.cost(cancellation.call))
            cancel = partial(_cancel, cancellation, sender, say)
        first = partial(_replace, client, chain, found, old, cancel, ask)
        hand_in(client, chain, name, offer, yes=yes, dry_run=dry_run, output=output, first=first)


def _cancel(cancellation: Cancellation, sender: Sender, say: PlainConsole) -> None:
    receipt = sender.send(cancellation.call, key=cancellation.key)
    gas = format_ether(receipt["gasUsed"] * receipt["effectiveGasPrice"])
    say.print(f"The Bid before is cancelled, for {gas} ETH of gas.", highlight=False)


def _replace(
    client: MarketClient,
    chain: Chain,
    job: JobOut,
    old: OldBid,
    cancel: Callable[[], None] | None,
    ask: Callable[[Reached], Submission],
) -> Submission:
    """Ends the Bid that waits; the offer for the other one, once it is sure for good that since `job` was read nothing
    was opened or accepted. The market may be late, or lie: the chain has the last word.
    """
    if cancel is not None:
        cancel()
    # Between the look at the job and its end lies a question to somebody who may take an hour to answer.
    with watching(PlainConsole(stderr=True)) as watch:
        reached = old.wait_until_dead(watch)
        page = chain.account(job.bid.client).page
        late = time.monotonic() + CANCEL_SECONDS
        while True:
            now = client.job(job.id)
            if not _is_as_before(job, now):
                raise UserError(
                    f"a lease of job {job.id[:12]} was opened before it was cancelled: it is {status_of(now)} now",
                    AGAIN,
                )
            if now.status is not JobStatus.PENDING and (offer := ask(reached)).quote.bid.page >= page:
                return offer
            if time.monotonic() > late:
                raise UserError(
                    f"the market has not seen yet that job {job.id[:12]} is cancelled",
                    "Nothing new was signed: give the command again in a while.",
                )
            watch("waiting for the market to see it")
            time.sleep(0.5)


def _is_as_before(job: JobOut, now: JobOut) -> bool:
    """No more of its work was made or paid. A job that was given up stays that when it is cancelled."""
    fine = {JobStatus.PENDING, JobStatus.CANCELLED, JobStatus.EXPIRED} | ({job.status} & {JobStatus.FAILED})
    leases = [lease.id for lease in job.leases] == [lease.id for lease in now.leases]
    return now.status in fine and leases and now.accepted == job.accepted


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
