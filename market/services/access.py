"""Who may read a job's blobs and logs, and who may upload. docs/access.md says it in words."""

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, or_, select

from contracts.api.bodies import AuditorIn, AuditorOut
from contracts.api.problems import Code, Problem
from contracts.chain.arbiter import OperatorArbiter
from contracts.chain.events import Challenged
from contracts.terms import Phase
from contracts.types import ZERO_TIP
from market.runtime.context import Context
from market.services.jobs import find_job
from market.services.signatures import check_signed
from market.store.models import AuditorRow, BidRow, ChainEvent, CheckpointRow, LeaseRow, UploadRow

DAY = 86_400  # seconds
OPERATOR_SECONDS = 600  # for which it is believed who operates an arbiter


@dataclass(frozen=True)
class Reader:
    """What an account may read of a job."""

    job: BidRow
    account: str
    all_logs: bool  # else those of its own leases
    all_checkpoints: bool  # else its own, and those up to index `until`
    until: int = 0


def reader_of(context: Context, job: str, account: str) -> Reader:
    """As find_reader; while a checkpoint of the job is challenged, so may who operates the arbiter. Never call it
    inside a database session.
    """
    with context.db.reading() as session:
        try:
            return find_reader(context, session, job, account)
        except Problem as problem:
            row, arbiters, refusal = find_job(session, job), _asked_arbiters(session, job), problem
    if any(_operator(context, arbiter) == account for arbiter in arbiters):
        return Reader(row, account, all_logs=True, all_checkpoints=True)
    raise refusal


def _asked_arbiters(session: Session, job: str) -> set[str]:
    """Those that questions of this job wait for, by the chain as it was followed."""
    challenged = select(ChainEvent).join(LeaseRow, col(LeaseRow.id) == ChainEvent.lease)
    challenged = challenged.where(LeaseRow.bid == job, col(LeaseRow.status).op("&")(7) == Phase.CHALLENGED)
    rows = session.exec(challenged.where(ChainEvent.name == Challenged.__name__)).all()
    return {row.data["arbiter"] for row in rows}


def _operator(context: Context, arbiter: str) -> str | None:
    """Who decides there, by the chain; None where that is no one person."""
    known = context.operators.get(arbiter)
    if known is None or known[0] < time.monotonic():
        found = OperatorArbiter(context.chain, arbiter).operator()
        known = context.operators[arbiter] = (time.monotonic() + OPERATOR_SECONDS, found)
    return known[1]


def find_reader(context: Context, session: Session, job: str, account: str) -> Reader:
    """Raises Problem(not_a_reader), and Problem(not_found) if there is no such job."""
    row = find_job(session, job)
    rules = context.rules_by_hash.get(row.rules)
    if account in (row.client, row.approver, rules.rules.arbiter if rules else None):
        return Reader(row, account, all_logs=True, all_checkpoints=True)
    grant = session.get(AuditorRow, (job, account))
    if grant is not None and grant.valid_until >= context.now():
        return Reader(row, account, all_logs=True, all_checkpoints=True)
    leases = session.exec(select(LeaseRow).where(LeaseRow.bid == job, LeaseRow.provider == account)).all()
    if any(lease.finished is None for lease in leases):
        return Reader(row, account, all_logs=False, all_checkpoints=True)
    past = [lease for lease in leases if context.now() <= _ended(session, lease) + context.settings.keep_days * DAY]
    if past:
        # What it made, and what it went on from: with that it can show that it worked honestly.
        return Reader(row, account, all_logs=False, all_checkpoints=False, until=max(lease.start for lease in past))
    raise Problem(
        403,
        Code.NOT_A_READER,
        f"{account} may not read the files, checkpoints and logs of job {job}",
        f"Its client, approver, arbiter and providers may, and auditors that the client {row.client} names: "
        f"gpumarket job auditor {job[:12]} {account}",
    )


def named_by(context: Context, account: str) -> ColumnElement[bool]:
    """Which jobs' files and checkpoints an account's Bids may name: as it is client, approver or auditor."""
    granted = select(AuditorRow.bid).where(AuditorRow.auditor == account, AuditorRow.valid_until >= context.now())
    return or_(BidRow.client == account, BidRow.approver == account, col(BidRow.id).in_(granted))


def _ended(session: Session, lease: LeaseRow) -> int:
    """When a lease's last event was, in UTC seconds."""
    return session.exec(select(func.max(ChainEvent.timestamp)).where(ChainEvent.lease == lease.id)).one() or 0


def check_readable(session: Session, reader: Reader, sha256: str) -> None:
    """Raises Problem(not_found) if the blob is not of the reader's job, or of a part of it that it may not read."""
    job = reader.job
    if sha256 in file_blobs(job):
        return
    states = select(CheckpointRow).where(CheckpointRow.blob == sha256)
    mine = states.where(CheckpointRow.bid == job.id)
    if not reader.all_checkpoints:
        mine = mine.where(or_(CheckpointRow.provider == reader.account, col(CheckpointRow.n) <= reader.until))
    if session.exec(mine).first() is not None:
        return
    # That its client may read it was seen when the Bid came.
    if job.start_tip != ZERO_TIP and session.exec(states.where(CheckpointRow.tip == job.start_tip)).first() is not None:
        return
    raise Problem(
        404,
        Code.NOT_FOUND,
        f"blob {sha256} is not one of job {job.id} that {reader.account} may read",
        "Providers of the past may read the files, what they made themselves, and the state they started from.",
    )


def file_blobs(job: BidRow) -> set[str]:
    """The blobs of a job's files. Those with an address are fetched there, and nobody has shown us their bytes."""
    if job.spec.get("sealed"):
        return {ref["sha256"] for ref in job.sealed_files.values()}
    return {file["sha256"] for file in job.spec["files"].values() if not file.get("url")}


def may_write(context: Context, account: str) -> bool:
    """Whether an account has something at stake: a free balance, or a live lease in any role."""
    with context.db.reading() as session:
        live = select(LeaseRow.id).where(
            col(LeaseRow.finished).is_(None),
            or_(LeaseRow.client == account, LeaseRow.provider == account, LeaseRow.approver == account),
        )
        if session.exec(live).first() is not None:
            return True
    return context.account(account).free > 0


def not_a_writer(account: str) -> Problem:
    return Problem(
        403,
        Code.NOT_A_WRITER,
        f"{account} may not upload: it has no deposit in the escrow and no live lease",
        f"With the key of {account}: gpumarket wallet deposit AMOUNT",
    )


def has_uploaded(session: Session, sha256: str, account: str) -> bool:
    return session.get(UploadRow, (sha256, account)) is not None


def name_auditor(context: Context, job: str, body: AuditorIn) -> AuditorOut:
    """Store a client's grant. It can't be taken back: only the longest one of an auditor counts."""
    grant = body.grant
    with context.db.reading() as session:
        row = find_job(session, job)
    if grant.job != job:
        raise Problem(422, Code.JOB_MISMATCH, f"the AuditorGrant is for job {grant.job}, but was sent to {job}")
    if grant.valid_until < context.now():
        raise Problem(
            422,
            Code.ORDER_EXPIRED,
            f"the AuditorGrant was valid until {grant.valid_until}, and it is {context.now()} now (UTC seconds)",
            "Sign a new one with a later validUntil.",
        )
    otherwise = f"the AuditorGrant is not signed by the client {row.client} of job {job}"
    body = check_signed(context, body, grant, row.client, otherwise)
    with context.db.session() as session:
        standing: AuditorRow = context.accept(session, "auditor", body)
    return AuditorOut(job=job, auditor=standing.auditor, valid_until=standing.valid_until)
