"""Where the chain has another claim than the market was told of: a provider may report one, and claim another."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from contracts.chain.lookup import tips_after
from market.store.models import ChainEvent, CheckpointRow, LeaseRow
from market.store.queries.events import event_of

Key = tuple[str, int]  # lease and index


def other_tips(session: Session, leases: Sequence[LeaseRow]) -> dict[Key, str]:
    """The chain's tips of checkpoints, pending or accepted, of which the market has records with another tip."""
    claimed = {lease.id: lease for lease in leases if lease.claimed > lease.start}
    newest = (
        select(CheckpointRow.lease, CheckpointRow.tip)
        .join(LeaseRow, col(LeaseRow.id) == CheckpointRow.lease)
        .where(col(LeaseRow.id).in_(claimed), CheckpointRow.n == LeaseRow.claimed)
    )
    for id, tip in session.exec(newest):
        if tip == claimed[id].tip:
            del claimed[id]  # records follow each other, so the others are the chain's too
    found: dict[Key, str] = {}
    for lease in claimed.values():
        found |= _other_tips_of(session, lease)
    return found


def _other_tips_of(session: Session, lease: LeaseRow) -> dict[Key, str]:
    rows = session.exec(
        select(ChainEvent)
        .where(ChainEvent.lease == lease.id)
        .order_by(col(ChainEvent.block_number), col(ChainEvent.log_index))
    )
    known = tips_after(lease.start, lease.start_tip, map(event_of, rows)).tips
    ours = dict(session.exec(select(CheckpointRow.n, CheckpointRow.tip).where(CheckpointRow.lease == lease.id)).all())
    agreed = max((n for n, tip in known.items() if ours.get(n) == tip), default=lease.start)
    most = lease.accepted if lease.finished else lease.claimed
    return {(lease.id, n): tip for n, tip in known.items() if agreed < n <= most and n in ours and ours[n] != tip}


def says_otherwise(tip: str) -> str:
    """Of a record, why it is not approved."""
    return f"the chain has another claim of this checkpoint, with the tip {tip}"
