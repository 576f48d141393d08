"""Reports: a provider's authenticated word to the market and the approver."""

import hashlib
import time
from datetime import timedelta

from sqlalchemy import func
from sqlmodel import Session, col, select

from contracts.api.bodies import Page, ReportIn, ReportOut
from contracts.api.problems import Code, Problem
from contracts.clocks import REPORTS_APART
from contracts.orders import STOPS, Report, ReportKind
from market.runtime.context import Context
from market.services.access import reader_of
from market.services.leases import find_live_lease
from market.services.signatures import check_signed
from market.store.columns import now, without
from market.store.models import LeaseRow, ReportRow
from market.store.paging import LARGE, Keyset, read_page
from market.store.queries.reports import report_of

HOUR, PER_HOUR = timedelta(hours=1), 300  # logs of one lease; a worker's come a minute apart, but at its end
RELEASES_PER_HOUR = 200  # said again, 20 s apart, until it is answered
STOPS_PER_HOUR = 20  # of each other kind: said once, but for answers that were lost

_BY_ID = Keyset(col(ReportRow.id))


def take_report(context: Context, body: ReportIn) -> ReportOut:
    """Store a report. A job whose leases keep failing at the same checkpoint is given up."""
    report = body.report
    with context.db.reading() as session:
        lease, _ = find_live_lease(session, report.lease)
    body = _check(context, body, lease)
    with context.db.session() as session:
        lease, _ = find_live_lease(session, report.lease)
        row = _same(session, report)
        if row is None:
            _check_room(session, lease, report.kind)
            row = context.accept(session, "report", body, bid=lease.bid, provider=lease.provider)
    return _with_text(row)


def _check(context: Context, body: ReportIn, lease: LeaseRow) -> ReportIn:
    """The body with its signature as a key's usual ones are."""
    report = body.report
    otherwise = f"the Report is not signed by the provider {lease.provider} of lease {lease.id}"
    body = check_signed(context, body, report, lease.provider, otherwise)
    found = "0x" + hashlib.sha256(body.text.encode()).hexdigest()
    if found != report.content:
        raise Problem(
            422,
            Code.COMMITMENT_MISMATCH,
            f"the Report signs a text with the hash {report.content}, but the one given has {found}",
            "`content` is the SHA-256 of the text in UTF-8.",
        )
    now = int(time.time())
    if abs(now - report.time) > REPORTS_APART:
        raise Problem(
            422,
            Code.REPORT_STALE,
            f"the Report's time is {report.time}, and it is {now} now (UTC seconds)",
            f"Sign it anew; at most {REPORTS_APART} seconds may lie between. Check this machine's clock.",
            now=now,
        )
    return body


def _check_room(session: Session, lease: LeaseRow, kind: ReportKind) -> None:
    """Each kind has a room of its own: whatever a recipe prints, its provider can still say that the lease stops."""
    most = {"log": PER_HOUR, "release": RELEASES_PER_HOUR}.get(kind, STOPS_PER_HOUR)
    recent = select(func.count()).where(
        ReportRow.lease == lease.id, ReportRow.kind == kind, ReportRow.received > now() - HOUR
    )
    if session.exec(recent).one() >= most:
        raise Problem(
            429,
            Code.TOO_MANY_REQUESTS,
            f"{most} reports of kind '{kind}' of lease {lease.id} have come within an hour, "
            "and texts are kept for good",
            "Report less often.",
            retry_after=60,
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


def list_job_reports(context: Context, job: str, account: str, after: str | None, limit: int) -> Page[ReportOut]:
    """With their texts: those that the account may read."""
    reader = reader_of(context, job, account)
    with context.db.reading() as session:
        query = select(ReportRow).where(ReportRow.bid == job)
        if not reader.all_logs:
            query = query.where(ReportRow.provider == account)
        return read_page(session, query, _BY_ID, after, limit, context.unreadable.reader(_with_text), LARGE)


def list_reports(
    context: Context, approver: str | None, waiting: bool | None, after: str | None, limit: int
) -> Page[ReportOut]:
    """All reports, without their texts; `waiting`: whether one still wants an Approval(last) of its lease."""
    query = select(ReportRow).options(*without(ReportRow.text)).outerjoin(LeaseRow, col(LeaseRow.id) == ReportRow.lease)
    if approver is not None:
        query = query.where(LeaseRow.approver == approver)
    if waiting is not None:
        waits = (
            col(ReportRow.kind).in_(STOPS)
            & col(ReportRow.answered).is_(False)
            & col(LeaseRow.id).is_not(None)
            & col(LeaseRow.finished).is_(None)
        )
        query = query.where(waits if waiting else ~waits)
    with context.db.reading() as session:
        return read_page(session, query, _BY_ID, after, limit, context.unreadable.reader(lambda row: _out(row, None)))


def _with_text(row: ReportRow) -> ReportOut:
    return _out(row, row.text)


def _out(row: ReportRow, text: str | None) -> ReportOut:
    assert row.id is not None  # it has been stored
    return ReportOut(
        id=row.id,
        provider=row.provider,
        report=report_of(row),
        signature=row.signature,
        text=text,
        received=row.received,
    )
