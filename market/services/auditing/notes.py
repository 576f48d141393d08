"""Audit notes: an approver's public word on the audit of a lease."""

import time
from datetime import timedelta

from sqlalchemy import func
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from contracts.api.auditing.notes import (
    AuditNoteIn,
    AuditNoteOut,
    BatchContent,
    ReplayContent,
    RulingContent,
    SecretContent,
)
from contracts.api.bodies import Page
from contracts.api.problems import Code, Problem
from contracts.audits.draw import commitment
from contracts.clocks import REPORTS_APART
from contracts.orders import AuditKind, AuditNote
from contracts.types import from_hex
from market.runtime.context import Context
from market.services.leases import find_lease
from market.services.signatures import check_signed
from market.store.audit_notes import AuditNoteRow
from market.store.columns import now
from market.store.models import LeaseRow
from market.store.paging import Keyset, read_page
from market.store.queries.rulings import note_of

HOUR, PER_HOUR = timedelta(hours=1), 1000  # notes of one lease; a checkpoint comes to about three
ONCE = ("commitment", "secret")  # kinds of which a lease has one note

_BY_ID = Keyset(col(AuditNoteRow.id))


def take_note(context: Context, body: AuditNoteIn) -> AuditNoteOut:
    """Store a note. The same content of a lease again gives the one that is stored."""
    note = body.note
    with context.db.reading() as session:
        lease, _ = find_lease(session, note.lease)
    otherwise = f"the AuditNote is not signed by the approver {lease.approver} of lease {lease.id}"
    body = check_signed(context, body, note, lease.approver, otherwise)
    with context.db.session() as session:
        lease, _ = find_lease(session, note.lease)
        row = session.exec(_of(note).where(AuditNoteRow.content_hash == note.content)).one_or_none()
        if row is None:
            _check(session, body, lease)
            row = context.accept(session, "audit", body, bid=lease.bid, approver=lease.approver)
    return _out(row)


def list_notes(
    context: Context,
    after: str | None,
    limit: int,
    *,
    job: str | None = None,
    lease: str | None = None,
    approver: str | None = None,
    provider: str | None = None,
    kind: AuditKind | None = None,
) -> Page[AuditNoteOut]:
    query = select(AuditNoteRow)
    for column, wanted in (
        (AuditNoteRow.bid, job), (AuditNoteRow.lease, lease), (AuditNoteRow.approver, approver),
        (AuditNoteRow.kind, kind),
    ):  # fmt: skip
        if wanted is not None:
            query = query.where(column == wanted)
    if provider is not None:
        query = query.where(col(AuditNoteRow.lease).in_(select(LeaseRow.id).where(LeaseRow.provider == provider)))
    with context.db.reading() as session:
        return read_page(session, query, _BY_ID, after, limit, context.unreadable.reader(_out))


def _of(note: AuditNote) -> SelectOfScalar[AuditNoteRow]:
    return select(AuditNoteRow).where(AuditNoteRow.lease == note.lease)


def _check(session: Session, body: AuditNoteIn, lease: LeaseRow) -> None:
    note, content = body.note, body.content
    seconds = int(time.time())
    if note.time > seconds + REPORTS_APART:
        raise Problem(
            422,
            Code.REPORT_STALE,
            f"the AuditNote's time is {note.time}, and it is {seconds} now (UTC seconds)",
            f"Check this machine's clock: a note may be {REPORTS_APART} seconds ahead.",
            now=seconds,
        )
    if isinstance(content, BatchContent):
        _check_within(lease, content.claims[0].n, content.claims[-1].n)
    elif isinstance(content, ReplayContent | RulingContent):
        _check_within(lease, content.n, content.n)
    if note.kind in ONCE and session.exec(_of(note).where(AuditNoteRow.kind == note.kind)).first() is not None:
        raise Problem(
            409,
            Code.PROGRESS_OUT_OF_ORDER,
            f"lease {lease.id} has another {note.kind} already",
            f"The first {note.kind} of a lease stays; GET /v1/audits?lease={lease.id} shows it.",
        )
    if isinstance(content, SecretContent):
        _check_secret(session, content, lease)
    _check_room(session, lease)


def _check_within(lease: LeaseRow, first: int, last: int) -> None:
    if not lease.start < first <= last <= lease.end:
        raise Problem(
            422,
            Code.PROGRESS_OUT_OF_ORDER,
            f"the note is of the checkpoints {first} to {last}, and lease {lease.id} covers "
            f"{lease.start + 1} to {lease.end}",
        )


def _check_secret(session: Session, content: SecretContent, lease: LeaseRow) -> None:
    """What was committed to, and not before the lease is over."""
    if lease.finished is None:
        raise Problem(
            409,
            Code.PROGRESS_OUT_OF_ORDER,
            f"lease {lease.id} is not over: its secret would tell the provider what will be drawn",
            "Show it when the lease is finished, as /v1/leases tells.",
        )
    of_lease = select(AuditNoteRow).where(AuditNoteRow.lease == lease.id, AuditNoteRow.kind == "commitment")
    committed = session.exec(of_lease).one_or_none()
    given = commitment(from_hex(content.secret))
    if committed is None or committed.content["commitment"] != given:
        known = "nothing" if committed is None else str(committed.content["commitment"])
        raise Problem(
            422,
            Code.COMMITMENT_MISMATCH,
            f"the secret hashes to {given}, and for lease {lease.id} its approver committed to {known}",
        )


def _check_room(session: Session, lease: LeaseRow) -> None:
    recent = select(func.count()).where(AuditNoteRow.lease == lease.id, AuditNoteRow.received > now() - HOUR)
    if session.exec(recent).one() >= PER_HOUR:
        raise Problem(
            429,
            Code.TOO_MANY_REQUESTS,
            f"{PER_HOUR} audit notes of lease {lease.id} have come within an hour, and they are kept for good",
            "Say less.",
            retry_after=60,
        )


def _out(row: AuditNoteRow) -> AuditNoteOut:
    assert row.id is not None  # it has been stored
    note = note_of(row)
    return AuditNoteOut.model_validate(
        {
            "id": row.id, "lease": row.lease, "job": row.bid, "note": note, "signature": row.signature,
            "content": row.content, "received": row.received,
        }
    )  # fmt: skip
