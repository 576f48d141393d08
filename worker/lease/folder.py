"""The agent's durable state: a folder for each lease, from which a restart goes on.

    home()/provider/KEY/provider.toml, agent.json, agent.lock
                      leases/0x.../lease.json           terms, and how far it has come
                                   job/                 the job's files
                                   start.safetensors    the state that the lease starts from
                                   work/                checkpoints with their traces and records, the log
                      over/0x....json                   leases that are over and collected
                      fetched/0x...                     jobs' files from the web

Every file is replaced atomically. Checkpoint n exists from the moment its record does.
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import structlog
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from contracts.api.auditing.notes import AuditNoteOut
from contracts.api.bodies import ApprovalIn, CheckpointRecord, KeyGrantIn
from contracts.audits.verification import Verification
from contracts.chain.events import Opened, Place
from contracts.errors import UserError, first_sentence
from contracts.job.spec import JobSpec
from contracts.orders import Bid, ReportKind, Rules
from contracts.strict_json import read_json, write_json
from contracts.terms import Nums, Parties, Terms
from worker.files import provider_folder, write_atomically
from worker.training.checkpoints import checkpoint_name

LEASE_FILE = "lease.json"
STATE_FILE = "agent.json"

# training: making checkpoints. finished: all are made. releasing: stops early, `reason` says why. over: nothing left.
Goal = Literal["training", "finished", "releasing", "over"]

log = structlog.get_logger()


class Job(BaseModel):
    """What the market says about a lease, after it has been verified against the chain."""

    model_config = ConfigDict(frozen=True)

    bid: Bid
    spec: JobSpec
    rules: Rules
    verification: Verification | None = None  # that the rules commit to; None: nothing is promised


class LeaseFile(BaseModel):
    """lease.json. Indices are absolute, as on chain."""

    provider: str
    nums: Nums
    parties: Parties
    tip: str  # at the lease's start
    opened_block: int
    opened_time: int
    ask: str = ""  # that it was opened by; not in files of former versions
    job: Job | None = None
    grant: KeyGrantIn | None = None  # of a sealed job's key to this provider
    goal: Goal = "training"
    reason: str = ""
    base: int  # the checkpoint that this machine went on from: the lease's start, or later if the folder was lost
    base_tip: str
    rehearsed: bool = False  # its first steps were tried twice, or there was no time for that
    made: int
    reported: int  # to the market
    approval: ApprovalIn | None = None  # the newest
    commitment: AuditNoteOut | None = None  # the approver's, to what it draws; signed before the first Claim
    rejected: int | None = None  # the first checkpoint that the approver refused
    accepted: int  # on chain, as last seen
    settled: int
    stops: ReportKind = "release"  # what kind of `reason` it is
    details: str = ""  # the reason for the job's readers, with the recipe's lines; of a sealed job it is sealed
    told: bool = False  # market and approver know that it releases
    releasing_since: float | None = None  # UTC seconds
    penalty: int = 0
    verdict: str = ""  # the arbiter's newest, in a word
    vanished: bool = False  # over because the chain knew nothing of it any more; it may come again
    over_since: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_before(cls, stored: Any) -> Any:
        """There was one kind of reason that had to be told apart."""
        if isinstance(stored, dict) and stored.pop("failed", False):
            stored["stops"] = "failed"
        return stored

    @property
    def terms(self) -> Terms:
        return Terms(self.provider, self.nums, self.parties)

    def as_event(self, lease: str) -> Opened:
        """What opened the lease, as far as it was kept."""
        place = Place(self.opened_block, "", 0, "", self.opened_time)
        return Opened(place, lease, self.provider, self.parties.client, "", self.terms, self.tip)

    @property
    def approved(self) -> int:
        """The highest index that the approver has accepted, on chain or off."""
        return max(self.accepted, self.approval.approval.n if self.approval else 0)

    @property
    def audits(self) -> Verification | None:
        """How its checkpoints are audited; None if they are not, or while its job is not known yet."""
        known = self.job.verification if self.job else None
        return known if known and known.level != "unchecked" else None

    @property
    def full(self) -> bool:
        """Whether as many checkpoints are made and not judged as the rules say: then training waits."""
        return self.audits is not None and self.made - self.approved >= self.audits.approve_every

    @property
    def awaits_commitment(self) -> bool:
        """Whether the approver could still choose what it draws: then nothing is claimed."""
        return self.audits is not None and self.commitment is None

    @property
    def waits(self) -> str:
        """What it can't go on without, in words; empty if nothing."""
        if self.goal in ("releasing", "over"):
            return ""
        if self.awaits_commitment:
            return "waits for the approver's commitment"
        return f"waits for the approver: {self.made - self.approved} checkpoints are not judged" if self.full else ""

    @property
    def failed(self) -> bool:
        """Releases because the next checkpoint can't be made."""
        return self.stops == "failed"

    @property
    def earned(self) -> int:
        return (self.settled - self.nums.start) * self.nums.price


class LeaseFolder:
    """One lease's folder. Methods may be called from any thread."""

    def __init__(self, folder: Path, file: LeaseFile) -> None:
        self.folder = folder
        self._file = file
        self._lock = threading.RLock()

    @property
    def lease(self) -> str:
        return self.folder.name

    @property
    def file(self) -> LeaseFile:
        """How things stand; a snapshot, never changed in place."""
        return self._file

    @property
    def job_folder(self) -> Path:
        return self.folder / "job"

    @property
    def work_folder(self) -> Path:
        return self.folder / "work"

    @property
    def printed(self) -> Path:
        """What the recipe has printed, as far as the market has not been told."""
        return self.work_folder / "untold.log"

    @property
    def start_state(self) -> Path:
        return self.folder / "start.safetensors"

    @property
    def rehearsal_folder(self) -> Path:
        """Of the first steps that are tried twice: states in plain, even a sealed job's."""
        return self.folder / "rehearsal"

    @property
    def cache_folder(self) -> Path:
        """What all leases of the key share: files from the web, by their hash."""
        return self.folder.parent.parent / "fetched"

    def update(self, **changes: Any) -> LeaseFile:
        """Changes fields of lease.json; they are on disk when this returns."""
        with self._lock:
            changed = self._file.model_copy(update=changes)
            if changed != self._file:
                write_atomically(self.folder / LEASE_FILE, changed.model_dump_json(indent=1).encode())
                self._file = changed
            return changed

    def release(self, reason: str, since: float, stops: ReportKind = "release", details: str = "") -> None:
        """Sets the goal to stop early, unless another reason came first. `since` 0: don't wait for the approver."""
        with self._lock:
            if self._file.goal in ("training", "finished"):
                self.update(goal="releasing", reason=reason, details=details, stops=stops, releasing_since=since)

    # ------------------------------------------------------------- checkpoints

    def add_checkpoint(self, record: CheckpointRecord) -> None:
        """Its files are in the work folder already; from now on it is made."""
        with self._lock:
            write_atomically(self._record_path(record.index), record.model_dump_json().encode())
            self.update(made=record.index)

    def checkpoint(self, index: int) -> CheckpointRecord:
        return CheckpointRecord.model_validate_json(self._record_path(index).read_bytes())

    def made_at(self, index: int) -> float:
        """UTC seconds."""
        return self._record_path(index).stat().st_mtime

    def state_path(self, index: int) -> Path:
        """The state after checkpoint `index`; that of the base for the base's index."""
        if index == self._file.base:
            return self.start_state
        return self.work_folder / checkpoint_name(index)

    def sealed_path(self, record: CheckpointRecord) -> Path:
        """Of a checkpoint's ciphertext until the market has it. By its content: one may be made anew."""
        return self.work_folder / f"sealed-{record.state.sha256[2:18]}.safetensors"

    def tip(self, index: int) -> str:
        """The chain of tips at `index`, which is at least the base's and at most the newest made."""
        if index == self._file.nums.start:
            return self._file.tip
        return self._file.base_tip if index == self._file.base else self.checkpoint(index).tip

    def knows_tip(self, index: int) -> bool:
        return index == self._file.nums.start or self._file.base <= index <= self._file.made

    def roots(self, after: int, until: int) -> list[str]:
        return [self.checkpoint(index).root for index in range(after + 1, until + 1)]

    def note_reported(self, index: int) -> None:
        """The market has checkpoint `index`, unless training has gone back to an earlier one meanwhile, or on from
        another one.
        """
        with self._lock:
            self.update(reported=max(self._file.base, min(index, self._file.made)))

    def go_on_from(self, said: ApprovalIn) -> None:
        """Another Claim than of what is here is approved: that one is paid, and what comes next is built on it.

        Its state comes from the market, as when a folder was lost.
        """
        n, goal = said.approval.n, self._file.goal
        with self._lock:
            if goal in ("training", "finished"):
                goal = "finished" if n == self._file.nums.end else "training"
            self.update(approval=said, base=n, base_tip=said.approval.tip, made=n, reported=n, rejected=None, goal=goal)
            for path in self.work_folder.glob("*.safetensors*"):
                path.unlink(missing_ok=True)

    def step_back(self, index: int) -> None:
        """Forgets the checkpoints after `index`: their files turned out to be damaged."""
        with self._lock:
            self.update(made=index, reported=min(index, self._file.reported))

    def drop_old_states(self) -> None:
        """Deletes the states that neither a resume nor the market needs. Traces and records stay."""
        file = self._file
        spare = min(file.made - 1, file.reported, file.accepted)
        for index in range(spare, file.base, -1):
            path = self.state_path(index)
            if not path.exists():
                return
            path.unlink()

    def _record_path(self, index: int) -> Path:
        return self.work_folder / checkpoint_name(index).replace(".safetensors", ".json")

    # ------------------------------------------------------------- afterwards

    def drop_bulk(self) -> None:
        """When the lease is over: keeps the traces and the records, for whoever may still ask."""
        folders = [path for path in self.work_folder.glob("*/") if not path.is_symlink()]  # a killed process's output
        for folder in (self.job_folder, self.rehearsal_folder, *folders):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.start_state, *self.work_folder.glob("*.safetensors*")):
            path.unlink(missing_ok=True)

    def drop_rehearsal(self) -> None:
        """What a rehearsal has left whose process was killed, or that is not done again."""
        shutil.rmtree(self.rehearsal_folder, ignore_errors=True)


class Store:
    """All that one provider key's agent keeps on disk."""

    def __init__(self, key: str) -> None:
        self.folder = provider_folder(key)
        self._leases = self.folder / "leases"
        self._over = self.folder / "over"
        self._writing = threading.Lock()
        self._leases.mkdir(parents=True, exist_ok=True, mode=0o700)

    def leases(self) -> Iterator[LeaseFolder]:
        """Those that are not collected yet, oldest first."""
        found = (self.load(path.name) for path in sorted(self._leases.iterdir()) if (path / LEASE_FILE).exists())
        yield from sorted((lease for lease in found if lease), key=lambda lease: lease.file.opened_time)

    def load(self, lease: str) -> LeaseFolder | None:
        """The lease's folder; None if there is none. Raises UserError if it can't be read."""
        path = self._leases / lease / LEASE_FILE
        try:
            return LeaseFolder(path.parent, LeaseFile.model_validate_json(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise UserError(
                f"can't read {path}: {str(error).splitlines()[0]}",
                "if it is beyond repair, move the lease's folder away: the agent then goes on from the chain's state",
            ) from error

    def create(self, lease: str, file: LeaseFile) -> LeaseFolder:
        folder = LeaseFolder(self._leases / lease, file)
        for path in (folder.job_folder, folder.work_folder):
            path.mkdir(parents=True, exist_ok=True)
        write_atomically(folder.folder / LEASE_FILE, file.model_dump_json(indent=1).encode())
        return folder

    def collect(self, folder: LeaseFolder) -> None:
        """Deletes the folder of a lease that is over; its lease.json stays, for the totals."""
        self._over.mkdir(exist_ok=True)
        write_atomically(self._over / f"{folder.lease}.json", folder.file.model_dump_json().encode())
        shutil.rmtree(folder.folder)

    def is_over(self, lease: str) -> bool:
        return (self._over / f"{lease}.json").exists()

    def ended(self) -> Iterator[tuple[str, LeaseFile]]:
        """Leases that are over and collected. A file that can't be read is left out, and named in the log."""
        for path in sorted(self._over.glob("0x*.json")):
            try:
                file = LeaseFile.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                log.warning(
                    "lease.unreadable_file", path=str(path), problem=first_sentence(error),
                    hint="the sums of `provider status` are without it, those of `provider earnings` have it from the "
                    "chain; take the file from a backup, or move it away",
                )  # fmt: skip
            else:
                yield path.stem, file

    def lock(self) -> FileLock:
        """Held by the key's agent while it runs."""
        return FileLock(self.folder / "agent.lock")

    def is_running(self) -> bool:
        """Whether an agent works with this key."""
        lock = self.lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def used_bytes(self) -> int:
        """Disk space of all folders."""
        total = 0
        for folder, _, files in os.walk(self.folder):
            for name in files:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
        return total

    # ------------------------------------------------------------- the agent's own

    def read_state(self) -> dict[str, Any]:
        """Small facts of the agent itself: `followed` (block), the newest `ask`."""
        try:
            state: dict[str, Any] = read_json((self.folder / STATE_FILE).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def write_state(self, **changes: Any) -> None:
        with self._writing:
            write_atomically(self.folder / STATE_FILE, write_json(self.read_state() | changes).encode())
