"""Is the process alive, and is it of use? For supervisors and load balancers; neither counts as a request."""

import time

from fastapi import APIRouter, Request, Response

from contracts.api.problems import Code, Problem
from market.runtime.context import Context
from market.store.db import OUTAGE

router = APIRouter(tags=["market"])


@router.get("/healthz", status_code=204)
async def get_health() -> Response:
    """The process lives. Restart it if this does not answer."""
    return Response(status_code=204)


@router.get("/readyz", status_code=204)
def get_readiness(request: Request) -> Response:
    """The database answers, the disks have room and the chain is followed. Send nothing here while this says no."""
    if why := trouble(request.app.state.context):
        raise Problem(503, Code.MARKET_NOT_READY, why, "It goes on by itself when that is over.")
    return Response(status_code=204)


def trouble(context: Context) -> str | None:
    """Why a market can't be relied on now; None if it can."""
    try:
        with context.db.reading() as session:
            session.connection().exec_driver_sql("SELECT 1")
    except OUTAGE:
        return "the market's database does not answer"
    if (full := context.disks.trouble()) is not None:
        return full
    if not context.caught_up.is_set():
        return f"this market still follows the chain; it has come to block {context.head.number}"
    silent = time.monotonic() - context.followed
    if silent > context.settings.ready_seconds:
        return f"the chain could not be followed for {silent:.0f} s; the newest block known is {context.head.number}"
    return None
