"""Epochs: what each clearing matched, and what it left out."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from contracts.api.bodies import EpochOut, MatchOut, Page, UnmatchedOut
from contracts.api.problems import Code, Problem
from market.context import Context
from market.models import EpochRow, MatchRow, UnmatchedRow
from market.paging import Keyset, read_page

_NEWEST_FIRST = Keyset(col(EpochRow.number), descending=True)


def get_epoch(context: Context, number: int) -> EpochOut:
    with context.db.reading() as session:
        row = session.get(EpochRow, number)
        if row is None:
            raise Problem(404, Code.NOT_FOUND, f"there is no epoch {number}")
        return _outs(session, [row])[0]


def list_epochs(context: Context, after: str | None, limit: int) -> Page[EpochOut]:
    with context.db.reading() as session:
        return read_page(session, select(EpochRow), _NEWEST_FIRST, after, limit, lambda rows: _outs(session, rows))


def _outs(session: Session, rows: Sequence[EpochRow]) -> list[EpochOut]:
    numbers = [row.number for row in rows]
    matches: dict[int, list[MatchOut]] = {number: [] for number in numbers}
    unmatched: dict[int, list[UnmatchedOut]] = {number: [] for number in numbers}
    for match in session.exec(select(MatchRow).where(col(MatchRow.epoch).in_(numbers)).order_by(col(MatchRow.bid))):
        out = MatchOut(bid=match.bid, ask=match.ask, price=match.price, lease=match.lease, note=match.note)
        matches[match.epoch].append(out)
    left = select(UnmatchedRow).where(col(UnmatchedRow.epoch).in_(numbers)).order_by(col(UnmatchedRow.bid))
    for bid in session.exec(left):
        unmatched[bid.epoch].append(UnmatchedOut(bid=bid.bid, reason=bid.reason))
    return [
        EpochOut(
            number=row.number,
            order_root=row.order_root,
            started=row.started,
            matches=matches[row.number],
            unmatched=unmatched[row.number],
            transaction=row.transaction,
        )
        for row in rows
    ]
