"""A lease as the chain has it, and whether a market says the same."""

from collections.abc import Iterable, Iterator

from eth_utils.crypto import keccak

from contracts.api.bodies import LeaseOut
from contracts.chain.client import Chain
from contracts.chain.events import Approved, Challenged, Claimed, Closed, Event, Opened, Resolved, Settled, decode
from contracts.commitment import next_tip
from contracts.errors import UserError
from contracts.types import from_hex, to_hex

_OPENED_TOPIC = to_hex(
    keccak(
        b"Opened(bytes32,address,address,bytes32,uint256,bytes20,"
        b"(bytes32,bytes32,bytes32,bytes32,address,address,address,uint96))"
    )
)

_BLOCKS_PER_QUERY = 10_000  # what public nodes allow at least


class MarketLied(UserError):
    """What a market says of a lease is not what its terms on chain commit to."""


def opened(chain: Chain, lease: str) -> Opened:
    """The event that opened a lease: all its terms and the tip it started from. UserError if there is none."""
    logs = chain.w3.eth.get_logs(
        {
            "address": chain.escrow.address,
            "topics": [_OPENED_TOPIC, lease],  # type: ignore[list-item]
            "fromBlock": chain.settings.deploy_block,
        }
    )
    for log in logs:
        event = decode(log, 0)
        if isinstance(event, Opened):
            return event
    raise UserError(f"the escrow {chain.escrow.address} never opened a lease {lease}", "is this the right chain?")


def opened_by(chain: Chain, provider: str, first_block: int, last_block: int) -> Iterator[Opened]:
    """The events of all leases that this provider got in the given blocks, both included."""
    topic = "0x" + provider[2:].lower().rjust(64, "0")
    for first in range(first_block, last_block + 1, _BLOCKS_PER_QUERY):
        logs = chain.w3.eth.get_logs(
            {
                "address": chain.escrow.address,
                "topics": [_OPENED_TOPIC, None, topic],  # type: ignore[list-item]
                "fromBlock": first,
                "toBlock": min(first + _BLOCKS_PER_QUERY - 1, last_block),
            }
        )
        for log in logs:
            event = decode(log, int(chain.w3.eth.get_block(log["blockHash"])["timestamp"]))
            if isinstance(event, Opened):
                yield event


def lease_events(chain: Chain, lease: str, first_block: int) -> list[Event]:
    """All events of one lease from a block on, in order. Their timestamps are left out (0)."""
    newest = int(chain.w3.eth.block_number)
    found: list[Event | None] = []
    for first in range(first_block, newest + 1, _BLOCKS_PER_QUERY):
        logs = chain.w3.eth.get_logs(
            {
                "address": chain.escrow.address,
                "topics": [None, lease],  # type: ignore[list-item]
                "fromBlock": first,
                "toBlock": min(first + _BLOCKS_PER_QUERY - 1, newest),
            }
        )
        found += [decode(log, 0) for log in logs]
    return [event for event in found if event is not None]


def accepted_tips(chain: Chain, opening: Opened) -> dict[int, str]:
    """What the chain itself says a lease has accepted: index -> tip, for all indices that it knows the tip of.

    The newest accepted one is always among them. After an Approval those claimed before it are not: an approver may
    have accepted others in their place.
    """
    accepted = opening.terms.nums.start
    tips, claimed = {accepted: opening.tip}, dict[int, str]()
    tip = before_challenge = opening.tip
    for event in lease_events(chain, opening.lease, opening.at.block):
        match event:
            case Claimed():
                for n, root in enumerate(event.roots, event.n - len(event.roots) + 1):
                    tip = to_hex(next_tip(from_hex(tip), from_hex(root)))
                    claimed[n] = tip
            case Approved():
                accepted, tip = max(accepted, event.n), event.tip
                tips[event.n] = tip
                claimed.clear()
            case Settled():
                accepted = max(accepted, event.n)
            case Closed():
                accepted = max(accepted, event.accepted)
            case Challenged():
                before_challenge, tip = tip, event.accepted_tip
            case Resolved(verdict=1):
                tip = before_challenge
    state = chain.state(opening.lease)
    accepted = max(accepted, state.synced(opening.terms.nums, chain.now()).accepted)
    return {n: known for n, known in (claimed | tips).items() if n <= accepted}


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
