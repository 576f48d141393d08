"""What workers and approvers say to each other: claims, approvals, rejections, reports."""

from typing import Annotated

from fastapi import APIRouter, Query

from contracts.api.bodies import (
    ApprovalIn,
    CheckpointOut,
    CheckpointStatus,
    LeaseOut,
    Page,
    ProgressIn,
    RejectionIn,
    ReportIn,
    ReportOut,
)
from market.api.dependencies import DEFAULT, AddressQuery, After, Limit, Market
from market.api.json_bodies import JsonRoute
from market.services import approvals, progress, reports

router = APIRouter(tags=["progress"], route_class=JsonRoute)


@router.post("/progress")
def post_progress(market: Market, body: ProgressIn) -> CheckpointOut:
    """A provider claims its next checkpoint. The state's blob must be uploaded first."""
    return progress.report_progress(market, body)


@router.get("/progress")
def list_progress(
    market: Market,
    approver: AddressQuery = None,
    status: Annotated[CheckpointStatus | None, Query()] = None,
    after: After = None,
    limit: Limit = DEFAULT,
) -> Page[CheckpointOut]:
    """Oldest first. `reported`: those of live leases that wait for an approver's word."""
    return progress.list_progress(market, approver, status, after, limit)


@router.post("/approvals")
def post_approval(market: Market, body: ApprovalIn) -> LeaseOut:
    """An approver accepts all checkpoints up to one."""
    return approvals.approve(market, body)


@router.post("/rejections")
def post_rejection(market: Market, body: RejectionIn) -> LeaseOut:
    """An approver will not accept a reported checkpoint, and says why."""
    return approvals.reject(market, body)


@router.post("/reports")
def post_report(market: Market, body: ReportIn) -> ReportOut:
    """A provider's word to market and approver: a log, a failure, or that it stops."""
    return reports.take_report(market, body)


@router.get("/reports")
def list_reports(
    market: Market,
    approver: AddressQuery = None,
    waiting: Annotated[bool | None, Query(description="for an Approval with `last` of a live lease")] = None,
    after: After = None,
    limit: Limit = DEFAULT,
) -> Page[ReportOut]:
    """Without their texts: those are at /v1/jobs/{id}/reports, for those who may read the job."""
    return reports.list_reports(market, approver, waiting, after, limit)
