"""GET /metrics: text for Prometheus."""

import ipaddress
import time
from collections import Counter as Count
from collections.abc import Callable, Iterator

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func
from sqlmodel import Session, col, select

from contracts.api.bodies import JobStatus
from contracts.api.problems import Code, Problem
from contracts.chain.errors import NODE_AWAY
from contracts.errors import UserError
from contracts.terms import Phase
from market.runtime.context import Context
from market.store.db import OUTAGE
from market.store.models import BlobRow, EpochRow, LeaseRow

router = APIRouter(include_in_schema=False)
log = structlog.get_logger()


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


STATE_SECONDS = 30.0  # for which what was counted in the database is told again


PHASES = (Phase.ACTIVE, Phase.CLOSING, Phase.CHALLENGED)


Readings = list[tuple[str, str, dict[str, float] | float]]  # name, label and its values


class StateCollector(Collector):
    """What is looked up when it is asked for. What can't be, because database or node are silent, is left out."""

    def __init__(self, context: Context, count_jobs: Callable[[Context, Session], Count[JobStatus]]) -> None:
        self._context, self._count_jobs = context, count_jobs
        self._counted: Readings = []
        self._counted_at = -STATE_SECONDS

    def describe(self) -> list[Metric]:
        return []  # else registering would ask database and node

    def collect(self) -> Iterator[Metric]:
        for name, label, values in [*self._of_process(), *self._of_database(), *self._of_chain()]:
            metric = GaugeMetricFamily(name, HELP[name], labels=[label] if label else [])
            for value, number in values.items() if isinstance(values, dict) else [("", values)]:
                metric.add_metric([value] if label else [], number)
            yield metric

    def _of_process(self) -> Readings:
        context = self._context
        return [
            ("gpumarket_leader", "", float(context.leads)),
            ("gpumarket_draining", "", float(context.settings.draining)),
            ("gpumarket_replay_reserve_short", "", float(context.reserve_short)),
            ("gpumarket_chain_block", "", float(context.head.number)),
            ("gpumarket_chain_followed_seconds", "", time.monotonic() - context.followed),
        ]

    def _of_database(self) -> Readings:
        if time.monotonic() - self._counted_at < STATE_SECONDS:
            return self._counted
        try:
            with self._context.db.reading() as session:
                self._counted = self._count(session)
        except OUTAGE as error:
            log.warning("metrics.database_silent", problem=str(error.orig)[:300])
            return []
        self._counted_at = time.monotonic()
        return self._counted

    def _count(self, session: Session) -> Readings:
        live = select(LeaseRow.status).where(col(LeaseRow.finished).is_(None))
        phases = Count(Phase(status & 7) for status in session.exec(live))
        jobs = self._count_jobs(self._context, session)
        blobs, size = session.exec(select(func.count(), func.coalesce(func.sum(BlobRow.size), 0))).one()
        return [
            ("gpumarket_leases", "phase", {phase.name.lower(): phases[phase] for phase in PHASES}),
            ("gpumarket_jobs", "status", {status.value: jobs[status] for status in JobStatus}),
            ("gpumarket_epochs", "", float(session.exec(select(func.max(EpochRow.number))).one() or 0)),
            ("gpumarket_blobs", "", float(blobs)),
            ("gpumarket_blob_bytes", "", float(size)),
        ]

    def _of_chain(self) -> Readings:
        context = self._context
        try:
            newest = context.chain.w3.eth.get_block("latest")
            wei = context.chain.w3.eth.get_balance(context.chain.w3.to_checksum_address(context.matcher))
            found: Readings = [
                ("gpumarket_chain_lag_blocks", "", float(max(0, newest["number"] - context.head.number))),
                ("gpumarket_chain_age_seconds", "", time.time() - newest["timestamp"]),
                ("gpumarket_gas_balance_ether", "", wei / 10**18),
            ]
            if context.sender is not None and context.leads:
                found.append(("gpumarket_transactions_in_flight", "", float(context.sender.in_flight())))
            return found
        except (UserError, *NODE_AWAY) as error:
            log.warning("metrics.chain_silent", problem=str(error)[:300])
            return []


HELP = {
    "gpumarket_leader": "1 in the process that follows the chain, clears and sends",
    "gpumarket_draining": "1 in a market that takes no new orders and opens no leases",
    "gpumarket_replay_reserve_short": "1 while the approver can't pay replays, so that no audited lease is opened",
    "gpumarket_chain_block": "Newest block that was followed",
    "gpumarket_chain_followed_seconds": "Time since the chain was looked at last",
    "gpumarket_chain_lag_blocks": "Blocks that the node has and the market has not followed yet",
    "gpumarket_chain_age_seconds": "Age of the node's newest block",
    "gpumarket_gas_balance_ether": "What the matcher's key has for gas",
    "gpumarket_transactions_in_flight": "Transactions of the matcher's key that are not mined yet; of the leader only",
    "gpumarket_leases": "Live leases by phase",
    "gpumarket_jobs": "Jobs by status, as the API gives it",
    "gpumarket_epochs": "Number of the newest epoch",
    "gpumarket_blobs": "Blobs that are stored",
    "gpumarket_blob_bytes": "Their bytes",
}
