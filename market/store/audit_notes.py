"""The table of what approvers say of audits."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, String, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from market.store.columns import ADDRESS, DOCUMENT, HASH, UtcTime, now


class AuditNoteRow(SQLModel, table=True):
    __tablename__ = "audit_note"
    __table_args__ = (UniqueConstraint("lease", "content_hash", name="uq_audit_note_content"),)

    id: int | None = Field(default=None, primary_key=True)
    lease: str = Field(index=True, sa_type=HASH)
    bid: str = Field(index=True, sa_type=HASH)
    approver: str = Field(index=True, sa_type=ADDRESS)
    kind: str = Field(sa_type=String(10))  # as contracts.orders.AuditKind
    ruling: str | None = Field(default=None, sa_type=String(20))  # of notes of that kind
    content_hash: str = Field(sa_type=HASH)  # what the note signs
    time: int = Field(sa_type=BigInteger)
    signature: str = Field(sa_type=Text)
    content: dict[str, Any] = Field(sa_type=DOCUMENT)
    received: datetime = Field(default_factory=now, sa_type=UtcTime)
