"""A lease as the chain has it, and whether a market says the same."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from web3.types import FilterParams

from contracts.api.bodies import JobSummary, LeaseOut
from contracts.chain.client import Chain
from contracts.chain.events import (
    Approved,
    Challenged,
    Claimed,
    Closed,
    Event,
    Opened,
    Resolved,
    RulesUsed,
    Settled,
    decode,
    topic_of,
)
from contracts.commitment import next_tip
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.program.progress_bar import Watch, nobody
from contracts.terms import Phase, StateWord, Verdict
from contracts.types import from_hex, to_hex

LEASES_AT_ONCE = 100  # that a question for logs names: nodes limit those too, most to a thousand


class MarketLied(UserError):
    """What a market says of a lease is not what its terms on chain commit to."""


class OpenedRange(NamedTuple):
    """The events of all leases that a provider got, up to block `end`, from where the range before it ended."""

    end: int
    events: list[Opened]


def opened(chain: Chain, lease: str, near: int | None = None, watch: Watch = nobody) -> Opened:
    """The event that opened a lease: all its terms and the tip it started from. UserError if there is none.

    `near`: the block that somebody says it was in; looked at first, so that the others need not be.
    """
    first, newest = chain.settings.deploy_block, int(chain.w3.eth.block_number)
    which = _filter(chain, topic_of(Opened), lease)
    places = [(first, newest)] if near is None or not first <= near <= newest else [(near, near), (first, newest)]
    for start, end in places:
        for found in chain.logs.ranges(which, start, end, watch):
            for event in (decode(log, 0) for log in found.logs):
                if isinstance(event, Opened):
                    return event
    raise UserError(f"the escrow {chain.escrow.address} never opened a lease {lease}", "is this the right chain?")


def rules_of(chain: Chain, opening: Opened) -> Rules:
    """The rules of a lease, as its opening has told them. Raises UserError if it has bits that no rules have."""
    wanted, block = opening.terms.parties.rules, opening.at.block
    for log in chain.logs.logs(_filter(chain, topic_of(RulesUsed), wanted), block, block):
        event = decode(log, 0)
        if isinstance(event, RulesUsed) and event.rules.struct_hash() == wanted:
            return event.rules
    raise UserError(f"block {block} does not tell the rules {wanted} of lease {opening.lease}")


def opened_by(
    chain: Chain, provider: str, first_block: int, last_block: int, watch: Watch = nobody
) -> Iterator[OpenedRange]:
    """The events of all leases that this provider got in the given blocks, both included, range by range."""
    which = _filter(chain, topic_of(Opened), None, _topic(provider))
    for found in chain.logs.ranges(which, first_block, last_block, watch):
        times = {log["blockHash"]: 0 for log in found.logs}
        for block in times:
            times[block] = int(chain.w3.eth.get_block(block)["timestamp"])
        decoded = [decode(log, times[log["blockHash"]]) for log in found.logs]
        yield OpenedRange(found.end, [event for event in decoded if isinstance(event, Opened)])


def opened_for(chain: Chain, client: str, first_block: int, last_block: int, watch: Watch = nobody) -> list[Opened]:
    """The events of all leases that this client got in the given blocks, both included, in the chain's order.

    Their timestamps are left out (0).
    """
    logs = chain.logs.logs(_filter(chain, topic_of(Opened), None, None, _topic(client)), first_block, last_block, watch)
    return [event for event in (decode(log, 0) for log in logs) if isinstance(event, Opened)]


def lease_events(chain: Chain, lease: str, first_block: int, watch: Watch = nobody) -> list[Event]:
    """All events of one lease from a block on, in order. Their timestamps are left out (0)."""
    return events_by_lease(chain, {lease: first_block}, watch)[lease]


def events_by_lease(chain: Chain, leases: Mapping[str, int], watch: Watch = nobody) -> dict[str, list[Event]]:
    """All events of each lease, in order; `leases` has the block in which each was opened. Many are searched for at
    once. Timestamps are left out (0).
    """
    found: dict[str, list[Event]] = {lease: [] for lease in leases}
    newest, in_order = int(chain.w3.eth.block_number), sorted(leases, key=leases.__getitem__)
    for at in range(0, len(in_order), LEASES_AT_ONCE):
        some = in_order[at : at + LEASES_AT_ONCE]
        for log in chain.logs.logs(_filter(chain, None, some), leases[some[0]], newest, watch):
            if (event := decode(log, 0)) is not None:
                found[to_hex(log["topics"][1])].append(event)
    return found


def _filter(chain: Chain, *topics: str | list[str] | None) -> FilterParams:
    return cast(FilterParams, {"address": chain.escrow.address, "topics": list(topics)})


def _topic(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")


def accepted_tips(chain: Chain, opening: Opened, watch: Watch = nobody) -> dict[int, str]:
    """What the chain itself says a lease has accepted: index -> tip, for all indices that it knows the tip of.

    The newest accepted one is always among them. After an Approval those claimed before it are not: an approver may
    have accepted others in their place.
    """
    found = tips_on_chain(opening, lease_events(chain, opening.lease, opening.at.block, watch))
    state = chain.state(opening.lease)
    accepted = max(found.accepted, state.synced(opening.terms.nums, chain.now()).accepted)
    return {n: known for n, known in found.tips.items() if n <= accepted}


def next_tip_on_chain(chain: Chain, job: JobSummary, index: int, watch: Watch = nobody) -> tuple[int, str] | None:
    """The first checkpoint of a job from `index` on whose tip the chain has, accepted or pending in a live lease; and
    that tip, which commits to those before it. None if there is none. Raises MarketLied for another job's lease.
    """
    for lease in sorted(job.leases, key=lambda one: (one.start, one.opened_block)):
        if lease.end < index:
            continue
        opening = opened(chain, lease.id, lease.opened_block, watch)
        if opening.terms.parties.bid != job.id:
            raise MarketLied(f"lease {lease.id} is of job {opening.terms.parties.bid} on chain, not of {job.id}")
        known = tips_on_chain(opening, lease_events(chain, lease.id, opening.at.block, watch))
        state = chain.state(lease.id)
        is_over = state.phase not in (Phase.ACTIVE, Phase.CLOSING, Phase.CHALLENGED)  # what was pending then is void
        most = max(known.accepted, state.accepted) if is_over else opening.terms.nums.end
        first = min((n for n in known.tips if max(index, lease.start + 1) <= n <= most), default=None)
        if first is not None:
            return first, known.tips[first]
    return None


class TipsOnChain(NamedTuple):
    """Index -> tip, of what is accepted and of what is pending; `accepted`: as far as events alone tell."""

    tips: dict[int, str]
    accepted: int


def tips_on_chain(opening: Opened, events: Iterable[Event]) -> TipsOnChain:
    """What a lease's events, in the chain's order, say of the tips of its checkpoints. Pure."""
    return tips_after(opening.terms.nums.start, opening.tip, events)


def tips_after(start: int, start_tip: str, events: Iterable[Event]) -> TipsOnChain:
    """The same of a lease that begins after checkpoint `start` with that tip. Pure."""
    accepted = start
    tips, claimed = {accepted: start_tip}, dict[int, str]()
    tip, set_aside = start_tip, None  # where the next claim follows on; and, in a dispute, where what is pending ends
    for event in events:
        match event:
            case Claimed():
                for n, root in enumerate(event.roots, event.n - len(event.roots) + 1):
                    tip = to_hex(next_tip(from_hex(tip), from_hex(root)))
                    claimed[n] = tip
            case Approved():
                accepted = max(accepted, event.n)
                tips[event.n] = event.tip
                # In a dispute it may be of fewer than are claimed: the others stay pending on top of it.
                claimed = {n: known for n, known in claimed.items() if n > event.n}
                if not claimed and set_aside is not None:
                    set_aside = event.tip
                if not claimed or set_aside is not None:
                    tip = event.tip
            case Settled():
                accepted = max(accepted, event.n)
            case Closed():
                accepted = max(accepted, event.accepted)
            case Challenged():
                set_aside, tip = tip, event.accepted_tip
            case Resolved(verdict=Verdict.TRUE | Verdict.WITHDRAWN) if set_aside is not None:
                tip, set_aside = set_aside, None
    return TipsOnChain(claimed | tips, accepted)


def pending_roots(events: Iterable[Event], state: StateWord) -> dict[int, str]:
    """By index: the roots of what is claimed and not accepted, from a lease's events in the chain's order. Pure."""
    found: dict[int, str] = {}
    for event in events:
        if isinstance(event, Claimed):
            found |= dict(enumerate(event.roots, event.n - len(event.roots) + 1))
        elif isinstance(event, Approved):
            found = {n: root for n, root in found.items() if n > event.n}
    return {n: root for n, root in found.items() if state.accepted < n <= state.claimed}


def verify_lease(chain: Chain, lease: LeaseOut, event: Opened) -> None:
    """Raises MarketLied unless the market's Bid, JobSpec and rules are those that the lease on chain commits to."""
    parties = event.terms.parties
    checks = (
        ("the lease's id", event.lease, lease.id),
        ("the terms' hash", event.terms.lease, event.lease),
        ("the Bid", parties.bid, lease.bid.digest(chain.domain)),
        ("the job", parties.job, to_hex(lease.spec.job_hash())),
        ("the rules", parties.rules, lease.rules.struct_hash()),
        ("the job's id", parties.bid, lease.job),
    )
    for what, on_chain, said in checks:
        if on_chain != said:
            raise MarketLied(f"{what} of lease {event.lease} on chain is {on_chain}, but the market gives {said}")
    if lease.bid.checkpoints != lease.spec.checkpoints:
        raise MarketLied(
            f"the Bid of lease {event.lease} is for {lease.bid.checkpoints} checkpoints, its job has "
            f"{lease.spec.checkpoints}"
        )


def tips_of(start: int, start_tip: str, events: Iterable[Event]) -> dict[int, str]:
    """The tips that a lease's events show, by index; the newest word on each. Pure. `events` in the chain's order."""
    tips = {start: start_tip}
    for event in events:
        if isinstance(event, Approved):
            tips[event.n] = event.tip
        elif isinstance(event, Claimed):
            for index, root in enumerate(event.roots, start=event.n - len(event.roots) + 1):
                tips[index] = to_hex(next_tip(from_hex(tips[index - 1]), from_hex(root)))
    return tips
