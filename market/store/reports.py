"""Reports as they were signed; and when the market gives a job up for them."""

from typing import cast

from sqlmodel import Session, col, select

from contracts.api.epochs import MAX_FAILURES
from contracts.orders import FAILURES, Report, ReportKind
from market.store.models import BidRow, LeaseRow, ReportRow


def judge(session: Session, bid: str) -> None:
    """Set or take back a job's `failed`; call it when its reports or leases have changed."""
    reports = session.exec(
        select(ReportRow).where(ReportRow.bid == bid, col(ReportRow.kind).in_(FAILURES)).order_by(col(ReportRow.id))
    ).all()
    job = session.get(BidRow, bid) if reports else None
    if job is None:
        return
    reached = dict(session.exec(select(LeaseRow.id, LeaseRow.accepted).where(LeaseRow.bid == bid)).all())
    index = max(reached.values(), default=0) + 1
    # A lease that is not there was undone by a reorganisation.
    failed = [report for report in reports if report.n == index and report.lease in reached]
    leases = len({report.lease for report in failed})
    job.failed, job.reason = False, ""
    if leases >= MAX_FAILURES:
        job.failed = True
        job.reason = f"{leases} leases failed at checkpoint {index}; their logs are in its reports"
    session.add(job)


def report_of(row: ReportRow) -> Report:
    """As it was signed."""
    return Report(lease=row.lease, n=row.n, kind=cast(ReportKind, row.kind), content=row.content, time=row.time)
