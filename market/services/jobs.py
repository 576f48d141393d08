"""Jobs: a Bid, the leases that worked on it, and what that makes of it."""

from collections import Counter
from collections.abc import Sequence

from sqlmodel import Session, col, select

from contracts.api.bodies import JobOut, JobStatus, Page, ReceiptOut
from contracts.api.problems import Code, Problem
from contracts.job.spec import FileRef, JobSpec
from contracts.orders import Bid
from contracts.terms import Phase
from market.runtime.context import Context
from market.services.leases import failures_by_job, lease_summary, why_they_stop
from market.store.early_stop import early_stop
from market.store.events import pages_of
from market.store.leases import phase_of, state_now
from market.store.models import BidRow, CheckpointRow, LeaseRow
from market.store.paging import Keyset, read_page

COUNTED_AT_ONCE = 500
_BY_RECEPTION = Keyset(col(BidRow.received), col(BidRow.id))


def get_job(context: Context, id: str) -> JobOut:
    with context.db.reading() as session:
        return job_outs(context, session, [find_job(session, id)])[0]


def find_job(session: Session, id: str) -> BidRow:
    row = session.get(BidRow, id)
    if row is None:
        raise Problem(404, Code.NOT_FOUND, f"there is no job {id} at this market", "A job's id is its Bid's digest.")
    return row


def list_jobs(
    context: Context, client: str | None, status: JobStatus | None, tip: str | None, after: str | None, limit: int
) -> Page[JobOut]:
    """`tip`: only those with a checkpoint, reported or accepted, that leads to it."""
    query = select(BidRow)
    if client is not None:
        query = query.where(BidRow.client == client)
    if tip is not None:
        query = query.where(col(BidRow.id).in_(select(CheckpointRow.bid).where(CheckpointRow.tip == tip)))
    with context.db.reading() as session:

        def convert(rows: Sequence[BidRow]) -> list[JobOut | None]:
            outs = job_outs(context, session, rows)
            return [out if status in (None, out.status) else None for out in outs]

        return read_page(session, query, _BY_RECEPTION, after, limit, convert)


def job_outs(context: Context, session: Session, rows: Sequence[BidRow]) -> list[JobOut]:
    now = context.now()
    leases = leases_by_job(session, rows)
    accepted = {
        job: max((state_now(lease, now).accepted for lease in found), default=0) for job, found in leases.items()
    }
    failures = failures_by_job(session, accepted)
    stops = why_they_stop(session, [lease for its in leases.values() for lease in its])
    pages = pages_of(session, {row.client for row in rows})
    outs = []
    for row in rows:
        spec = JobSpec.model_validate(row.spec)
        stopped = early_stop(session, spec, leases[row.id], now)
        status, reason = job_status(row, leases[row.id], pages.get(row.client, 0), now, stopped)
        summaries = [lease_summary(context, lease, now, stops.get(lease.id)) for lease in leases[row.id]]
        if status is JobStatus.PENDING and summaries and not summaries[-1].final:
            reason = f"the end of its lease {summaries[-1].id} is not deep enough in the chain yet to open the next"
        outs.append(
            JobOut(
                id=row.id,
                name=row.name,
                status=status,
                reason=reason,
                bid=Bid.model_validate(row.bid),
                signature=row.signature,
                spec=spec,
                sealed_files={plain: FileRef.model_validate(ref) for plain, ref in row.sealed_files.items()},
                accepted=accepted[row.id],
                paid=sum(lease.paid for lease in leases[row.id]),
                fees=sum(lease.fees for lease in leases[row.id]),
                leases=summaries,
                final=all(lease.final for lease in summaries),
                failures=failures[row.id],
                metrics=_metrics(session, leases[row.id], accepted[row.id]),
                received=row.received,
                receipt=None if row.receipt is None else ReceiptOut.model_validate(row.receipt),
            )
        )
    return outs


def job_status(
    row: BidRow, leases: Sequence[LeaseRow], page: int, now: int, stopped: str | None = None
) -> tuple[JobStatus, str]:
    """A job's status, and why it waits or ended.

    `leases` in the order of their opening; `page` is its client's; `stopped` says why it needs no more checkpoints.
    """
    newest = leases[-1] if leases else None
    checkpoints = int(row.bid["checkpoints"])
    if newest and newest.finished == "completed" and newest.end == checkpoints:
        return JobStatus.DONE, ""
    if row.failed:
        return JobStatus.FAILED, row.reason
    if newest and newest.finished is None:
        if phase_of(newest) is Phase.CLOSING:
            return JobStatus.CLOSING, f"its lease with {newest.provider} ends when the window has passed"
        if phase_of(newest) is Phase.CHALLENGED:
            return JobStatus.RUNNING, "a checkpoint is challenged; the arbiter decides"
        return JobStatus.RUNNING, ""
    if stopped:
        return JobStatus.DONE, stopped
    if newest and not newest.continuable:
        return JobStatus.CANCELLED, f"its client ended it after checkpoint {newest.accepted} of {checkpoints}"
    if newest is None and page > row.page:
        return JobStatus.CANCELLED, f"its client raised the page of orders to {page}"
    if now > row.valid_until:
        accepted = newest.accepted if newest else 0
        what = "its deadline" if row.valid_until < int(row.bid["validUntil"]) else "its Bid's validUntil"
        return JobStatus.EXPIRED, f"{what} has passed, with {accepted} of {checkpoints} checkpoints accepted"
    return JobStatus.PENDING, row.wait_reason


def count_by_status(context: Context, session: Session) -> Counter[JobStatus]:
    """All jobs. It reads each of them."""
    found: Counter[JobStatus] = Counter()
    ids, now = session.exec(select(BidRow.id)).all(), context.now()
    for at in range(0, len(ids), COUNTED_AT_ONCE):
        rows = session.exec(select(BidRow).where(col(BidRow.id).in_(ids[at : at + COUNTED_AT_ONCE]))).all()
        leases = leases_by_job(session, rows)
        pages = pages_of(session, {row.client for row in rows})
        for row in rows:
            stopped = early_stop(session, JobSpec.model_validate(row.spec), leases[row.id], now)
            found[job_status(row, leases[row.id], pages.get(row.client, 0), now, stopped)[0]] += 1
    return found


def leases_by_job(session: Session, rows: Sequence[BidRow]) -> dict[str, list[LeaseRow]]:
    """In the order of their opening."""
    leases: dict[str, list[LeaseRow]] = {row.id: [] for row in rows}
    in_order = select(LeaseRow).order_by(col(LeaseRow.opened_block), col(LeaseRow.start))
    for lease in session.exec(in_order.where(col(LeaseRow.bid).in_(list(leases)))):
        leases[lease.bid].append(lease)
    return leases


def _metrics(session: Session, leases: Sequence[LeaseRow], accepted: int) -> dict[str, float | None]:
    """Of the checkpoint that was accepted last."""
    for lease in reversed(leases):
        if lease.start < accepted:
            row = session.get(CheckpointRow, (lease.id, accepted))
            if row is not None:
                return dict(row.record["metrics"])
    return {}
