"""Jobs: a Bid, the leases that worked on it, and what that makes of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from contracts.api.bodies import (
    CheckpointStatus,
    JobOut,
    JobStatus,
    JobSummary,
    LeaseSummary,
    NewestCheckpoint,
    Page,
    ReceiptOut,
)
from contracts.api.problems import Code, Problem
from contracts.job.early_stop import Stop
from contracts.job.spec import FileRef, JobSpec
from contracts.orders import Bid
from contracts.terms import Phase
from market.runtime.context import Context
from market.services.leases import failures_by_job, lease_summaries, readable
from market.store.models import WITHOUT_SPEC, BidRow, CheckpointRow, LeaseRow
from market.store.paging import Keyset, read_page
from market.store.queries.chain_tips import Key, other_tips, says_otherwise
from market.store.queries.early_stop import early_stop, read_stop
from market.store.queries.events import pages_of
from market.store.queries.leases import phase_of, state_now
from market.store.queries.rulings import unreproducible_jobs
from market.store.unreadable import record_of

COUNTED_AT_ONCE = 500
UNREPRODUCIBLE = (
    "training it again comes to something else each time, so that nobody's work on it can be checked, and its rules "
    "end it; hand it in again when `gpumarket replay` of its own steps gives the same bits"
)
_BY_RECEPTION = Keyset(col(BidRow.received), col(BidRow.id))


def get_job(context: Context, id: str) -> JobOut:
    with context.db.reading() as session:
        row = find_job(session, id)
        (summary,) = job_summaries(context, session, [row])
        out = None if summary is None else context.unreadable.one(row, lambda row: _with_spec(summary, row))
        return readable(out, f"job {id}")


def _with_spec(summary: JobSummary, row: BidRow) -> JobOut:
    files = {plain: FileRef.model_validate(ref) for plain, ref in row.sealed_files.items()}
    return JobOut(**dict(summary), spec=JobSpec.model_validate(row.spec), sealed_files=files)


def find_job(session: Session, id: str) -> BidRow:
    row = session.get(BidRow, id)
    if row is None:
        raise Problem(404, Code.NOT_FOUND, f"there is no job {id} at this market", "A job's id is its Bid's digest.")
    return row


@dataclass(frozen=True)
class Wanted:
    """Which jobs to list; None: whatever they have."""

    client: str | None = None
    status: JobStatus | None = None
    tip: str | None = None  # of a checkpoint, reported or accepted
    prefix: str | None = None  # of the id
    name: str | None = None


def list_jobs(context: Context, wanted: Wanted, after: str | None, limit: int) -> Page[JobSummary]:
    query = select(BidRow).options(*WITHOUT_SPEC)
    if wanted.client is not None:
        query = query.where(BidRow.client == wanted.client)
    if wanted.tip is not None:
        query = query.where(col(BidRow.id).in_(select(CheckpointRow.bid).where(CheckpointRow.tip == wanted.tip)))
    if wanted.prefix is not None:
        query = query.where(col(BidRow.id).startswith(wanted.prefix))
    if wanted.name is not None:
        query = query.where(BidRow.name == wanted.name)
    with context.db.reading() as session:

        def convert(rows: Sequence[BidRow]) -> list[JobSummary | None]:
            outs = job_summaries(context, session, rows)
            return [out if out is not None and wanted.status in (None, out.status) else None for out in outs]

        return read_page(session, query, _BY_RECEPTION, after, limit, convert)


def job_summaries(context: Context, session: Session, rows: Sequence[BidRow]) -> list[JobSummary | None]:
    """None for a job that can't be read."""
    now = context.now()
    leases = leases_by_job(session, rows)
    accepted = {
        job: max((state_now(lease, now).accepted for lease in found), default=0) for job, found in leases.items()
    }
    failures = failures_by_job(session, accepted)
    pages = pages_of(session, {row.client for row in rows})
    by_lease = lease_summaries(context, session, [lease for found in leases.values() for lease in found], now)
    accepted_keys = {job: _accepted_key(found, accepted[job]) for job, found in leases.items()}
    newest_keys = {job: _newest_key([by_lease[lease.id] for lease in found]) for job, found in leases.items()}
    checkpoints = _checkpoints(session, (*accepted_keys.values(), *newest_keys.values()))
    unlike = unreproducible_jobs(session, leases, context.ending_rules)
    others = other_tips(session, [lease for found in leases.values() for lease in found])

    def out(row: BidRow) -> JobSummary:
        stopped = early_stop(session, read_stop(row.stop), leases[row.id], now)
        status, reason = job_status(row, leases[row.id], pages.get(row.client, 0), now, stopped, row.id in unlike)
        summaries = [by_lease[lease.id] for lease in leases[row.id]]
        if status is JobStatus.PENDING and summaries and not summaries[-1].final:
            reason = f"the end of its lease {summaries[-1].id} is not deep enough in the chain yet to open the next"
        live = summaries[-1] if summaries and summaries[-1].finished is None else None
        best = checkpoints.get(accepted_keys[row.id])
        return JobSummary(
            id=row.id,
            name=row.name,
            status=status,
            reason=reason,
            bid=Bid.model_validate(row.bid),
            signature=row.signature,
            reported=live.reported if live else accepted[row.id],
            approved=live.approved if live else accepted[row.id],
            accepted=accepted[row.id],
            settled=sum(min(lease.paid // lease.price, lease.end - lease.start) for lease in leases[row.id]),
            paid=sum(lease.paid for lease in leases[row.id]),
            fees=sum(lease.fees for lease in leases[row.id]),
            leases=summaries,
            final=all(lease.final for lease in summaries),
            failures=failures[row.id],
            metrics={} if best is None or (best.lease, best.n) in others else dict(best.record["metrics"]),
            newest=_newest(checkpoints.get(newest_keys[row.id], best), accepted[row.id], others),
            received=row.received,
            receipt=None if row.receipt is None else ReceiptOut.model_validate(row.receipt),
        )

    return context.unreadable.each(rows, out)


def job_status(
    row: BidRow,
    leases: Sequence[LeaseRow],
    page: int,
    now: int,
    stopped: str | None = None,
    is_unreproducible: bool = False,
) -> tuple[JobStatus, str]:
    """A job's status, and why it waits or ended.

    `leases` in the order of their opening; `page` is its client's; `stopped` says why it needs no more checkpoints;
    `is_unreproducible`: its honest runs differ, and its rules end it then.
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
    if is_unreproducible:
        return JobStatus.FAILED, UNREPRODUCIBLE
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
        some = ids[at : at + COUNTED_AT_ONCE]
        rows = session.exec(select(BidRow).options(*WITHOUT_SPEC).where(col(BidRow.id).in_(some))).all()
        leases = leases_by_job(session, rows)
        pages = pages_of(session, {row.client for row in rows})
        unlike = unreproducible_jobs(session, leases, context.ending_rules)
        for row in rows:
            its, page = leases[row.id], pages.get(row.client, 0)
            stopped = early_stop(session, _stop_of(context, row), its, now)
            found[job_status(row, its, page, now, stopped, row.id in unlike)[0]] += 1
    return found


def _stop_of(context: Context, row: BidRow) -> Stop | None:
    return context.unreadable.one(row, lambda row: read_stop(row.stop))


def leases_by_job(session: Session, rows: Sequence[BidRow]) -> dict[str, list[LeaseRow]]:
    """In the order of their opening."""
    leases: dict[str, list[LeaseRow]] = {row.id: [] for row in rows}
    in_order = select(LeaseRow).order_by(col(LeaseRow.opened_block), col(LeaseRow.start))
    for lease in session.exec(in_order.where(col(LeaseRow.bid).in_(list(leases)))):
        leases[lease.bid].append(lease)
    return leases


def _accepted_key(leases: Sequence[LeaseRow], accepted: int) -> Key | None:
    """Of the checkpoint that was accepted last."""
    return next(((lease.id, accepted) for lease in reversed(leases) if lease.start < accepted), None)


def _newest_key(leases: Sequence[LeaseSummary]) -> Key | None:
    """Of the newest checkpoint that the live lease has; what an ended one did not get accepted counts no more."""
    live = leases[-1] if leases and leases[-1].finished is None else None
    return None if live is None or live.reported == live.start else (live.id, live.reported)


def _checkpoints(session: Session, keys: Iterable[Key | None]) -> dict[Key | None, CheckpointRow]:
    wanted = {key for key in keys if key is not None}
    query = select(CheckpointRow).where(tuple_(col(CheckpointRow.lease), col(CheckpointRow.n)).in_(wanted))
    found = session.exec(query) if wanted else ()
    return {(row.lease, row.n): row for row in found if record_of(row) is not None}


def told_status(row: CheckpointRow, accepted: bool, other: str | None) -> tuple[CheckpointStatus, str]:
    """A record's status and why it is not approved. `accepted`: the chain has come so far; `other`: the tip that the
    chain has there, where it is another one than the record's, which then is nobody's to be paid for.
    """
    status = CheckpointStatus(row.status)
    if other is not None:
        approved = status is CheckpointStatus.APPROVED
        return CheckpointStatus.REPORTED if approved else status, row.reason or says_otherwise(other)
    return (CheckpointStatus.APPROVED, "") if accepted else (status, row.reason)


def _newest(row: CheckpointRow | None, accepted: int, others: Mapping[Key, str]) -> NewestCheckpoint | None:
    if row is None:
        return None
    status, reason = told_status(row, row.n <= accepted, others.get((row.lease, row.n)))
    return NewestCheckpoint(
        lease=row.lease,
        provider=row.provider,
        index=row.n,
        step=row.record["step"],
        status=status,
        reason=reason,
        metrics=dict(row.record["metrics"]),
        seconds=row.record["seconds"],
        received=row.received,
    )
