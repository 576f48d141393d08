"""What approvers have ruled on providers' work."""

from collections.abc import Collection, Mapping, Sequence

from sqlmodel import Session, col, select

from contracts.api.auditing.notes import AuditNoteIn
from contracts.audits.unaudited import Ruled, unaudited
from contracts.orders import AuditNote
from contracts.terms import Verdict
from market.store.audit_notes import AuditNoteRow
from market.store.models import LeaseRow
from market.store.queries.reliability import stored_verdicts

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
            .where(col(AuditNoteRow.ruling).is_not(None))
            .order_by(col(AuditNoteRow.id))
        )
        for row, provider in found:
            rulings.setdefault(provider, []).append(Ruled(row.approver, row.ruling or "", row))
    shown = {provider: unaudited(its) for provider, its in rulings.items()}
    return {provider: [_body(row) for row in rows] for provider, rows in shown.items() if rows}


def unreproducible_jobs(
    session: Session, leases: Mapping[str, Sequence[LeaseRow]], rules: Collection[str]
) -> dict[str, AuditNoteIn | None]:
    """Jobs that are over since their honest runs differ: by its approver's ruling on a lease, which comes with it, or
    None: by an arbiter's verdict. `leases`: by job; `rules`: hashes of those that end such a job.
    """
    job_of = {lease.id: job for job, its in leases.items() for lease in its if lease.rules in rules}
    found: dict[str, AuditNoteIn | None] = {}
    wanted = sorted(job_of)
    for at in range(0, len(wanted), ROWS_AT_ONCE):
        some = wanted[at : at + ROWS_AT_ONCE]
        verdicts = stored_verdicts(session, some).items()
        found |= {job_of[lease]: None for lease, verdict in verdicts if verdict is Verdict.UNREPRODUCIBLE}
        of_these = (col(AuditNoteRow.lease).in_(some), AuditNoteRow.ruling == "unreproducible")
        for row in session.exec(select(AuditNoteRow).where(*of_these).order_by(col(AuditNoteRow.id).desc())):
            found[job_of[row.lease]] = _body(row)  # the first one stays
    return found


def _body(row: AuditNoteRow) -> AuditNoteIn:
    return AuditNoteIn.model_validate({"note": note_of(row), "signature": row.signature, "content": row.content})
