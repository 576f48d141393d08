"""Trains one stretch again, as the lease that is questioned did: same sandbox, same loop, the claim's threads."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from contracts.api.bodies import CheckpointOut
from contracts.commitment import numerics_class
from contracts.job.spec import JobSpec
from contracts.program.progress_bar import Watch, nobody
from contracts.types import from_hex
from worker.driver.nvml import GpuName
from worker.replay.findings import NotHere, Rerun, unlike_numerics
from worker.sandbox.hiding.variation import PLAIN, Variation
from worker.sandbox.limits import Limits
from worker.sandbox.podman import chosen_sandbox
from worker.sandbox.runner import Runner
from worker.settings import DISK_MB
from worker.training.checkpoints import TakenCheckpoint
from worker.training.environment import Device
from worker.training.failures import Failure
from worker.training.messages import Checkpoint, Done, Failed, Measured, Ready, Stepped, Stopped

MOST_THREADS = 1024


@dataclass(frozen=True)
class ReplayOptions:
    """What this machine gives for a replay."""

    gpus: tuple[GpuName, ...] = ()
    sandbox: Literal["bubblewrap", "podman"] = "bubblewrap"
    image: str | None = None  # for podman
    trusted: bool = False
    disk_mb: int = DISK_MB
    hosts: tuple[str, ...] = ()  # that files of the web may be fetched from
    any_class: bool = False  # train even where the numerics class is another, and a difference says nothing
    watch: Watch = field(default=nobody)
    variation: Variation = PLAIN  # of what the recipe is told of the machine


class Spent(NamedTuple):
    """Up to some moment of a replay."""

    at: float  # monotonic
    cpu: float  # processor seconds: of this process, and of all in the sandbox
    sandbox: float = 0.0  # of the latter alone

    @classmethod
    def now(cls, run: Runner, at_least: "Spent") -> "Spent":
        """Of processes that have ended nobody tells any more what they had spent: it is what was seen last."""
        sandbox = 0.0
        for process in run.processes():
            with suppress(psutil.Error):
                sandbox += sum(process.cpu_times()[:4])
        sandbox = max(sandbox, at_least.sandbox)
        return cls(time.monotonic(), sandbox + time.process_time(), sandbox)


def rerun(
    spec: JobSpec, claim: CheckpointOut, before: str, state: Path | None, folder: Path, options: ReplayOptions
) -> tuple[Rerun, TakenCheckpoint]:
    """Trains from `state` (None: the recipe's own start, after the tip `before`) to the claimed checkpoint.

    `folder` has the job's files in `job`; what is made lies in `work`. Raises NotHere, and Failure if the recipe does
    not come to its checkpoint.
    """
    record = claim.checkpoint
    device, threads = _device(record.numerics), _threads(record.numerics)
    began = time.monotonic()
    try:
        runner = Runner(
            spec,
            folder / "job",
            folder / "work",
            first=record.index,
            last=record.index,
            state=state,
            threads=threads,
            device=device,
            gpus=options.gpus,
            limits=Limits(memory_mb=spec.resources.memory_mb or Limits().memory_mb, disk_mb=options.disk_mb),
            runtime=chosen_sandbox(options.sandbox, options.image),
            trusted=options.trusted,
            keep_log=not spec.sealed,
            variation=options.variation,
            ahead=0,  # so that it is there, to tell what it has spent, when its checkpoint is taken
        )
    except Failure as failure:  # no environment, no GPU, no sandbox
        raise NotHere(failure.message, failure.hint) from failure
    taken: TakenCheckpoint | None = None
    numerics: dict[str, Any] = {}
    ready = first = last = Spent(began, 0.0)  # before the first step, after it, and up to now
    options.watch("starting the recipe")
    with runner as run:
        for message in run.messages():
            if first.cpu == 0 or not isinstance(message, Stepped):  # to look at processes takes time that is counted
                last = Spent.now(run, at_least=last)
            match message:
                case Measured():
                    numerics = message.numerics
                    _check_class(claim, numerics, options)
                case Ready():
                    ready = last
                    run.go()
                case Stepped():
                    first = last if first.cpu == 0 else first
                    done = message.step - (record.step - spec.checkpoint_every)
                    options.watch("steps replayed", done, spec.checkpoint_every)
                case Checkpoint():
                    taken = run.take(message)
                case Failed():
                    raise message.failure()
                case Done() | Stopped():
                    break
    assert taken is not None  # a conversation without it is no conversation
    made = taken.commit(spec.job_hash(), numerics, from_hex(before))
    end = Spent.now(run, at_least=last)
    result = Rerun(
        state_root=made.state_root,
        trace_root=made.trace_root,
        root=made.root,
        tip=made.tip,
        numerics=numerics,
        metrics=taken.metrics,
        trace=tuple(taken.trace()),
        sandbox=runner.sandbox,
        start_seconds=first.at - began,
        start_cpu_seconds=first.cpu - ready.cpu,
        seconds=end.at - first.at,
        cpu_seconds=end.cpu - first.cpu,
    )
    return result, taken


def _check_class(claim: CheckpointOut, here: dict[str, Any], options: ReplayOptions) -> None:
    there = claim.checkpoint.numerics
    if options.any_class or numerics_class(here) == numerics_class(there):
        return
    unlike = "; ".join(unlike_numerics(claim.checkpoint, here))
    raise NotHere(
        f"this machine's numerics class is another than the claim's: {unlike}",
        "bits are promised within one class only; --any-class tries it all the same",
    )


def _device(numerics: dict[str, Any]) -> Device:
    device = numerics.get("device")
    if device not in ("cpu", "cuda"):
        raise NotHere(f"the claim was made on the device {device!r:.40}", "this program knows cpu and cuda")
    return "cuda" if device == "cuda" else "cpu"


def _threads(numerics: dict[str, Any]) -> int:
    threads = numerics.get("threads")
    if isinstance(threads, float) and threads.is_integer():  # the same number in the JSON that is hashed
        threads = int(threads)
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise NotHere(f"the claim was made with {threads!r:.40} threads", f"a replay takes 1 to {MOST_THREADS}")
    return threads
