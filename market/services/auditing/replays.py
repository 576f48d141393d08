"""Bids that train a checkpoint of another job again: by its approver, or by an auditor that its client has named."""

from collections.abc import Collection

from sqlmodel import Session, col, select

from contracts.api.bodies import BidIn
from contracts.api.problems import Code, Problem
from market.runtime.context import Context
from market.services.access import file_blobs, named_by
from market.store.models import BidRow, CheckpointRow, KeyGrantRow

MOST_JOBS = 2_000  # with the same files that are looked through: only of sealed ones it is not the first


def find_start(context: Context, session: Session, body: BidIn) -> CheckpointRow | None:
    """The checkpoint with the Bid's startTip, if its client may name it; where it is a replay of the first checkpoint
    of a job that goes on from there, whoever's that is. Raises Problem for one of another's sealed job.
    """
    bid, readable = body.bid, named_by(context, body.bid.client)
    with_tip = select(CheckpointRow, BidRow).join(BidRow, col(BidRow.id) == CheckpointRow.bid)
    with_tip = with_tip.where(CheckpointRow.tip == bid.start_tip).order_by((col(BidRow.client) != bid.client).asc())
    if found := session.exec(with_tip.where(readable)).first():
        checkpoint, job = found
        _check_sealed(session, body, job)
        return checkpoint
    same = select(BidRow).where(
        readable, BidRow.start_tip == bid.start_tip, BidRow.files == body.spec.files_hash(),
        BidRow.sealed == body.spec.sealed,
    )  # fmt: skip
    audited, found = session.exec(same).first(), session.exec(with_tip).first()
    if audited is None or found is None:
        return None
    _check_sealed(session, body, audited)
    return found[0]


def shares_files(context: Context, session: Session, body: BidIn, blobs: Collection[str]) -> bool:
    """Whether these are blobs of a job with the same files that the Bid's client may read."""
    same = select(BidRow).where(
        named_by(context, body.bid.client), BidRow.files == body.spec.files_hash(), BidRow.sealed == body.spec.sealed
    )
    for job in session.exec(same.limit(MOST_JOBS)):
        if file_blobs(job).issuperset(blobs):
            _check_sealed(session, body, job)
            return True
    return False


def _check_sealed(session: Session, body: BidIn, job: BidRow) -> None:
    """What is sealed goes to nobody whom its client has not given the key. Raises Problem."""
    if job.client == body.bid.client:
        return
    if job.sealed and not body.spec.sealed:
        raise _refused(f"job {job.id} is sealed, and the Bid's is not: nobody could go on from there")
    if not job.sealed:
        return
    named = body.spec.resources.providers
    granted = set(
        session.exec(
            select(KeyGrantRow.reader).where(
                KeyGrantRow.bid == job.id, KeyGrantRow.signer == job.client, col(KeyGrantRow.reader).in_(named)
            )
        )
    )
    if not named or (without := [one for one in named if one not in granted]):
        who = f"{without[0]} has no key to it from its client {job.client}" if named else "the Bid names no providers"
        raise _refused(f"job {job.id} is sealed, and only those may train it again whom its client lets: {who}")


def _refused(detail: str) -> Problem:
    return Problem(
        422,
        Code.JOB_MISMATCH,
        detail,
        "Replay it on a machine of your own: gpumarket replay. Or name in resources.providers whom the client has "
        "given the key: gpumarket job grant.",
    )
