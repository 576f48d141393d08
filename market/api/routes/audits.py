"""What approvers say in public of audits."""

from typing import Annotated

from fastapi import APIRouter, Query

from contracts.api.auditing.notes import AuditNoteIn, AuditNoteOut
from contracts.api.bodies import Page
from contracts.orders import AuditKind
from contracts.types import Bytes32
from market.api.dependencies import DEFAULT, AddressQuery, After, Limit, Market
from market.api.json_bodies import JsonRoute
from market.services.auditing import notes

router = APIRouter(tags=["audits"], route_class=JsonRoute)


@router.post("/audits")
def post_audit_note(market: Market, body: AuditNoteIn) -> AuditNoteOut:
    """An approver's public word on the audit of a lease: what it has committed to, drawn, had replayed, and found."""
    return notes.take_note(market, body)


@router.get("/audits")
def list_audit_notes(
    market: Market,
    job: Annotated[Bytes32 | None, Query(description="the Bid's id")] = None,
    lease: Annotated[Bytes32 | None, Query()] = None,
    approver: AddressQuery = None,
    provider: AddressQuery = None,
    kind: Annotated[AuditKind | None, Query()] = None,
    after: After = None,
    limit: Limit = DEFAULT,
) -> Page[AuditNoteOut]:
    """In the order in which they came."""
    return notes.list_notes(market, after, limit, job=job, lease=lease, approver=approver, provider=provider, kind=kind)
