"""Claims that their maker has replaced: kept while the approver may have signed one, and brought back by that.

Of messages only, as all that `apply` does: what the chain has to say to it is seen before (market/services/approvals).
"""

from sqlmodel import Session, col, delete, select

from contracts.api.bodies import CheckpointStatus
from market.store.models import CheckpointRow, ReplacedClaimRow

KEPT = 4  # of each checkpoint, the newest: its maker may replace it without end


def put_aside(session: Session, lease: str, n: int, *, keep: bool = True) -> None:
    """Takes the Claims from `n` on out of a lease. Those that have no word yet are kept: one may be on its way.

    Not `keep`: as markets did that kept none.
    """
    rows = session.exec(
        select(CheckpointRow).where(CheckpointRow.lease == lease, CheckpointRow.n >= n).order_by(col(CheckpointRow.n))
    ).all()
    last = session.get(CheckpointRow, (lease, n - 1))
    before, waits = last.tip if last is not None else "", keep
    for row in rows:
        waits = waits and row.status == CheckpointStatus.REPORTED  # nor is what was built on others ever approved
        if waits:
            session.merge(ReplacedClaimRow(before=before, **row.model_dump(exclude={"status", "reason"})))
            _drop_oldest(session, lease, row.n)
        before = row.tip
        session.delete(row)
    session.flush()


def _drop_oldest(session: Session, lease: str, n: int) -> None:
    session.flush()
    kept = select(ReplacedClaimRow).where(ReplacedClaimRow.lease == lease, ReplacedClaimRow.n == n)
    newest = kept.order_by(col(ReplacedClaimRow.received).desc(), col(ReplacedClaimRow.tip))
    for row in session.exec(newest.offset(KEPT)).all():
        session.delete(row)


def way_back(session: Session, lease: str, n: int, tip: str) -> list[ReplacedClaimRow]:
    """What must be put in its place again so that checkpoint `n` has this tip, the newest first.

    Empty if that Claim was not replaced, or if what it was built on is no more to be had.
    """
    found: list[ReplacedClaimRow] = []
    while (row := session.get(ReplacedClaimRow, (lease, n, tip))) is not None:
        found.append(row)
        n, tip = n - 1, row.before
    below = session.get(CheckpointRow, (lease, n))
    return found if tip == (below.tip if below is not None else "") else []


def bring_back(session: Session, lease: str, n: int, tip: str) -> None:
    """The approver's word on checkpoint `n` has come: of the Claims up to it those that lead to `tip` stay."""
    back = [CheckpointRow(**row.model_dump(exclude={"before"})) for row in way_back(session, lease, n, tip)]
    if back:
        put_aside(session, lease, back[-1].n)
        session.add_all(back)
    session.exec(delete(ReplacedClaimRow).where(col(ReplacedClaimRow.lease) == lease, col(ReplacedClaimRow.n) <= n))
    session.flush()


def forget(session: Session, lease: str, n: int, tip: str) -> None:
    """It is handed in again."""
    kept = session.get(ReplacedClaimRow, (lease, n, tip))
    if kept is not None:
        session.delete(kept)
