"""Jobs, with their checkpoints and reports."""

from typing import Annotated

from fastapi import APIRouter, Query

from contracts.api.bodies import (
    AuditorIn,
    AuditorOut,
    CheckpointOut,
    JobOut,
    JobStatus,
    JobSummary,
    KeyGrantIn,
    Page,
    ReportOut,
)
from contracts.types import Bytes20, Text
from market.api.access import wrong_job
from market.api.dependencies import DEFAULT, AddressQuery, After, HashPath, KnownOffers, Limit, Market, ReadingCaller
from market.api.json_bodies import JsonRoute
from market.services import access, jobs, progress, reports, sealing
from market.services.quoting import nearest

router = APIRouter(tags=["jobs"], prefix="/jobs", route_class=JsonRoute)


@router.get("")
def list_jobs(
    market: Market,
    client: AddressQuery = None,
    status: Annotated[JobStatus | None, Query()] = None,
    tip: Annotated[Bytes20 | None, Query(description="of a checkpoint: which job another one goes on from")] = None,
    prefix: Annotated[str | None, Query(description="how their ids start", pattern="^0x[0-9a-f]{1,64}$")] = None,
    name: Annotated[Text | None, Query(max_length=100)] = None,
    after: After = None,
    limit: Limit = DEFAULT,
) -> Page[JobSummary]:
    wanted = jobs.Wanted(client=client, status=status, tip=tip, prefix=prefix, name=name)
    return jobs.list_jobs(market, wanted, after, limit)


@router.get("/{id}")
def get_job(market: Market, known: KnownOffers, id: HashPath) -> JobOut:
    """Of one that waits `nearest` names the machine that comes nearest, and by what it falls short."""
    return nearest.explained(known, jobs.get_job(market, id))


@router.get("/{id}/checkpoints")
def list_checkpoints(market: Market, id: HashPath, after: After = None, limit: Limit = DEFAULT) -> Page[CheckpointOut]:
    """By index, the reported ones too."""
    return progress.list_checkpoints(market, id, after, limit)


@router.get("/{id}/reports")
def list_job_reports(
    market: Market, id: HashPath, caller: ReadingCaller, after: After = None, limit: Limit = DEFAULT
) -> Page[ReportOut]:
    """With their texts. A provider sees those of its own leases."""
    if caller.token.job != id:
        raise wrong_job(caller.token, id)
    return reports.list_job_reports(market, id, caller.account, after, limit)


@router.post("/{id}/auditors")
def post_auditor(market: Market, id: HashPath, body: AuditorIn) -> AuditorOut:
    """A job's client lets somebody read its files, checkpoints and logs, until a time."""
    return access.name_auditor(market, id, body)


@router.post("/{id}/grants")
def post_grant(market: Market, id: HashPath, body: KeyGrantIn) -> KeyGrantIn:
    """A sealed job's client or approver gives somebody the job's key. The same again changes nothing."""
    return sealing.add_grant(market, id, body)


@router.get("/{id}/grants")
def list_grants(
    market: Market, id: HashPath, reader: AddressQuery = None, after: After = None, limit: Limit = DEFAULT
) -> Page[KeyGrantIn]:
    """Public: only the reader can open one."""
    return sealing.list_grants(market, id, reader, after, limit)
