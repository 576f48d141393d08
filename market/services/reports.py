"""Reports: a provider's authenticated word to the market and the approver."""

import hashlib
import time
from collections.abc import Sequence

from sqlmodel import Session, col, select

from contracts.api.bodies import Page, ReportIn, ReportOut
from contracts.api.problems import Code, Problem
from contracts.orders import Report
from market.context import Context
from market.models import BidRow, LeaseRow, ReportRow
from market.paging import Keyset, read_page
from market.services.jobs import MAX_FAILURES, find_job
from market.services.leases import accepted_by_job, failures_by_job, find_live_lease
from market.signatures import is_signed_by

CLOCK_SECONDS = 300  # how far a report's time may be from the market's
WAITING_KINDS = ("release", "failed")

_BY_ID = Keyset(col(ReportRow.id))


def take_report(context: Context, body: ReportIn) -> ReportOut:
    """Store a report. A job whose leases keep failing at the same checkpoint is given up."""
    report = body.report
    with context.db.reading() as session:
        lease, _ = find_live_lease(session, report.lease)
    _check(context, body, lease)
    with context.db.session() as session:
        lease, job = find_live_lease(session, report.lease)
        row = _same(session, report)
        if row is None:
            row = ReportRow(
                lease=lease.id,
                bid=lease.bid,
                provider=lease.provider,
                n=report.n,
                kind=report.kind,
                content=report.content,
                time=report.time,
                signature=body.signature,
                text=body.text,
            )
            session.add(row)
            session.flush()
            if report.kind == "failed":
                _give_up_if_hopeless(context, session, job, row)
    return _out(row)


def _check(context: Context, body: ReportIn, lease: LeaseRow) -> None:
    report = body.report
    if not is_signed_by(context.chain, report, lease.provider, body.signature):
        raise Problem(
            422,
            Code.SIGNATURE_INVALID,
            f"the Report is not signed by the provider {lease.provider} of lease {lease.id}",
            "Sign it with the provider's key, for the chain and the escrow of /v1/info.",
        )
    found = "0x" + hashlib.sha256(body.text.encode()).hexdigest()
    if found != report.content:
        raise Problem(
            422,
            Code.COMMITMENT_MISMATCH,
            f"the Report signs a text with the hash {report.content}, but the one given has {found}",
            "`content` is the SHA-256 of the text in UTF-8.",
        )
    now = int(time.time())
    if abs(now - report.time) > CLOCK_SECONDS:
        raise Problem(
            422,
            Code.REPORT_STALE,
            f"the Report's time is {report.time}, and it is {now} now (UTC seconds)",
            f"Sign it anew; at most {CLOCK_SECONDS} seconds may lie between. Check this machine's clock.",
            now=now,
        )


def _same(session: Session, report: Report) -> ReportRow | None:
    return session.exec(
        select(ReportRow).where(
            ReportRow.lease == report.lease,
            ReportRow.n == report.n,
            ReportRow.kind == report.kind,
            ReportRow.content == report.content,
            ReportRow.time == report.time,
        )
    ).one_or_none()


def _give_up_if_hopeless(context: Context, session: Session, job: BidRow, report: ReportRow) -> None:
    failures = failures_by_job(session, accepted_by_job(session, [job.id], context.now()))[job.id]
    if failures >= MAX_FAILURES:
        last_line = (report.text.strip().splitlines() or ["(the log is empty)"])[-1]
        job.failed = True
        job.reason = f"{failures} leases failed at checkpoint {report.n}; the last log ends with: {last_line[:500]}"
        session.add(job)


def list_job_reports(context: Context, job: str, after: str | None, limit: int) -> Page[ReportOut]:
    with context.db.reading() as session:
        find_job(session, job)
        return read_page(session, select(ReportRow).where(ReportRow.bid == job), _BY_ID, after, limit, _outs)


def list_reports(
    context: Context, approver: str | None, waiting: bool | None, after: str | None, limit: int
) -> Page[ReportOut]:
    """All reports; `waiting`: whether one still wants an Approval(last) of its lease."""
    query = select(ReportRow).outerjoin(LeaseRow, col(LeaseRow.id) == ReportRow.lease)
    if approver is not None:
        query = query.where(LeaseRow.approver == approver)
    if waiting is not None:
        waits = (
            col(ReportRow.kind).in_(WAITING_KINDS)
            & col(ReportRow.answered).is_(False)
            & col(LeaseRow.id).is_not(None)
            & col(LeaseRow.finished).is_(None)
        )
        query = query.where(waits if waiting else ~waits)
    with context.db.reading() as session:
        return read_page(session, query, _BY_ID, after, limit, _outs)


def _outs(rows: Sequence[ReportRow]) -> list[ReportOut]:
    return [_out(row) for row in rows]


def _out(row: ReportRow) -> ReportOut:
    assert row.id is not None  # it has been stored
    return ReportOut(
        id=row.id,
        provider=row.provider,
        report=Report(lease=row.lease, n=row.n, kind=row.kind, content=row.content, time=row.time),
        signature=row.signature,
        text=row.text,
        received=row.received,
    )
