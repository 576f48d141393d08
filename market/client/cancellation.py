"""How a client gets out of a job, and gets back what. docs/client.md."""

from dataclasses import dataclass

from web3.contract.contract import ContractFunction

from contracts.api.bodies import JobOut, JobStatus, JobSummary
from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.chain.lookup import opened
from contracts.errors import UserError
from contracts.terms import Flag, Phase


class NothingToCancel(UserError):
    """By the chain no lease can be opened for the job any more, and none runs."""


@dataclass(frozen=True)
class Cancellation:
    """One transaction that ends a job, as its client is told of it."""

    what: str
    call: ContractFunction
    key: str  # names the intent, by the state that it acts from: given again, the command sends nothing more
    refund: int = 0  # of the lock, token units; less what is approved meanwhile
    free_at: int | None = None  # chain time, UTC seconds; None: it is free already
    others: tuple[JobSummary, ...] = ()  # jobs of the client that die with it
    warning: str = ""


def plan_cancellation(market: MarketClient, chain: Chain, job: JobOut) -> Cancellation:
    """The transaction that cancels a job, by how it stands on chain. Raises NothingToCancel, or UserError if that can't
    be done now.
    """
    if not job.leases:
        return _never_leased(market, chain, job)
    lease = job.leases[-1]
    terms = opened(chain, lease.id, near=lease.opened_block).terms
    if terms.parties.bid != job.id:  # a market could have us end another lease of ours
        raise UserError(f"lease {lease.id}, which the market gives, is of another job on chain", "Nothing is sent.")
    state, nums = chain.state(lease.id), terms.nums
    match state.phase:
        case Phase.ACTIVE:
            return Cancellation(
                f"end lease {lease.id[:12]} with {lease.provider}",
                chain.end(terms),
                f"end {lease.id} {tuple(state)}",
                refund=(nums.price + nums.fee) * (nums.end - max(state.claimed, state.accepted)),
                free_at=chain.now() + nums.window,
                warning="the provider gets nothing for the checkpoint that it is working on; what is accepted, or is "
                "approved until then, is paid",
            )
        case Phase.CLOSED:
            return Cancellation(
                "give up the rest of the job; nothing is locked for it",
                chain.end(terms),
                f"end {lease.id} {tuple(state)}",
            )
        case Phase.CLOSING | Phase.CHALLENGED if state.flags & Flag.BY_CLIENT:
            raise NothingToCancel(
                f"job {job.id[:12]} is cancelled already: its lease {lease.id[:12]} is the last, and ends by itself"
            )
        case Phase.CLOSING | Phase.CHALLENGED:
            ending = state.phase is Phase.CLOSING
            why = "ends already" if ending else "has a checkpoint that is challenged, and the arbiter decides"
            return Cancellation(
                f"let no other lease follow {lease.id[:12]}, which {why}",
                chain.end(terms),
                f"end {lease.id} {tuple(state)}",
                refund=(nums.price + nums.fee) * (nums.end - max(state.claimed, state.accepted)),
                free_at=state.t + nums.window if ending else None,
                warning="what is claimed or approved of it until then is paid"
                if ending
                else "its money is free when the arbiter has ruled, or when its time is over",
            )
    raise NothingToCancel(
        f"job {job.id[:12]} is over on chain: there is nothing to cancel",
        None
        if job.status is JobStatus.DONE
        else "If the market has just gone on with it on another machine, that lease is shown in a moment: try again.",
    )


def _never_leased(market: MarketClient, chain: Chain, job: JobOut) -> Cancellation:
    """A Bid that was never opened dies with its page of orders, and so do all others of that page."""
    account = chain.account(job.bid.client)
    page = account.page
    if job.bid.page > page:  # not raised to what the market says: that is for the chain alone to say
        raise UserError(
            f"job {job.id[:12]} names page {job.bid.page} of your orders, and the node says that you are at {page}",
            "the node may lag behind: try again in a moment",
        )
    if job.bid.page == page and account.used >> job.bid.bit & 1:
        raise UserError(
            f"the market shows no lease of job {job.id[:12]}, but on chain one was opened",
            "Try again in a moment. If it goes on: your lease is on chain, and the market hides it.",
        )
    if job.bid.page < page:
        raise NothingToCancel(
            f"job {job.id[:12]} is cancelled already: its page of orders is {job.bid.page}, not {page}",
            "Orders count while their signer is on their page. Yours was raised, so there is nothing left to stop.",
        )
    others = tuple(
        other
        for other in market.jobs(client=job.bid.client)
        if other.id != job.id and not other.leases and other.bid.page == page and other.status == "pending"
    )
    return Cancellation(
        f"raise your page of orders from {page} to {page + 1}",
        chain.raise_page(page + 1),
        f"page {page + 1}",
        others=others,
        warning="this cancels all your orders that were never opened, at every market and as a provider too",
    )
