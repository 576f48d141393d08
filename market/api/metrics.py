"""GET /metrics: text for Prometheus."""

import ipaddress

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from contracts.api.problems import Code, Problem
from market.context import Context

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
def get_metrics(request: Request) -> Response:
    context: Context = request.app.state.context
    if not context.settings.metrics_public and not _is_local(request.client.host if request.client else ""):
        raise Problem(
            404,
            Code.NOT_FOUND,
            "the metrics are for this machine only",
            "Ask from there, or set `metrics_public = true` in market.toml.",
        )
    return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _is_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
