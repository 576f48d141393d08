"""Claims with the checkpoints behind them: admission, and what the approver and the public see of them."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from contracts import commitment
from contracts.api.bodies import CheckpointOut, CheckpointRecord, CheckpointStatus, Page, ProgressIn
from contracts.api.problems import Code, Problem
from contracts.chain.lookup import tips_of
from contracts.job.spec import JobSpec
from contracts.orders import Claim
from contracts.terms import Phase
from contracts.types import from_hex, to_hex
from market.runtime.context import Context
from market.services.blobs import not_uploaded
from market.services.jobs import find_job, told_status
from market.services.leases import find_lease, find_live_lease, newest_approval
from market.services.signatures import check_signed
from market.store.models import ApprovalRow, BidRow, ChainEvent, CheckpointRow, LeaseRow
from market.store.paging import Keyset, read_page
from market.store.queries.chain_tips import other_tips
from market.store.queries.events import event_of
from market.store.queries.leases import phase_of, state_now
from market.store.unreadable import record_of

_BY_INDEX = Keyset(col(CheckpointRow.n), col(CheckpointRow.lease))
_BY_RECEPTION = Keyset(col(CheckpointRow.received), col(CheckpointRow.lease), col(CheckpointRow.n))


def report_progress(context: Context, body: ProgressIn) -> CheckpointOut:
    """Store a claim of the next checkpoint, or one in place of the last that was not approved."""
    claim = body.claim
    with context.db.reading() as session:
        lease, job = find_lease(session, claim.lease)
    otherwise = f"the Claim is not signed by the provider {lease.provider} of lease {lease.id}"
    body = check_signed(context, body, claim, lease.provider, otherwise)
    _check_record(context, body, JobSpec.model_validate(job.spec))
    with context.db.session() as session:
        lease, job = find_lease(session, claim.lease)
        stored = session.get(CheckpointRow, (claim.lease, claim.n))
        if stored is None or stored.tip != claim.tip or record_of(stored) is None:
            if not _is_accepted_on_chain(session, lease, claim):
                find_live_lease(session, claim.lease)
                _check_place(session, lease, claim, stored)
                _check_binding(context, lease, claim, stored)
            _check_commitment(session, lease, body)
            _check_state(context, session, lease, record=body.checkpoint)
            facts = {"bid": lease.bid, "provider": lease.provider}
            if stored is not None:
                facts["replaced"] = stored.tip
            row = context.accept(session, "progress", body, **facts)
        else:
            row = stored
        other = other_tips(session, [lease]).get((lease.id, claim.n))
    return _out(row, lease, context.now(), other)


def _check_record(context: Context, body: ProgressIn, spec: JobSpec) -> None:
    claim, record = body.claim, body.checkpoint
    if record.index != claim.n:
        raise _mismatch(f"the record is of checkpoint {record.index}, but the Claim of {claim.n}")
    if record.step != spec.step_of(claim.n):
        raise _mismatch(f"checkpoint {claim.n} is at step {spec.step_of(claim.n)} of the job, not {record.step}")
    if (record.sealed is not None) != spec.sealed:
        raise _mismatch(
            "the job is sealed, but the record names no ciphertext"
            if spec.sealed
            else "the record names a ciphertext, but the job is not sealed"
        )


def _check_state(context: Context, session: Session, lease: LeaseRow, record: CheckpointRecord) -> None:
    state = record.stored
    if not_uploaded(context, session, lease.provider, [state]):
        raise Problem(
            422,
            Code.BLOB_MISSING,
            f"{lease.provider} has not uploaded the state blob {state.sha256} of {state.size} bytes",
            "Upload it to /v1/blobs/{sha256} first, with a token of the provider.",
            missing={"state": state.sha256},
        )


def _is_accepted_on_chain(session: Session, lease: LeaseRow, claim: Claim) -> bool:
    """Whether this was claimed on chain and accepted, while the market was away: a record is welcome however late."""
    if claim.n > lease.accepted:
        return False
    rows = session.exec(
        select(ChainEvent)
        .where(ChainEvent.lease == lease.id)
        .order_by(col(ChainEvent.block_number), col(ChainEvent.log_index))
    ).all()
    return tips_of(lease.start, lease.start_tip, map(event_of, rows)).get(claim.n) == claim.tip


def _check_place(session: Session, lease: LeaseRow, claim: Claim, stored: CheckpointRow | None) -> None:
    """The next index of the lease; or one to be replaced, that nobody has approved and the chain has not seen."""
    newest = session.exec(
        select(CheckpointRow.n).where(CheckpointRow.lease == lease.id).order_by(col(CheckpointRow.n).desc())
    ).first()
    known = max(newest or 0, lease.accepted)
    approval = newest_approval(session, lease.id)
    lowest = max(lease.start, lease.accepted, approval.n if approval else 0) + 1
    highest = min(max(known, lease.claimed) + 1, lease.end)
    on_chain = stored is not None and claim.n <= lease.claimed
    if not lowest <= claim.n <= highest or on_chain:
        raise Problem(
            409,
            Code.PROGRESS_OUT_OF_ORDER,
            f"checkpoint {claim.n} can't be reported for lease {lease.id}: "
            + ("it has been claimed on chain with another tip" if on_chain else f"{lowest} to {highest} can"),
            f"The lease covers {lease.start + 1} to {lease.end}; go on after the newest that the market has.",
            lowest=lowest,
            highest=highest,
        )


def _check_binding(context: Context, lease: LeaseRow, claim: Claim, stored: CheckpointRow | None) -> None:
    """Under audited rules the first Claim of a checkpoint stays, unless it was rejected and is not in dispute: else a
    liar would hand in honest work once it is drawn, or take away what an arbiter has to look at.
    """
    if stored is None or context.rule_set(lease.rules).level == "unchecked":
        return
    disputed = phase_of(lease) is Phase.CHALLENGED
    if stored.status != CheckpointStatus.REJECTED or disputed:
        raise Problem(
            409,
            Code.PROGRESS_OUT_OF_ORDER,
            f"checkpoint {claim.n} of lease {lease.id} was claimed with the tip {stored.tip}, which binds"
            + (" while it is disputed" if disputed else "")
            + f"; {claim.tip} can't take its place",
            "Under audited rules a checkpoint is claimed once: go on from the first, or give the lease back.",
            lowest=claim.n + 1,
            highest=lease.end,
        )


def _check_commitment(session: Session, lease: LeaseRow, body: ProgressIn) -> None:
    """Root and tip must come out of the record's parts and the tip before."""
    claim, record = body.claim, body.checkpoint
    before = tip_at(session, lease, claim.n - 1)
    if before is None:
        raise Problem(
            409,
            Code.PROGRESS_OUT_OF_ORDER,
            f"checkpoint {claim.n - 1} of lease {lease.id} is not known here, so {claim.n} can't be checked",
            f"Report checkpoint {claim.n - 1} first.",
        )
    root = commitment.checkpoint_root(
        from_hex(lease.job),
        record.index,
        record.step,
        from_hex(record.state_root),
        from_hex(record.trace_root),
        _numerics_class(record),
    )
    if to_hex(root) != record.root:
        raise _mismatch(f"the root {record.root} is not that of the record's parts, {to_hex(root)}", root=to_hex(root))
    tip = to_hex(commitment.next_tip(from_hex(before), root))
    for name, given in (("record", record.tip), ("Claim", claim.tip)):
        if given != tip:
            raise _mismatch(f"the tip {given} of the {name} does not follow {before}; {tip} would", tip=tip)
    if claim.n == lease.claimed and phase_of(lease) is not Phase.CHALLENGED and tip != lease.tip:
        raise _mismatch(f"the chain has the tip {lease.tip} at checkpoint {claim.n}, not {tip}", tip=lease.tip)


def _numerics_class(record: CheckpointRecord) -> bytes:
    try:
        return commitment.numerics_class(record.numerics)
    except Exception as error:  # the canonical JSON library has an exception per way to fail
        raise Problem(422, Code.VALIDATION_FAILED, f"checkpoint.numerics can't be written as JSON: {error}") from error


def tip_at(session: Session, lease: LeaseRow, n: int) -> str | None:
    """The tip at index n of a lease, as far as the market knows: from the chain, a claim or an approval."""
    if n == lease.start:
        return lease.start_tip
    row = session.get(CheckpointRow, (lease.id, n))
    if row is not None:
        return row.tip
    # Where nothing is pending, or while it is disputed, the lease's own tip is the accepted one.
    if n == (lease.accepted if phase_of(lease) is Phase.CHALLENGED else lease.claimed):
        return lease.tip
    approval = session.exec(select(ApprovalRow).where(ApprovalRow.lease == lease.id, ApprovalRow.n == n)).first()
    return approval.tip if approval else None


def _mismatch(detail: str, **values: str) -> Problem:
    hint = "Root and tip are in section 3 of the protocol; the tip follows that of the checkpoint before."
    return Problem(422, Code.COMMITMENT_MISMATCH, detail, hint, **values)


def list_checkpoints(context: Context, job: str, after: str | None, limit: int) -> Page[CheckpointOut]:
    query = select(CheckpointRow).where(CheckpointRow.bid == job)
    with context.db.reading() as session:
        find_job(session, job)
        return read_page(session, query, _BY_INDEX, after, limit, lambda rows: _outs(context, session, rows))


def list_progress(
    context: Context, approver: str | None, status: CheckpointStatus | None, after: str | None, limit: int
) -> Page[CheckpointOut]:
    """Claims in the order of their coming; with status `reported`, those of live leases that wait for a word."""
    query = select(CheckpointRow).join(LeaseRow, col(LeaseRow.id) == CheckpointRow.lease)
    query = query.where(col(CheckpointRow.bid).in_(select(BidRow.id)))
    if approver is not None:
        query = query.where(LeaseRow.approver == approver)
    if status is CheckpointStatus.REPORTED:
        query = query.where(
            CheckpointRow.status == status, col(LeaseRow.finished).is_(None), CheckpointRow.n > LeaseRow.accepted
        )
    with context.db.reading() as session:

        def convert(rows: Sequence[CheckpointRow]) -> list[CheckpointOut | None]:
            outs = _outs(context, session, rows)
            return [out if out is not None and status in (None, out.status) else None for out in outs]

        return read_page(session, query, _BY_RECEPTION, after, limit, convert)


def _outs(context: Context, session: Session, rows: Sequence[CheckpointRow]) -> list[CheckpointOut | None]:
    ids = {row.lease for row in rows}
    leases = {lease.id: lease for lease in session.exec(select(LeaseRow).where(col(LeaseRow.id).in_(ids)))}
    others, now = other_tips(session, list(leases.values())), context.now()
    return context.unreadable.each(
        rows, lambda row: _out(row, leases.get(row.lease), now, others.get((row.lease, row.n)))
    )


def _out(row: CheckpointRow, lease: LeaseRow | None, now: int, other: str | None) -> CheckpointOut:
    """`lease` is None if a reorganisation took it away; `other`: the tip that the chain has there, if it is another."""
    accepted = lease is not None and row.n <= state_now(lease, now).accepted
    status, reason = told_status(row, accepted, other)
    return CheckpointOut(
        lease=row.lease,
        job=row.bid,
        provider=row.provider,
        checkpoint=CheckpointRecord.model_validate(row.record),
        claim=Claim(lease=row.lease, n=row.n, tip=row.tip),
        signature=row.signature,
        status=status,
        reason=reason,
        received=row.received,
    )


def find_checkpoint(session: Session, lease: str, n: int, tip: str) -> CheckpointRow:
    """The reported checkpoint that an approver speaks of. Raises Problem."""
    find_lease(session, lease)
    row: Any = session.get(CheckpointRow, (lease, n))
    if row is None:
        raise Problem(409, Code.PROGRESS_OUT_OF_ORDER, f"checkpoint {n} of lease {lease} has not been reported")
    if row.tip != tip:
        raise Problem(
            422,
            Code.COMMITMENT_MISMATCH,
            f"checkpoint {n} of lease {lease} has the tip {row.tip}, not {tip}",
            "Its maker may have replaced it: look at it again.",
            tip=row.tip,
        )
    return row
