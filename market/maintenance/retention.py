"""Which blobs are kept and until when, and the collection of those that nobody needs any more. docs/access.md.

A blob is kept as long as its job may go on; then as long as the last checkpoint could be challenged; then for the
times in the settings. What no order or claim names goes after some hours.
"""

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy import func
from sqlmodel import Session, col, delete, select

from contracts.api.bodies import JobStatus
from contracts.job.spec import JobSpec
from contracts.types import ZERO_TIP
from market.runtime.context import Context
from market.runtime.loop import repeat
from market.runtime.settings import KEPT_ANSWERS, MarketSettings
from market.services.access import DAY, file_blobs
from market.services.blobs import blob_row
from market.services.jobs import job_status
from market.store.columns import now
from market.store.models import (
    AnswerRow,
    BidRow,
    BlobRow,
    ChainBlock,
    ChainEvent,
    CheckpointRow,
    LeaseRow,
    ReplacedClaimRow,
    UploadRow,
)
from market.store.queries.early_stop import early_stop
from market.store.queries.events import pages_of
from market.store.queries.leases import state_now
from market.store.queries.rule_sets import known_rules
from market.store.queries.rulings import unreproducible_jobs
from market.store.unreadable import BROKEN

MARGIN_SECONDS = 3600  # for clocks that differ, and blocks that a reorganisation takes back
STALE_SECONDS = 6 * 3600.0  # after which an upload that gets no more bytes is given up
AT_ONCE = 500  # jobs that are read, or blobs that are dropped, in one go

log = structlog.get_logger()


# ------------------------------------------------------------------ the decision


@dataclass(frozen=True)
class Keep:
    """How long blobs are kept, in seconds."""

    unused: float
    files: float
    checkpoints: float
    result: float

    @classmethod
    def of(cls, settings: MarketSettings) -> "Keep":
        return cls(
            unused=settings.keep_unused_hours * 3600,
            files=settings.keep_days * DAY,
            checkpoints=settings.keep_checkpoint_days * DAY,
            result=settings.keep_result_days * DAY,
        )


@dataclass(frozen=True)
class JobBlobs:
    """A job's blobs, by name."""

    over: float | None  # since when nothing more can happen to it, in UTC seconds; None while something can
    files: set[str] = field(default_factory=set)  # the state it started from among them
    states: set[str] = field(default_factory=set)  # of all its checkpoints
    result: set[str] = field(default_factory=set)  # of the newest accepted one


def kept_until(stored: Mapping[str, float], jobs: Iterable[JobBlobs], keep: Keep) -> dict[str, float]:
    """UTC seconds by blob, infinite where nobody can tell yet. `stored`: when each was uploaded last. Pure."""
    until = {blob: at + keep.unused for blob, at in stored.items()}
    for job in jobs:
        for blobs, seconds in ((job.files, keep.files), (job.states, keep.checkpoints), (job.result, keep.result)):
            end = math.inf if job.over is None else job.over + seconds
            for blob in blobs:
                until[blob] = max(until.get(blob, end), end)
    return until


# ------------------------------------------------------------------ what the database says


def unneeded(session: Session, keep: Keep, now: float) -> set[str]:
    """Blobs that are listed, and that nobody needs at `now` (UTC seconds)."""
    listed = stored(session)
    until = kept_until(listed, jobs(session, int(now)), keep)
    return {blob for blob in listed if until[blob] < now}


def needed_blobs(session: Session, keep: Keep) -> set[str]:
    """Blobs of jobs that must be there now."""
    # As a market tells the time that follows the chain; a devnet's can be ahead.
    now = max(time.time(), session.exec(select(func.max(ChainBlock.timestamp))).one() or 0)
    return {blob for blob, until in kept_until({}, jobs(session, int(now)), keep).items() if until >= now}


def stored(session: Session) -> dict[str, float]:
    """When each listed blob was uploaded last, in UTC seconds."""
    found = {row.sha256: row.created.timestamp() for row in session.exec(select(BlobRow))}
    for upload in session.exec(select(UploadRow)):
        if upload.sha256 in found:
            found[upload.sha256] = max(found[upload.sha256], upload.received.timestamp())
    return found


def jobs(session: Session, now: int) -> Iterator[JobBlobs]:
    """All jobs with their blobs."""
    # Time in which a challenge of the last checkpoint may come, and be ruled on.
    known = known_rules(session)
    settling = {hash: one.rules.window + one.rules.arbiter_timeout + MARGIN_SECONDS for hash, one in known.items()}
    ending = {hash for hash, one in known.items() if one.ends_unreproducible}
    ids = session.exec(select(BidRow.id)).all()
    for at in range(0, len(ids), AT_ONCE):
        rows = session.exec(select(BidRow).where(col(BidRow.id).in_(ids[at : at + AT_ONCE]))).all()
        leases: dict[str, list[LeaseRow]] = {row.id: [] for row in rows}
        in_order = select(LeaseRow).order_by(col(LeaseRow.opened_block), col(LeaseRow.start))
        for lease in session.exec(in_order.where(col(LeaseRow.bid).in_(list(leases)))):
            leases[lease.bid].append(lease)
        pages = pages_of(session, {row.client for row in rows})
        unlike = unreproducible_jobs(session, leases, ending)
        for row in rows:
            try:
                over = _over(session, row, leases[row.id], pages.get(row.client, 0), now, row.id in unlike)
            except BROKEN:
                over = None  # its row can't be read, so nobody can tell
            over = None if over is None else over + settling.get(row.rules, MARGIN_SECONDS)
            yield _job_blobs(session, row, leases[row.id], over, now)


def _over(
    session: Session, job: BidRow, leases: list[LeaseRow], page: int, now: int, is_unreproducible: bool
) -> float | None:
    """When a job's last event was; None while it may go on."""
    stopped = early_stop(session, JobSpec.model_validate(job.spec).stop, leases, now)
    status, _ = job_status(job, leases, page, now, stopped, is_unreproducible)
    if status is JobStatus.PENDING or any(lease.finished is None for lease in leases):
        return None
    last = select(func.max(ChainEvent.timestamp))
    if leases:
        last = last.where(col(ChainEvent.lease).in_([lease.id for lease in leases]))
    else:
        last = last.where(ChainEvent.account == job.client, ChainEvent.name == "PageRaised")
    ends = [job.received.timestamp(), float(session.exec(last).one() or 0)]
    if status is JobStatus.EXPIRED:
        ends.append(job.valid_until)
    return max(ends)


def _job_blobs(session: Session, job: BidRow, leases: list[LeaseRow], over: float | None, now: int) -> JobBlobs:
    files = file_blobs(job)
    if job.start_tip != ZERO_TIP:
        files |= set(session.exec(select(CheckpointRow.blob).where(CheckpointRow.tip == job.start_tip)))
    accepted = max((state_now(lease, now).accepted for lease in leases), default=0)
    states, result = set(), set()
    columns = select(CheckpointRow.lease, CheckpointRow.n, CheckpointRow.blob)
    made_newest = next((lease.id for lease in reversed(leases) if lease.start < accepted), None)
    for lease, n, blob in session.exec(columns.where(CheckpointRow.bid == job.id)):
        states.add(blob)
        if (lease, n) == (made_newest, accepted):
            result.add(blob)
    # What was replaced comes back only while its lease lasts.
    live = [lease.id for lease in leases if lease.finished is None]
    states |= set(session.exec(select(ReplacedClaimRow.blob).where(col(ReplacedClaimRow.lease).in_(live))))
    return JobBlobs(over, files, states, result)


# ------------------------------------------------------------------ collecting


def run_retention(context: Context, stop: threading.Event) -> None:
    """One look every `collect_seconds` until `stop`."""
    repeat(context, "retention", _one_round, stop, context.settings.collect_seconds)


def _one_round(context: Context) -> None:
    forget_answers(context)
    collect(context)


def forget_answers(context: Context) -> None:
    with context.leading() as session:
        session.exec(delete(AnswerRow).where(col(AnswerRow.received) < now() - KEPT_ANSWERS))


def collect(context: Context) -> list[str]:
    """Remove the blobs that nobody needs. Returns their names."""
    context.blobs.clear_incoming(STALE_SECONDS)
    _list_strays(context)
    keep, dropped = Keep.of(context.settings), []
    with context.db.reading() as session:
        found = sorted(unneeded(session, keep, context.now()))
    for at in range(0, len(found), AT_ONCE):
        # Looked at again, since here nobody else writes: a blob that was uploaded or named meanwhile stays. And the
        # files go before the session ends: an upload that brings one back can only come after it.
        with context.db.session() as session:
            batch = sorted(unneeded(session, keep, context.now()) & set(found[at : at + AT_ONCE]))
            if batch:
                context.accept(session, "collected", {"sha256": batch})
            for sha256 in batch:
                context.metrics.collected.inc(context.blobs.size(sha256) or 0)
                context.blobs.drop(sha256)
            dropped += batch
    if dropped:
        log.info("retention.collected", blobs=len(dropped))
    return dropped


def _list_strays(context: Context) -> None:
    """Blobs that a market was killed over before it listed them: from now on they are uploads like others."""
    with context.db.reading() as session:
        listed = set(session.exec(select(BlobRow.sha256)))
    strays = [sha256 for sha256, _ in context.blobs.all() if sha256 not in listed]
    if strays:
        with context.db.session() as session:
            for sha256 in strays:
                size = context.blobs.size(sha256)
                if size is not None:
                    session.merge(blob_row(context.blobs, sha256, size))
