"""What still lives in a market: what an operator waits for who drains it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, or_, select

from contracts.chain.client import Chain
from contracts.chain.events import Deposited
from contracts.terms import Flag, Phase, StateWord
from contracts.types import ZERO_ADDRESS
from market.store.models import BidRow, ChainEvent, LeaseRow
from market.store.queries.leases import nums_of, phase_of
from market.store.queries.rule_sets import known_rules

LIVE = (Phase.ACTIVE, Phase.CLOSING, Phase.CHALLENGED)


@dataclass(frozen=True)
class Remaining:
    """Of one market, as far as it has followed the chain. Money in the token's smallest units."""

    leases: dict[str, int]  # live ones, by phase
    locked: int  # of their clients, for checkpoints that are not paid yet
    stakes: int
    others: int  # live leases that other markets opened on the same escrow
    free: int  # in the escrow beside what all its leases and challenges hold; its owners may withdraw it at any time
    burnt: int  # of stakes, by voids: nobody may withdraw it
    until: int | None  # UTC seconds: when the last one is over, if nobody challenges a claim; None: none is live

    @property
    def drained(self) -> bool:
        return self.until is None


def paid_in(session: Session, approver: str, matcher: str) -> int:
    """What the matcher has deposited for the approver: for replays."""
    rows = session.exec(
        select(ChainEvent.data).where(ChainEvent.name == Deposited.__name__, ChainEvent.account == approver)
    )
    return sum(int(data["amount"]) for data in rows if data["sender"] == matcher)


def look_at(session: Session, chain: Chain, matcher: str, now: int) -> Remaining:
    """`matcher`: the market's; leases of a Bid that it holds are its own as well."""
    live = session.exec(select(LeaseRow).where(col(LeaseRow.finished).is_(None))).all()
    ours_too = or_(col(LeaseRow.bid).in_(select(BidRow.id)), col(LeaseRow.fee_to) == matcher)
    ids = set(session.exec(select(LeaseRow.id).where(col(LeaseRow.finished).is_(None), ours_too)))
    ours = [row for row in live if row.id in ids]
    phases = Counter(phase_of(row) for row in ours)
    burnt = chain.account(ZERO_ADDRESS).free
    held = burnt + sum(row.stake + _locked(row) + _bond(chain, row) for row in live)
    return Remaining(
        leases={phase.name.lower(): phases[phase] for phase in LIVE},
        locked=sum(map(_locked, ours)),
        stakes=sum(row.stake for row in ours),
        others=len(live) - len(ours),
        free=chain.token_balance(chain.escrow.address) - held,
        burnt=burnt,
        until=_until(ours, _arbiter_timeouts(session), now),
    )


def _locked(row: LeaseRow) -> int:
    return (row.price + row.fee) * (row.end - row.settled)


def _bond(chain: Chain, row: LeaseRow) -> int:
    """Of who challenges it."""
    dispute = chain.dispute(row.id) if phase_of(row) is Phase.CHALLENGED else None
    return 0 if dispute is None else dispute.bond


def _arbiter_timeouts(session: Session) -> dict[str, int]:
    return {hash: one.rules.arbiter_timeout for hash, one in known_rules(session).items()}


def _until(rows: Sequence[LeaseRow], arbiter_timeouts: Mapping[str, int], now: int) -> int | None:
    """Each checkpoint may come at the end of its timeout; then nobody may come, and the last window passes. A lease
    that is challenged goes on where it was, at the end of the arbiter's time at the latest.
    """
    return max((_latest_end(row, arbiter_timeouts.get(row.rules, 0), now) for row in rows), default=None)


def _latest_end(row: LeaseRow, arbiter_timeout: int, now: int) -> int:
    nums = nums_of(row)
    state = StateWord(row.status, row.settled, row.accepted, row.claimed, row.t, 0).synced(nums, now)
    phase = state.phase
    if phase is Phase.CHALLENGED:
        state = state._replace(t=max(now, state.t + arbiter_timeout))  # from which the clocks go on
        phase = Phase.CLOSING if Flag.WAS_CLOSING in state.flags else Phase.ACTIVE
    if phase is not Phase.ACTIVE:
        return max(now, state.t + 2 * nums.window)
    return max(now, state.t) + (row.end - state.claimed + 1) * nums.timeout + 2 * nums.window
