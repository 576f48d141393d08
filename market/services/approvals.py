"""An approver's word on checkpoints: Approvals and Rejections."""

from collections.abc import Mapping
from typing import TypeVar

from sqlmodel import Session

from contracts.api.bodies import ApprovalIn, CheckpointStatus, LeaseOut, RejectionIn
from contracts.api.problems import Code, Problem
from contracts.orders import Approval, Rejection
from contracts.terms import Phase
from market.runtime.context import Context
from market.services.leases import find_live_lease, get_lease, newest_approval
from market.services.progress import find_checkpoint, tip_at
from market.services.signatures import check_signed
from market.store.models import ApprovalRow, LeaseRow
from market.store.queries.leases import phase_of
from market.store.replaced_claims import way_back

B = TypeVar("B", ApprovalIn, RejectionIn)


def approve(context: Context, body: ApprovalIn) -> LeaseOut:
    """Store an Approval; all checkpoints up to it are approved.

    It may be of a Claim that was replaced on its way: then that one is in its place again.
    """
    approval = body.approval
    with context.db.session() as session:
        lease, _ = find_live_lease(session, approval.lease)
        body = _check_signer(context, body, approval, lease)
        if session.get(ApprovalRow, (approval.lease, approval.n, approval.last)) is None:
            _check_index(session, approval, lease)
            _check_tip(session, approval, lease)
            context.accept(session, "approval", body)
    return get_lease(context, approval.lease)


def _check_index(session: Session, approval: Approval, lease: LeaseRow) -> None:
    newest = newest_approval(session, lease.id)
    # With `last`, what is accepted already may be approved again: it closes the lease.
    lowest = max(lease.accepted, newest.n if newest else 0, lease.start) + (0 if approval.last else 1)
    if not lowest <= approval.n <= lease.end:
        raise Problem(
            409,
            Code.PROGRESS_OUT_OF_ORDER,
            f"checkpoint {approval.n} can't be approved for lease {lease.id}: {lowest} to {lease.end} can",
            "Approvals are cumulative; sign the newest checkpoint that was reported.",
            lowest=lowest,
            highest=lease.end,
        )


def _check_tip(session: Session, approval: Approval, lease: LeaseRow) -> None:
    known = tip_at(session, lease, approval.n)
    if known == approval.tip:
        return
    if back := way_back(session, lease.id, approval.n, approval.tip):
        _check_chain(lease, {row.n: row.tip for row in back}, approval)
        return
    find_checkpoint(session, lease.id, approval.n, approval.tip)
    raise Problem(
        422,
        Code.COMMITMENT_MISMATCH,
        f"lease {lease.id} has the tip {known} at checkpoint {approval.n}, not {approval.tip}",
    )


def _check_chain(lease: LeaseRow, back: Mapping[int, str], approval: Approval) -> None:
    """What the chain has seen stays: `back`, tips by index, must lead to it where they are as old."""
    if lease.claimed < min(back):
        return
    if phase_of(lease) is Phase.CHALLENGED or back.get(lease.claimed) != lease.tip:
        raise Problem(
            409,
            Code.PROGRESS_OUT_OF_ORDER,
            f"checkpoint {approval.n} with the tip {approval.tip} was replaced in lease {lease.id}, and "
            f"checkpoint {lease.claimed} has been claimed on chain with another tip since",
            "What the chain accepts counts; the checkpoint after that can be approved.",
        )


def reject(context: Context, body: RejectionIn) -> LeaseOut:
    """Store a Rejection of a reported checkpoint. Its maker may replace it."""
    rejection = body.rejection
    with context.db.session() as session:
        lease, _ = find_live_lease(session, rejection.lease)
        body = _check_signer(context, body, rejection, lease)
        checkpoint = find_checkpoint(session, lease.id, rejection.n, rejection.tip)
        if checkpoint.status == CheckpointStatus.APPROVED or rejection.n <= lease.accepted:
            raise Problem(
                409,
                Code.PROGRESS_OUT_OF_ORDER,
                f"checkpoint {rejection.n} of lease {lease.id} has been approved, so it can't be rejected",
                "An Approval can't be taken back. A false claim that is pending on chain can be challenged.",
            )
        context.accept(session, "rejection", body)
    return get_lease(context, rejection.lease)


def _check_signer(context: Context, body: B, message: Approval | Rejection, lease: LeaseRow) -> B:
    """By the approver's key: the escrow takes no wallet's word here."""
    otherwise = f"the {type(message).__name__} is not signed by the approver {lease.approver} of lease {lease.id}"
    return check_signed(context, body, message, lease.approver, otherwise, by_key=True)
