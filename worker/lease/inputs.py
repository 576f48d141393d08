"""What a lease needs on disk before it can train: the job's files, and the state to go on from. All of it verified."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from contracts.api.bodies import CheckpointRecord, CheckpointStatus
from contracts.api.client import MarketClient
from contracts.api.grants import get_sealed, get_state
from contracts.api.records import tip_after
from contracts.commitment import start_tip
from contracts.errors import UserError
from contracts.job.file import hash_file
from contracts.job.sealing import sealed_size
from contracts.job.spec import FileRef, JobSpec, check_path
from contracts.orders import Bid
from contracts.statefile import check_state_file, file_state_root
from contracts.types import ZERO_TIP, from_hex, to_hex
from worker.lease.folder import Job, LeaseFolder
from worker.sandbox.hiding.disguise import make_timeless
from worker.training.checkpoints import checkpoint_state_root
from worker.training.failures import Failure

Web = Callable[[FileRef, Path], None]


class NoStartState(UserError):
    """The market has no state that the lease's tip on chain commits to."""


class BadStartState(Failure):
    """The file with the state to go on from is at fault: not the recipe, which has not seen it, nor this machine."""

    def __init__(self, message: str) -> None:
        super().__init__("state", message, "its client can submit the job anew")


def fetch_files(
    market: MarketClient, web: Web, spec: JobSpec, folder: Path, *, job: str, job_key: bytes | None = None
) -> None:
    """Downloads the files of `job` (the Bid's id) to their places below `folder`, but for those there already.

    From the market; a file that has a url from there, by `web(ref, target)`. Those of a sealed job are opened with its
    key. Raises UserError, or NotOpened, for what is not the file that the JobSpec says.
    """
    for name, ref in spec.files.items():
        target = folder / check_path(name)
        if not target.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"the job's file {name!r} would lie outside its folder")
        if not _is_there(target, ref):
            try:
                if ref.url:
                    web(ref, target)
                elif spec.sealed:
                    _fetch_sealed(market, name, ref, target, job, job_key)
                else:
                    market.get_blob(ref, target, job=job)
                # A recipe shall not learn from its files when or by whom they were fetched.
                make_timeless(target)
            except OSError as error:  # such as a file where another path needs a folder
                raise UserError(f"the job's file {name!r} can't be written: {error}") from error


def _fetch_sealed(market: MarketClient, name: str, ref: FileRef, target: Path, job: str, job_key: bytes | None) -> None:
    # Asked for each file anew, of which there are few: what the market says of it proves itself below.
    sealed = market.job(job).sealed_files.get(ref.sha256)
    if sealed is None or sealed.size != sealed_size(ref.size):
        raise UserError(f"the market has no ciphertext of the right size for the sealed job's file {name!r}")
    get_sealed(market, sealed, target, job=job, job_key=job_key)
    found = hash_file(target)
    if not found.same_bytes(ref):
        target.unlink()
        raise UserError(f"the ciphertext for {name!r} holds {found.size} bytes {found.sha256}, which the file is not")


def _is_there(path: Path, ref: FileRef) -> bool:
    return path.is_file() and path.stat().st_size == ref.size and hash_file(path).same_bytes(ref)


def fetch_start_state(
    market: MarketClient, folder: LeaseFolder, job: Job, disk_mb: int, job_key: bytes | None = None
) -> None:
    """Downloads the state that the lease's base commits to; nothing if the job starts afresh.

    Raises NoStartState if the market has no record with that tip, BadStartState if the bytes are not it, or are no
    state that anybody could load.
    """
    file = folder.file
    if file.base == 0 and job.bid.start_tip == ZERO_TIP:
        return
    if file.base == 0:
        record = record_of_earlier_job(market, job.bid)
    else:
        records = [out.checkpoint for out in market.checkpoints(file.parties.bid)]
        before = {to_hex(start_tip(job.spec.job_hash(), from_hex(job.bid.start_tip)))} if file.base == 1 else set()
        before |= {record.tip for record in records if record.index == file.base - 1}
        record = find_record(records, job.spec, file.base, file.base_tip, before)
    if record.stored.size > disk_mb << 20:
        raise UserError(f"the state to go on from has {record.stored.size >> 20} MB; {disk_mb} MB are allowed")
    fetch_state(market, record, folder.start_state, job=file.parties.bid, job_key=job_key)


def fetch_state(
    market: MarketClient, record: CheckpointRecord, target: Path, *, job: str, job_key: bytes | None = None
) -> None:
    """A checkpoint's state, checked against its record. Raises BadStartState if it is not that, or NotOpened."""
    try:
        if not is_state(target, record):
            get_state(market, record, target, job=job, job_key=job_key)
            root = to_hex(file_state_root(target))
            if root != record.state_root:
                raise ValueError(f"it has root {root}, not {record.state_root}")
        check_state_file(target)
    except ValueError as error:
        target.unlink(missing_ok=True)
        raise BadStartState(f"nobody can go on from checkpoint {record.index}: {error}") from error


def is_state(path: Path, record: CheckpointRecord) -> bool:
    """Whether the file is there and is the state that the record commits to."""
    try:
        return path.is_file() and to_hex(checkpoint_state_root(path)) == record.state_root
    except (Failure, OSError):
        return False


def find_record(
    records: Iterable[CheckpointRecord], spec: JobSpec, index: int, tip: str, before: Iterable[str]
) -> CheckpointRecord:
    """The record of checkpoint `index` that hashes to `tip`, on top of one of the tips `before` it.

    What a record says of its root and tip counts for nothing: they are computed from its parts.
    """
    previous = [from_hex(one) for one in before]
    for record in records:
        if record.index == index and any(tip_after(record, spec, one) == tip for one in previous):
            return record
    raise NoStartState(
        f"the market has no checkpoint {index} that leads to tip {tip}, which is the chain's",
        "its client or the provider before may still have it; without it nobody can go on",
    )


def record_of_earlier_job(market: MarketClient, bid: Bid) -> CheckpointRecord:
    """The checkpoint that a Bid with a startTip goes on from: of another job, whoever's. Raises NoStartState.

    The tip commits to it, so that it does not matter which job the market finds it in.
    """
    for other in market.jobs(tip=bid.start_tip):
        records = [out.checkpoint for out in market.checkpoints(other.id)]
        for last in (record for record in records if record.tip == bid.start_tip):
            spec = market.job(other.id).spec
            first = to_hex(start_tip(spec.job_hash(), from_hex(other.bid.start_tip)))
            before = {first} if last.index == 1 else {one.tip for one in records if one.index == last.index - 1}
            with suppress(NoStartState):
                return find_record(records, spec, last.index, last.tip, before)
    raise NoStartState(f"the Bid goes on from tip {bid.start_tip}, which no checkpoint here has")


def metrics_so_far(market: MarketClient, folder: LeaseFolder, spec: JobSpec) -> list[dict[str, float]]:
    """Of checkpoints 1 .. made: this machine's own, and those before its base as the market has them.

    Empty for jobs without `stop`. No tip commits to a record's metrics; a market that forges them can only end the
    job early or late, and it could as well not match it.
    """
    if spec.stop is None:
        return []
    file = folder.file
    own = {index: folder.checkpoint(index).metrics for index in range(file.base + 1, file.made + 1)}
    if file.base:
        for out in market.checkpoints(file.parties.bid):
            if out.status is CheckpointStatus.APPROVED and out.checkpoint.index <= file.base:
                own[out.checkpoint.index] = out.checkpoint.metrics
    return [own.get(index, {}) for index in range(1, file.made + 1)]
