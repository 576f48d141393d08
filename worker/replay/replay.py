"""A claimed checkpoint, looked at: `validate` whether all hashes are consistent, `verify` whether training gives it.

    with MarketClient(url) as market:
        reading = reader(settings, market, job, key)
        found = Replayer(market, job, domain, is_signed, reading.job_key, folder, ReplayOptions()).verify(3)

docs/replay.md says what each verdict means.
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from contracts.api.bodies import CheckpointOut, CheckpointRecord, JobOut
from contracts.api.client import MarketClient, Unreachable
from contracts.api.grants import Check as SignatureCheck
from contracts.api.grants import get_state
from contracts.commitment import trace_root
from contracts.errors import UserError
from contracts.job.file import hash_file
from contracts.orders import Domain
from contracts.statefile import check_state_file, file_state_root
from contracts.types import to_hex
from worker.downloading.downloads import Cache
from worker.lease.inputs import BadStartState, fetch_files, fetch_state
from worker.replay.claims import Claims, TipOnChain
from worker.replay.differences import find_difference
from worker.replay.findings import Check, Mode, NotHere, ReplayFindings, Verdict, Withheld, unlike_numerics
from worker.replay.stretch import ReplayOptions, rerun
from worker.sandbox.rehearsal import OF_THE_RECIPE
from worker.training.checkpoints import DIGEST_BYTES, read_trace
from worker.training.failures import Failure

T = TypeVar("T")


class Replayer:
    """Of one job, for somebody who may read it. What is fetched and made lies in `folder`."""

    def __init__(
        self,
        market: MarketClient,
        job: JobOut,
        domain: Domain,
        is_signed: SignatureCheck,
        job_key: bytes | None,
        folder: Path,
        options: ReplayOptions,
        tip_on_chain: TipOnChain = lambda index: None,
    ) -> None:
        """`market` signs its requests with a key that may read the job; `job_key` opens a sealed one. Of several claims
        of a checkpoint that one is looked at which `tip_on_chain` tells.
        """
        self.job = job
        self._market, self._domain, self._is_signed = market, domain, is_signed
        self._job_key, self._folder, self._options = job_key, folder, options
        self._claims = Claims(market, job, tip_on_chain)

    def claim(self, index: int, tip: str | None = None) -> CheckpointOut:
        """The one that is looked at. Raises UserError."""
        return self._claims.choose(index, tip)

    def earlier(self, claim: CheckpointOut) -> list[CheckpointOut]:
        """The claims that it follows on, newest first."""
        return self._claims.earlier(claim)

    def fetch_job(self) -> None:
        """The job's files, opened with its key. Raises Withheld."""
        self._fetch_files()

    def fetch_claimed(self, claim: CheckpointOut) -> Path:
        """The claimed state, nothing else. Raises Withheld, from what was the matter; ValueError if it is not what the
        claim commits to, or nobody could go on from it.
        """
        record, path = claim.checkpoint, self._folder / "claimed.safetensors"
        self._had("the claimed state", partial(self._claimed_state, record, path))
        if (root := to_hex(file_state_root(path))) != record.state_root:
            raise ValueError(f"the state's root is {root}, claimed {record.state_root}")
        check_state_file(path)
        return path

    def validate(self, index: int, tip: str | None = None, trace: Path | None = None) -> ReplayFindings:
        """Fetches what belongs to a claimed checkpoint, and compares all hashes. Trains nothing.

        `tip`: how the claim's begins, if there are several; `trace`: the claimed steps' digests, where somebody has
        them. Raises Unreachable, and UserError for a checkpoint that nobody has claimed.
        """
        found = self._begin("validate", index, tip, trace)
        try:
            self._fetch_files()
            path = self._folder / "claimed.safetensors"
            self._had(f"the state of checkpoint {index}", partial(self._claimed_state, found.claim.checkpoint, path))
        except Withheld as error:
            return found.conclude("withheld", error.message, error.hint)
        found.checks += self._check_state(found.claim.checkpoint, path)
        return _concluded(found)

    def verify(self, index: int, tip: str | None = None, trace: Path | None = None) -> ReplayFindings:
        """Trains the stretch that leads to a claimed checkpoint, and compares. Options and errors as above."""
        found = self._begin("verify", index, tip, trace)
        if found.verdict == "inconsistent":
            return found
        record = found.claim.checkpoint
        try:
            before, state = self._fetch_start(found.claim)
            mine, taken = rerun(self.job.spec, found.claim, before, state, self._folder, self._options)
        except Withheld as error:
            return found.conclude("withheld", error.message, error.hint)
        except NotHere as error:
            return found.conclude("not_here", error.message, error.hint)
        except Failure as failure:
            verdict: Verdict = "not_here" if failure.kind == "machine" else "failed"
            found.spoiled = failure.kind in OF_THE_RECIPE and self._trains_at_first(found.claim)
            return found.conclude(verdict, f"{failure.message} ({failure.kind})", failure.hint)
        found.rerun = mine
        for name, theirs, ours in (
            ("state_root", record.state_root, mine.state_root),
            ("trace_root", record.trace_root, mine.trace_root),
        ):
            found.checks.append(Check(name, theirs == to_hex(ours), f"claimed {theirs}, replayed {to_hex(ours)}"))
        same = (record.state_root, record.trace_root) == (to_hex(mine.state_root), to_hex(mine.trace_root))
        other_class = unlike_numerics(record, mine.numerics)
        if not other_class:
            found.checks.append(Check("root_replayed", same, f"claimed {record.root}, replayed {to_hex(mine.root)}"))
        if same:
            return found.conclude("equal")
        found.difference = find_difference(
            record, mine, taken.path, self._claimed_or_none(record), list(read_trace(trace)) if trace else None
        )
        told = found.difference.sentence()
        if other_class:
            why = f"it differs, which says nothing in another numerics class ({'; '.join(other_class)}): {told}"
            return found.conclude("not_here", why, "replay it on a machine of the claim's class")
        return found.conclude("differs", told or "the roots differ")

    def _trains_at_first(self, claim: CheckpointOut) -> bool:
        """Whether the recipe, and this machine, come from the job's start to its first checkpoint, whatever that is."""
        first = next((one for one in self.earlier(claim) if one.checkpoint.index == 1), None)
        if first is None:
            return False
        self._options.watch("it fails: does it from its start?")
        shutil.rmtree(self._folder / "work", ignore_errors=True)
        try:
            rerun(self.job.spec, first, *self._fetch_start(first), self._folder, self._options)
        except (Withheld, NotHere, Failure):
            return False
        return True

    def _begin(self, mode: Mode, index: int, tip: str | None, trace: Path | None) -> ReplayFindings:
        """With what the records alone tell."""
        claim = self._claims.choose(index, tip)
        record, spec = claim.checkpoint, self.job.spec
        found = ReplayFindings(mode, claim, start_step=spec.step_of(record.index) - spec.checkpoint_every)
        found.before = self._claims.tip_before(claim)
        found.checks += self._claims.check(claim, self._domain, self._is_signed)
        found.checks.append(_check_trace(record, trace, spec.checkpoint_every))
        return _concluded(found)

    def _fetch_start(self, claim: CheckpointOut) -> tuple[str, Path | None]:
        """The tip and the state to go on from. Raises Withheld."""
        self._fetch_files()
        before, record = self._claims.before(claim)
        if record is None:
            return before, None
        path = self._folder / "start.safetensors"
        self._check_room(f"the state of checkpoint {record.index}, to go on from, has", record.stored.size)
        self._options.watch("fetching the state to go on from")
        fetch = partial(fetch_state, self._market, record, path, job=self.job.id, job_key=self._job_key)
        self._had(f"the state of checkpoint {record.index}, to go on from,", fetch)
        return before, path

    def _fetch_files(self) -> None:
        self._options.watch("fetching the job's files")
        spec, options = self.job.spec, self._options
        cache = Cache(self._folder / "fetched", options.hosts, options.disk_mb << 20)
        folder = self._folder / "job"
        folder.mkdir(parents=True, exist_ok=True)
        self._check_room("the job's files have", sum(ref.size for ref in spec.files.values()))
        fetch = partial(fetch_files, self._market, cache.get, spec, folder, job=self.job.id, job_key=self._job_key)
        self._had("the job's files", fetch)

    def _claimed_state(self, record: CheckpointRecord, path: Path) -> None:
        self._check_room(f"the state of checkpoint {record.index} has", record.stored.size)
        self._options.watch("fetching the claimed state")
        get_state(self._market, record, path, job=self.job.id, job_key=self._job_key)

    def _claimed_or_none(self, record: CheckpointRecord) -> Path | None:
        """The claimed state, if it can be had and is what was claimed."""
        path = self._folder / "claimed.safetensors"
        try:
            self._had("the claimed state", partial(self._claimed_state, record, path))
            return path if to_hex(file_state_root(path)) == record.state_root else None
        except (Withheld, Unreachable, ValueError):
            return None

    def _check_room(self, what: str, size: int) -> None:
        """A record may say any size, and who serves it any number of bytes. Raises Withheld."""
        if size > self._options.disk_mb << 20:
            raise Withheld(f"{what} {size >> 20} MB; {self._options.disk_mb} MB are allowed")

    def _had(self, what: str, fetch: Callable[[], T]) -> T:
        """Raises Withheld for what the market refuses, or is not what it should be."""
        try:
            return fetch()
        except Unreachable:
            raise
        except BadStartState as error:
            raise Withheld(error.message) from error
        except UserError as error:
            raise Withheld(f"{what} can't be had: {error.message}", error.hint) from error

    def _check_state(self, record: CheckpointRecord, path: Path) -> list[Check]:
        """Of the bytes that were served."""
        checks = []
        if record.sealed is not None:
            whole = hash_file(path).same_bytes(record.state)
            checks.append(Check("plaintext", whole, f"what opens is {'' if whole else 'not '}{record.state.sha256}"))
        try:
            root = to_hex(file_state_root(path))
            same = root == record.state_root
            checks.append(Check("state_root", same, f"the state's root is {root}, claimed {record.state_root}"))
            check_state_file(path)
        except ValueError as error:
            return [*checks, Check("state", False, str(error))]
        return [*checks, Check("state", True, "the state is one that a recipe can load")]


def _check_trace(record: CheckpointRecord, trace: Path | None, steps: int) -> Check:
    if trace is None:
        return Check("trace", None, "the steps' digests are in no public record")
    if problem := problem_with_trace(trace, record.trace_root, steps):
        raise UserError(f"{trace} is not the trace of the claim: {problem}", "--against wants the claimed one's")
    return Check("trace", True, f"{steps} steps' digests have the root {record.trace_root}")


def problem_with_trace(trace: Path, root: str, steps: int) -> str | None:
    """Why the file does not hold `steps` digests with this root; None if it does."""
    try:
        size = trace.stat().st_size
        if size != DIGEST_BYTES * steps:
            return f"it has {size} bytes, {DIGEST_BYTES * steps} are {steps} steps"
        found = to_hex(trace_root(read_trace(trace)))
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    return None if found == root else f"its root is {found}, claimed was {root}"


def _concluded(found: ReplayFindings) -> ReplayFindings:
    wrong = [check for check in found.checks if check.holds is False]
    if wrong:
        return found.conclude("inconsistent", "; ".join(f"{check.name}: {check.said}" for check in wrong))
    return found.conclude("consistent")
