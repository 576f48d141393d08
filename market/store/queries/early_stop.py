"""Whether a job has ended before its last checkpoint, by its own rule (`stop` of its JobSpec)."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from contracts.job.early_stop import Stop
from market.store.models import CheckpointRow, LeaseRow
from market.store.queries.leases import state_now


def early_stop(session: Session, stop: Stop | None, leases: Sequence[LeaseRow], now: int) -> str | None:
    """The reason, if the metrics of the accepted checkpoints say so; None if the job goes on."""
    if stop is None or not leases:
        return None
    reached = {lease.id: state_now(lease, now).accepted for lease in leases}
    rows = session.exec(select(CheckpointRow).where(col(CheckpointRow.lease).in_(list(reached)))).all()
    metrics = {row.n: row.record["metrics"] for row in rows if row.n <= reached[row.lease]}
    index = stop.reached([metrics.get(n, {}) for n in range(1, max(reached.values()) + 1)])
    return stop.sentence(index) if index else None


def read_stop(stored: Any) -> Stop | None:
    """Raises ValueError."""
    return None if stored is None else Stop.model_validate(stored)
