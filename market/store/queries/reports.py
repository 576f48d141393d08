"""Reports as they were signed; which of them tell; and when the market gives a job up for them."""

from collections.abc import Collection, Iterator
from typing import Any, cast

from sqlalchemy import func
from sqlmodel import Session, col, select

from contracts.api.epochs import MAX_FAILURES
from contracts.orders import FAILURES, Report, ReportKind
from market.store.columns import without
from market.store.models import BidRow, LeaseRow, ReportRow

TEXT_BEGINS = 200  # characters of a report's text that the auction reads


def judge(session: Session, bid: str) -> None:
    """Set or take back a job's `failed`; call it when its reports or leases have changed."""
    reports = session.exec(
        select(ReportRow.lease, ReportRow.n).where(col(ReportRow.id).in_(first_told([bid], FAILURES)))
    ).all()
    job = session.get(BidRow, bid) if reports else None
    if job is None:
        return
    reached = dict(session.exec(select(LeaseRow.id, LeaseRow.accepted).where(LeaseRow.bid == bid)).all())
    index = max(reached.values(), default=0) + 1
    # A lease that is not there was undone by a reorganisation.
    leases = len({lease for lease, n in reports if n == index and lease in reached})
    job.failed, job.reason = False, ""
    if leases >= MAX_FAILURES:
        job.failed = True
        job.reason = f"{leases} leases failed at checkpoint {index}; their logs are in its reports"
    session.add(job)


def first_told(bids: Collection[str], kinds: Collection[ReportKind]) -> Any:
    """Query for the ids of the reports of these Bids and kinds that tell: each lease's first of each kind. A lease
    stops once, so what comes after it is said again, or made up.
    """
    of_these = (col(ReportRow.bid).in_(bids), col(ReportRow.kind).in_(kinds))
    return select(func.min(ReportRow.id)).where(*of_these).group_by(col(ReportRow.lease), col(ReportRow.kind))


def read_told(
    session: Session, bids: Collection[str], kinds: Collection[ReportKind]
) -> Iterator[tuple[ReportRow, str]]:
    """The reports that tell, without their texts, and what each text begins with."""
    begins = func.substr(col(ReportRow.text), 1, TEXT_BEGINS)
    told = select(ReportRow, begins).where(col(ReportRow.id).in_(first_told(bids, kinds))).order_by(col(ReportRow.id))
    yield from session.exec(told.options(*without(ReportRow.text)))


def report_of(row: ReportRow) -> Report:
    """As it was signed."""
    return Report(lease=row.lease, n=row.n, kind=cast(ReportKind, row.kind), content=row.content, time=row.time)
