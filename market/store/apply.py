"""What each accepted message does to the database: when it is accepted, and again when the database is made anew."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlmodel import Session, col, delete, select, update

from contracts.api.auditing.notes import AuditNoteIn, RulingContent
from contracts.api.bodies import (
    ApprovalIn,
    AskIn,
    AuditorIn,
    BidIn,
    CheckpointStatus,
    EncryptionKeyIn,
    KeyGrantIn,
    ProgressIn,
    RejectionIn,
    ReportIn,
)
from contracts.api.info import RuleSet
from contracts.orders import Domain
from market.store import apply_epochs, replaced_claims
from market.store.audit_notes import AuditNoteRow
from market.store.journal import Kind, Message
from market.store.models import (
    ApprovalRow,
    AskRow,
    AuditorRow,
    BidRow,
    BlobRow,
    CheckpointRow,
    EncryptionKeyRow,
    JournalRow,
    KeyGrantRow,
    RejectionRow,
    ReportRow,
    RuleSetRow,
    UploadRow,
)
from market.store.queries.reports import judge
from market.store.unreadable import record_of

R = TypeVar("R", ReportRow, AuditNoteRow)


def remember(session: Session, message: Message) -> None:
    """How far the database has come in the journal."""
    if message.number is not None:
        session.merge(JournalRow(number=message.number, message=message.id))


def apply(session: Session, domain: Domain, message: Message) -> Any:
    """Pure, but for the session. The same again changes nothing; of two that exclude each other the later one stays."""
    return _APPLY[message.kind](session, domain, message)


def _rules(session: Session, domain: Domain, message: Message) -> RuleSetRow:
    rules = RuleSet.model_validate(message.body)
    return session.merge(
        RuleSetRow(
            hash=rules.hash,
            name=rules.name,
            rules=rules.rules.model_dump(mode="json", by_alias=True),
            verification=message.body.get("verification"),  # also one of a newer version
        )
    )


def _ask(session: Session, domain: Domain, message: Message) -> AskRow:
    body = AskIn.model_validate(message.body)
    ask, receipt = body.ask, message.facts.get("receipt")
    return session.merge(
        AskRow(
            id=ask.digest(domain),
            provider=ask.provider,
            rules=ask.rules,
            ask=ask.model_dump(mode="json", by_alias=True),
            signature=body.signature,
            resources=body.resources.model_dump(mode="json"),
            page=ask.page,
            valid_from=ask.valid_from,
            valid_until=ask.valid_until,
            received=message.received,
            # What the receipt says: others go by that.
            received_block=int(receipt["receipt"]["block"]) if receipt else message.received_block,
            receipt=receipt,
        )
    )


def _bid(session: Session, domain: Domain, message: Message) -> BidRow:
    body = BidIn.model_validate(message.body)
    bid = body.bid
    id = bid.digest(domain)
    # A Bid that was written down, but not taken after all, has left its nonce to another one.
    others = session.exec(
        select(BidRow.id).where(
            BidRow.client == bid.client, BidRow.page == bid.page, BidRow.bit == bid.bit, BidRow.id != id
        )
    ).all()
    session.exec(delete(KeyGrantRow).where(col(KeyGrantRow.bid).in_(others)))
    session.exec(delete(BidRow).where(col(BidRow.id).in_(others)))
    for grant in body.grants:
        _add_grant(session, grant, bid.client)
    return session.merge(
        BidRow(
            id=id,
            client=bid.client,
            approver=bid.effective_approver,
            rules=bid.rules,
            name=body.name,
            bid=bid.model_dump(mode="json", by_alias=True),
            signature=body.signature,
            spec=body.spec.model_dump(mode="json"),
            job=bid.job,
            files=body.spec.files_hash(),
            start_tip=bid.start_tip,
            sealed=body.spec.sealed,
            stop=None if body.spec.stop is None else body.spec.stop.model_dump(mode="json"),
            sealed_files={plain: ref.model_dump(mode="json") for plain, ref in body.sealed_files.items()},
            page=bid.page,
            bit=bid.bit,
            valid_until=min(bid.valid_until, body.spec.deadline_time or bid.valid_until),
            received=message.received,
            receipt=message.facts.get("receipt"),
        )
    )


def _progress(session: Session, domain: Domain, message: Message) -> CheckpointRow:
    body = ProgressIn.model_validate(message.body)
    claim = body.claim
    stored = session.get(CheckpointRow, (claim.lease, claim.n))
    if stored is not None and stored.tip == claim.tip and record_of(stored) is not None:
        return stored
    if stored is not None:  # what was built on the checkpoint goes with it
        replaced_claims.put_aside(session, claim.lease, claim.n, keep="replaced" in message.facts)
    replaced_claims.forget(session, claim.lease, claim.n, claim.tip)
    made = CheckpointRow(
        lease=claim.lease,
        n=claim.n,
        bid=message.facts["bid"],
        provider=message.facts["provider"],
        record=body.checkpoint.model_dump(mode="json"),
        blob=body.checkpoint.stored.sha256,
        signature=body.signature,
        tip=claim.tip,
        received=message.received,
    )
    session.add(made)
    return made


def _approval(session: Session, domain: Domain, message: Message) -> ApprovalRow:
    """All checkpoints up to it are approved."""
    body = ApprovalIn.model_validate(message.body)
    approval = body.approval
    replaced_claims.bring_back(session, approval.lease, approval.n, approval.tip)
    row = session.merge(
        ApprovalRow(
            lease=approval.lease,
            n=approval.n,
            last=approval.last,
            tip=approval.tip,
            signature=body.signature,
            received=message.received,
        )
    )
    session.exec(
        update(CheckpointRow)
        .where(col(CheckpointRow.lease) == approval.lease, col(CheckpointRow.n) <= approval.n)
        .values(status=CheckpointStatus.APPROVED.value, reason="")
    )
    if approval.last:
        session.exec(update(ReportRow).where(col(ReportRow.lease) == approval.lease).values(answered=True))
    return row


def _rejection(session: Session, domain: Domain, message: Message) -> RejectionRow:
    body = RejectionIn.model_validate(message.body)
    rejection = body.rejection
    row = session.merge(
        RejectionRow(
            lease=rejection.lease,
            n=rejection.n,
            tip=rejection.tip,
            reason=rejection.reason,
            signature=body.signature,
            received=message.received,
        )
    )
    checkpoint = session.get(CheckpointRow, (rejection.lease, rejection.n))
    if checkpoint is not None and checkpoint.tip == rejection.tip:
        checkpoint.status, checkpoint.reason = CheckpointStatus.REJECTED.value, rejection.reason
        session.add(checkpoint)
    return row


def _report(session: Session, domain: Domain, message: Message) -> ReportRow:
    body = ReportIn.model_validate(message.body)
    report = body.report
    row = ReportRow(
        id=message.facts.get("id"),
        lease=report.lease,
        bid=message.facts["bid"],
        provider=message.facts["provider"],
        n=report.n,
        kind=report.kind,
        content=report.content,
        time=report.time,
        signature=body.signature,
        text=body.text,
        received=message.received,
    )
    row = _numbered(session, row)
    judge(session, row.bid)
    return row


def _numbered(session: Session, row: R) -> R:
    """Stored under its number, if the message has one; else under the next."""
    if row.id is None:
        session.add(row)
    else:
        row = session.merge(row)
    session.flush()
    return row


def _audit(session: Session, domain: Domain, message: Message) -> AuditNoteRow:
    body = AuditNoteIn.model_validate(message.body)
    note = body.note
    row = AuditNoteRow(
        id=message.facts.get("id"),
        lease=note.lease,
        bid=message.facts["bid"],
        approver=message.facts["approver"],
        kind=note.kind,
        ruling=body.content.ruling if isinstance(body.content, RulingContent) else None,
        content_hash=note.content,
        time=note.time,
        signature=body.signature,
        content=body.content.model_dump(mode="json"),
        received=message.received,
    )
    return _numbered(session, row)


def _auditor(session: Session, domain: Domain, message: Message) -> AuditorRow:
    """Of several grants the one that lasts longest counts."""
    body = AuditorIn.model_validate(message.body)
    grant = body.grant
    row = session.get(AuditorRow, (grant.job, grant.auditor))
    if row is not None and row.valid_until >= grant.valid_until:
        return row
    return session.merge(
        AuditorRow(bid=grant.job, auditor=grant.auditor, valid_until=grant.valid_until, signature=body.signature)
    )


def _key(session: Session, domain: Domain, message: Message) -> EncryptionKeyRow:
    """Of several keys the newest counts."""
    body = EncryptionKeyIn.model_validate(message.body)
    key = body.key
    row = session.get(EncryptionKeyRow, key.account)
    if row is not None and row.time >= key.time:
        return row
    return session.merge(EncryptionKeyRow(account=key.account, key=key.key, time=key.time, signature=body.signature))


def _grant(session: Session, domain: Domain, message: Message) -> KeyGrantRow:
    return _add_grant(session, KeyGrantIn.model_validate(message.body), message.facts["signer"])


def _add_grant(session: Session, body: KeyGrantIn, signer: str) -> KeyGrantRow:
    grant = body.grant
    row = session.get(KeyGrantRow, (grant.job, grant.reader, grant.reader_key, signer))
    if row is None:
        row = KeyGrantRow(
            bid=grant.job,
            reader=grant.reader,
            reader_key=grant.reader_key,
            signer=signer,
            sealed_key=body.sealed_key,
            signature=body.signature,
        )
        session.add(row)
        session.flush()
    return row


def _upload(session: Session, domain: Domain, message: Message) -> UploadRow:
    body = message.body
    return session.merge(UploadRow(sha256=body["sha256"], account=body["account"], received=message.received))


def _collected(session: Session, domain: Domain, message: Message) -> None:
    """Nobody needed these blobs any more."""
    for model in (UploadRow, BlobRow):
        session.exec(delete(model).where(col(model.sha256).in_(message.body["sha256"])))


_APPLY: dict[Kind, Callable[[Session, Domain, Message], Any]] = {
    **apply_epochs.APPLY,
    "rules": _rules,
    "ask": _ask,
    "bid": _bid,
    "progress": _progress,
    "approval": _approval,
    "rejection": _rejection,
    "report": _report,
    "audit": _audit,
    "auditor": _auditor,
    "key": _key,
    "grant": _grant,
    "upload": _upload,
    "collected": _collected,
}
