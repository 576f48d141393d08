"""Trains a job on this machine as a worker would, and records what a worker would commit to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.commitment import numerics_class, start_tip
from contracts.errors import UserError
from contracts.job.spec import JobSpec
from contracts.strict_json import write_json
from contracts.types import to_hex
from worker.sandbox.limits import Limits
from worker.sandbox.runner import Runner
from worker.training.checkpoints import TakenCheckpoint
from worker.training.failures import Failure
from worker.training.messages import Checkpoint, Failed, Measured, Message, Ready, Stepped


@dataclass
class RunRecord:
    """What a run did: metrics of each step, commitments to each checkpoint."""

    job: str
    sandbox: str
    numerics: dict[str, Any] = field(default_factory=dict)
    numerics_class: str = ""
    units: int = 0
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)  # by step
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    state_root: str = ""  # the last checkpoint's
    early_stop: str = ""  # why it ended before its last checkpoint, if it did
    rehearsal: dict[str, Any] = field(default_factory=dict)  # what was tried of stopping and going on, and its cost

    def write(self, path: Path) -> None:
        path.write_text(write_json(vars(self), indent=2) + "\n")


def train_locally(
    spec: JobSpec,
    job_folder: Path,
    work_folder: Path,
    *,
    last: int | None = None,
    threads: int = 1,
    trusted: bool = False,
    watch: Callable[[Message], None] = lambda message: None,
) -> RunRecord:
    """Runs checkpoints 1 .. last, or until the job stops early; they stay in `work_folder`.

    Raises Failure if training fails.
    """
    check_files_are_here(spec, job_folder)
    runner = Runner(
        spec,
        job_folder,
        work_folder,
        last=last,
        threads=threads,
        limits=limits_for(spec),
        trusted=trusted,
        step_interval=0,
    )
    record = RunRecord(job=to_hex(spec.job_hash()), sandbox=runner.sandbox)
    tip = start_tip(spec.job_hash())
    made: list[dict[str, float]] = []  # metrics of the checkpoints
    with runner as run:
        for message in run.messages():
            match message:
                case Measured():
                    record.numerics = message.numerics
                    record.numerics_class = to_hex(numerics_class(message.numerics))
                case Ready():
                    record.units = message.units
                    run.go()
                case Stepped():
                    record.metrics[message.step] = message.metrics
                case Checkpoint() if record.early_stop:
                    continue  # it was on its way already
                case Checkpoint():
                    tip = _record_checkpoint(record, spec, run.take(message), tip)
                    made.append(message.metrics)
                    record.early_stop = _early_stop(spec, made)
                    if record.early_stop:
                        run.stop()
                case Failed():
                    raise Failure(message.kind, message.message, _hint(message, work_folder), message.traceback)
            watch(message)
    return record


def check_files_are_here(spec: JobSpec, folder: Path) -> None:
    """Raises UserError if a file that agents fetch from the web is not in the job's folder."""
    for name, ref in spec.files.items():
        if ref.url and not (folder / name).is_file():
            raise UserError(
                f"{name} is not in {folder}; a provider's agent would fetch it",
                f"to run the job here: curl --create-dirs -Lo {folder / name} {ref.url}",
            )


def _early_stop(spec: JobSpec, made: list[dict[str, float]]) -> str:
    if spec.stop is None:
        return ""
    if problem := spec.stop.problem(made[-1]):
        raise Failure("recipe", problem, "return it from evaluate() or step(), or correct `stop` in job.yaml")
    index = spec.stop.reached(made)
    return spec.stop.sentence(index) if index else ""


def limits_for(spec: JobSpec) -> Limits:
    """The limits of a run on one's own machine: the memory that the job asks for, if it does."""
    return Limits(memory_mb=spec.resources.memory_mb) if spec.resources.memory_mb else Limits()


def _record_checkpoint(record: RunRecord, spec: JobSpec, taken: TakenCheckpoint, tip: bytes) -> bytes:
    made = taken.commit(spec.job_hash(), record.numerics, tip)
    record.state_root = to_hex(made.state_root)
    record.checkpoints.append(
        {
            "index": taken.index,
            "step": taken.step,
            "state_root": to_hex(made.state_root),
            "trace_root": to_hex(made.trace_root),
            "root": to_hex(made.root),
            "tip": to_hex(made.tip),
            "seconds": taken.seconds,
            "file": taken.path.name,
        }
    )
    return made.tip


def _hint(failed: Failed, work_folder: Path) -> str:
    return f"{failed.hint}; log: {work_folder / 'log.txt'}" if failed.hint else f"log: {work_folder / 'log.txt'}"
