"""Leases as the API shows them."""

from collections.abc import Sequence
from typing import TypeVar, cast

from sqlalchemy import func
from sqlmodel import Session, col, select

from contracts.api.bodies import ApprovalIn, LeaseOut, LeaseSummary, ListedLease, Page, RejectionIn
from contracts.api.problems import Code, Problem
from contracts.job.spec import JobSpec
from contracts.orders import FAILURES, STOPS, Approval, Bid, Rejection, ReportKind
from market.runtime.context import Context
from market.store.models import WITHOUT_SPEC, ApprovalRow, BidRow, CheckpointRow, LeaseRow, RejectionRow, ReportRow
from market.store.paging import Keyset, read_page
from market.store.queries.leases import is_final, state_now
from market.store.queries.reliability import stored_verdicts
from market.store.queries.reports import first_told

T = TypeVar("T")
_BY_OPENING = Keyset(col(LeaseRow.opened_block), col(LeaseRow.id))


def lease_summaries(context: Context, session: Session, rows: Sequence[LeaseRow], now: int) -> dict[str, LeaseSummary]:
    """By lease: what the chain has of it, and how far its provider and its approver say that it is."""
    ids = [row.id for row in rows]

    def newest(table: type[CheckpointRow] | type[ApprovalRow]) -> dict[str, int]:
        query = select(table.lease, func.max(table.n)).where(col(table.lease).in_(ids)).group_by(col(table.lease))
        return dict(session.exec(query).all())

    reported, approved, stops = newest(CheckpointRow), newest(ApprovalRow), why_they_stop(session, rows)
    verdicts = {id: verdict.said for id, verdict in stored_verdicts(session, ids).items()}
    return {
        row.id: _summary(context, row, now, reported.get(row.id, 0), approved.get(row.id, 0)).model_copy(
            update={"stops": stops.get(row.id), "verdict": verdicts.get(row.id)}
        )
        for row in rows
    }


def _summary(context: Context, row: LeaseRow, now: int, reported: int, approved: int) -> LeaseSummary:
    """Without what is said of it. `reported`, `approved`: the newest checkpoints the market was told of; 0: none."""
    state = state_now(row, now)
    approved = max(approved, state.accepted)
    return LeaseSummary(
        id=row.id,
        provider=row.provider,
        start=row.start,
        end=row.end,
        price=row.price,
        fee=row.fee,
        stake=row.stake,
        state=state,
        reported=max(reported, state.claimed, approved),
        approved=approved,
        finished=row.finished,
        paid=row.paid,
        refunded=row.refunded,
        penalty=row.penalty,
        opened_block=row.opened_block,
        final=is_final(row, context.chain.settings.finality, context.head.number),
    )


def find_lease(session: Session, id: str) -> tuple[LeaseRow, BidRow]:
    """A lease and its job. Raises Problem(not_found); leases of jobs that other markets took are not shown here."""
    row = session.get(LeaseRow, id)
    job = session.get(BidRow, row.bid) if row else None
    if row is None or job is None:
        raise Problem(
            404,
            Code.NOT_FOUND,
            f"there is no lease {id} of a job of this market",
            "If it was opened just now: the market may not have followed its block yet, so ask again.",
        )
    return row, job


def find_live_lease(session: Session, id: str) -> tuple[LeaseRow, BidRow]:
    """`find_lease` for messages that need a live one. Raises Problem(lease_not_live)."""
    row, job = find_lease(session, id)
    if row.finished is not None:
        raise Problem(
            409,
            Code.LEASE_NOT_LIVE,
            f"lease {id} is over: {row.finished}, with {row.accepted} checkpoints accepted",
            "The rest of the job goes on in another lease, if it does.",
        )
    return row, job


def get_lease(context: Context, id: str) -> LeaseOut:
    with context.db.reading() as session:
        row, job = find_lease(session, id)
        (listed,) = listed_leases(context, session, [row])
        out = None if listed is None else context.unreadable.one(job, lambda job: _with_spec(listed, job))
        return readable(out, f"lease {id}")


def _with_spec(listed: ListedLease, job: BidRow) -> LeaseOut:
    return LeaseOut(**dict(listed), spec=JobSpec.model_validate(job.spec))


def list_leases(
    context: Context, provider: str | None, approver: str | None, live: bool | None, after: str | None, limit: int
) -> Page[ListedLease]:
    query = select(LeaseRow).where(col(LeaseRow.bid).in_(select(BidRow.id)))
    if provider is not None:
        query = query.where(LeaseRow.provider == provider)
    if approver is not None:
        query = query.where(LeaseRow.approver == approver)
    if live is not None:
        query = query.where(col(LeaseRow.finished).is_(None) if live else col(LeaseRow.finished).is_not(None))
    with context.db.reading() as session:
        return read_page(session, query, _BY_OPENING, after, limit, lambda rows: listed_leases(context, session, rows))


def readable(out: T | None, what: str) -> T:
    """Raises Problem for a thing that is here, but can't be shown."""
    if out is None:
        raise Problem(
            500,
            Code.INTERNAL,
            f"what this market has stored of {what} can't be read by this version of it",
            "Tell the market's operator; `gpumarket reconcile` names it.",
        )
    return out


def listed_leases(context: Context, session: Session, rows: Sequence[LeaseRow]) -> list[ListedLease | None]:
    """Bodies of leases of jobs of this market, with what belongs to them. None for what can't be read."""
    named = col(BidRow.id).in_({row.bid for row in rows})
    jobs = {job.id: job for job in session.exec(select(BidRow).options(*WITHOUT_SPEC).where(named))}
    accepted = accepted_by_job(session, jobs, context.now())
    failures = failures_by_job(session, accepted)
    now = context.now()
    summaries = lease_summaries(context, session, rows, now)

    def out(row: LeaseRow) -> ListedLease:
        job = jobs[row.bid]
        approval = newest_approval(session, row.id)
        return ListedLease(
            **dict(summaries[row.id]),
            job=job.id,
            sealed=job.sealed,
            bid=Bid.model_validate(job.bid),
            rules=context.rule_set(row.rules).rules,
            prev=row.prev,
            window=row.window,
            timeout=row.timeout,
            job_failures=failures[job.id],
            approval=_approval_in(approval) if approval else None,
            rejection=_standing_rejection(session, row.id, approval.n if approval else row.start),
        )

    return context.unreadable.each(rows, out)


def accepted_by_job(session: Session, jobs: Sequence[str] | dict[str, BidRow], now: int) -> dict[str, int]:
    """Checkpoints accepted so far, by job."""
    accepted = dict.fromkeys(jobs, 0)
    for lease in session.exec(select(LeaseRow).where(col(LeaseRow.bid).in_(list(jobs)))):
        accepted[lease.bid] = max(accepted[lease.bid], state_now(lease, now).accepted)
    return accepted


def failures_by_job(session: Session, accepted: dict[str, int]) -> dict[str, int]:
    """Leases whose worker reported a failure at the checkpoint that comes next, by job."""
    reports = session.exec(
        select(ReportRow.bid, ReportRow.lease, ReportRow.n).where(
            col(ReportRow.id).in_(first_told(list(accepted), FAILURES))
        )
    ).all()
    leases: dict[str, set[str]] = {job: set() for job in accepted}
    for job, lease, n in reports:
        if n == accepted[job] + 1:
            leases[job].add(lease)
    return {job: len(failed) for job, failed in leases.items()}


def why_they_stop(session: Session, leases: Sequence[LeaseRow]) -> dict[str, ReportKind]:
    """What their providers have said, by lease. The first word counts: those after it only ask for an answer again."""
    newest_first = (
        select(ReportRow.lease, ReportRow.kind)
        .where(col(ReportRow.lease).in_([lease.id for lease in leases]), col(ReportRow.kind).in_(STOPS))
        .order_by(col(ReportRow.id).desc())
    )
    return {lease: cast(ReportKind, kind) for lease, kind in session.exec(newest_first)}


def newest_approval(session: Session, lease: str) -> ApprovalRow | None:
    newest_first = (col(ApprovalRow.n).desc(), col(ApprovalRow.last).desc())
    return session.exec(select(ApprovalRow).where(ApprovalRow.lease == lease).order_by(*newest_first)).first()


def _approval_in(row: ApprovalRow) -> ApprovalIn:
    approval = Approval(lease=row.lease, n=row.n, tip=row.tip, last=row.last)
    return ApprovalIn(approval=approval, signature=row.signature)


def _standing_rejection(session: Session, lease: str, approved: int) -> RejectionIn | None:
    """Of a checkpoint after the newest approval, unless its maker has replaced it."""
    row = session.exec(
        select(RejectionRow)
        .join(
            CheckpointRow,
            (col(CheckpointRow.lease) == RejectionRow.lease)
            & (col(CheckpointRow.n) == RejectionRow.n)
            & (col(CheckpointRow.tip) == RejectionRow.tip),
        )
        .where(RejectionRow.lease == lease, RejectionRow.n > approved)
        .order_by(col(RejectionRow.n))
    ).first()
    if row is None:
        return None
    rejection = Rejection(lease=row.lease, n=row.n, tip=row.tip, reason=row.reason)
    return RejectionIn(rejection=rejection, signature=row.signature)
