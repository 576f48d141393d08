"""What still lives in a market: what an operator waits for who drains it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, or_, select

from contracts.chain.client import Chain
from contracts.terms import Phase, StateWord
from market.store.models import BidRow, LeaseRow
from market.store.queries.leases import nums_of, phase_of

LIVE = (Phase.ACTIVE, Phase.CLOSING, Phase.CHALLENGED)


@dataclass(frozen=True)
class Remaining:
    """Of one market, as far as it has followed the chain. Money in the token's smallest units."""

    leases: dict[str, int]  # live ones, by phase
    locked: int  # of their clients, for checkpoints that are not paid yet
    stakes: int
    others: int  # live leases that other markets opened on the same escrow
    free: int  # in the escrow beside what all its leases and challenges hold; its owners may withdraw it at any time
    until: int | None  # UTC seconds: when the last one is over, if nobody challenges a claim; None: none is live

    @property
    def drained(self) -> bool:
        return self.until is None


def look_at(session: Session, chain: Chain, matcher: str, now: int) -> Remaining:
    """`matcher`: the market's; leases of a Bid that it holds are its own as well."""
    live = session.exec(select(LeaseRow).where(col(LeaseRow.finished).is_(None))).all()
    ours_too = or_(col(LeaseRow.bid).in_(select(BidRow.id)), col(LeaseRow.fee_to) == matcher)
    ids = set(session.exec(select(LeaseRow.id).where(col(LeaseRow.finished).is_(None), ours_too)))
    ours = [row for row in live if row.id in ids]
    phases = Counter(phase_of(row) for row in ours)
    held = sum(row.stake + _locked(row) + _bond(chain, row) for row in live)
    return Remaining(
        leases={phase.name.lower(): phases[phase] for phase in LIVE},
        locked=sum(map(_locked, ours)),
        stakes=sum(row.stake for row in ours),
        others=len(live) - len(ours),
        free=chain.token_balance(chain.escrow.address) - held,
        until=_until(ours, now),
    )


def _locked(row: LeaseRow) -> int:
    return (row.price + row.fee) * (row.end - row.settled)


def _bond(chain: Chain, row: LeaseRow) -> int:
    """Of who challenges it."""
    dispute = chain.dispute(row.id) if phase_of(row) is Phase.CHALLENGED else None
    return 0 if dispute is None else dispute.bond


def _until(rows: Sequence[LeaseRow], now: int) -> int | None:
    """Each checkpoint may come at the end of its timeout; then nobody may come, and the last window passes."""
    return max((_latest_end(row, now) for row in rows), default=None)


def _latest_end(row: LeaseRow, now: int) -> int:
    nums = nums_of(row)
    state = StateWord(row.status, row.settled, row.accepted, row.claimed, row.t, 0).synced(nums, now)
    if state.phase is not Phase.ACTIVE:
        return max(now, state.t + 2 * nums.window)
    return max(now, state.t) + (row.end - state.claimed + 1) * nums.timeout + 2 * nums.window
