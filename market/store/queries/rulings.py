"""What approvers have ruled on providers' work."""

from collections.abc import Collection

from sqlmodel import Session, col, select

from contracts.api.auditing.notes import AuditNoteIn
from contracts.audits.unaudited import Ruled, unaudited
from contracts.orders import AuditNote
from market.store.audit_notes import AuditNoteRow
from market.store.models import LeaseRow

ROWS_AT_ONCE = 500


def note_of(row: AuditNoteRow) -> AuditNote:
    """As it was signed."""
    return AuditNote.model_validate(
        {"lease": row.lease, "kind": row.kind, "content": row.content_hash, "time": row.time}
    )


def unaudited_work(
    session: Session, providers: Collection[str], rules: Collection[str]
) -> dict[str, list[AuditNoteIn]]:
    """What shows it, by provider: those of `providers` whose work nobody audits. `rules`: of leases that count."""
    rulings: dict[str, list[Ruled[AuditNoteRow]]] = {}
    wanted = sorted(providers)
    for at in range(0, len(wanted), ROWS_AT_ONCE):
        found = session.exec(
            select(AuditNoteRow, LeaseRow.provider)
            .join(LeaseRow, col(LeaseRow.id) == col(AuditNoteRow.lease))
            .where(col(LeaseRow.provider).in_(wanted[at : at + ROWS_AT_ONCE]), col(LeaseRow.rules).in_(rules))
            .where(AuditNoteRow.kind == "ruling")
            .order_by(col(AuditNoteRow.id))
        )
        for row, provider in found:
            rulings.setdefault(provider, []).append(Ruled(row.approver, row.content["ruling"], row))
    shown = {provider: unaudited(its) for provider, its in rulings.items()}
    return {provider: [_body(row) for row in rows] for provider, rows in shown.items() if rows}


def _body(row: AuditNoteRow) -> AuditNoteIn:
    return AuditNoteIn.model_validate({"note": note_of(row), "signature": row.signature, "content": row.content})
