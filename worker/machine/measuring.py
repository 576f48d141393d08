"""What a job's checkpoint takes on this machine, and what the machine could have done meanwhile: equivalent work units.

FLOPs alone are not what a small or a slow kernel costs its provider. So a job is timed as it would be trained, and the
benchmark that `register` measures a machine by is timed beside it, on the same threads, right before and after.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from contracts.job.spec import MAX_CHECKPOINTS, JobSpec
from contracts.types import SECONDS_PER_HOUR, UNIT_FLOPS
from worker.driver.nvml import GpuName
from worker.machine.contention import Contention
from worker.machine.hardware import answered, benchmark_job
from worker.sandbox.limits import Limits
from worker.sandbox.runner import Runner
from worker.training.environment import Device
from worker.training.messages import Checkpoint, Done, Message, Ready, Stepped

WARM_UP = 3  # steps that don't count, or fewer if they take half of the time
PROBE_SHARE = 0.1  # of the steps that fit into the time: a checkpoint of so many, where a whole one does not fit

Watch = Callable[[str], None]


class StepTimes(NamedTuple):
    """Of a job on this machine; seconds for which it was busy with others don't count."""

    ready: Ready
    step: float  # seconds
    ending: float | None  # what a checkpoint takes beside its steps: evaluation and files; None: none came to its end
    busy: float  # share of the time that others took


@dataclass(frozen=True)
class MeasuredWork:
    """What a checkpoint of a job is worth."""

    ready: Ready  # with the units that its floating-point operations come to
    seconds: float  # for a checkpoint, here
    units_per_hour: int  # of this machine, by the benchmark beside it
    busy: float  # share of the time that others took of the machine, at most

    @property
    def units(self) -> int:
        """What this machine could have done in that time, and never less than the FLOPs."""
        return max(self.ready.units, math.ceil(self.seconds * self.units_per_hour / SECONDS_PER_HOUR))


@dataclass(frozen=True)
class Bench:
    """How to run what is measured."""

    seconds: float  # for each of the parts
    device: Device = "cpu"
    threads: int = 1
    gpus: tuple[GpuName, ...] = ()
    trusted: bool = False

    def work_of(self, spec: JobSpec, folder: Path, limits: Limits, watch: Watch) -> MeasuredWork:
        """`folder` has the job's files. Raises Failure if it does not train."""
        with tempfile.TemporaryDirectory() as benchmark:
            yardstick = partial(self._speed, benchmark_job(Path(benchmark), self.device), Path(benchmark), watch)
            before, (ready, seconds, busy), after = (
                yardstick(),
                self._checkpoint(spec, folder, limits, watch),
                yardstick(),
            )
        # Twice the work in the sum of both times, so that a drift of the machine's speed cancels out.
        speed = int(2 / (1 / before[0] + 1 / after[0]))
        return MeasuredWork(ready, seconds, speed, max(busy, before[1], after[1]))

    def _speed(self, spec: JobSpec, folder: Path, watch: Watch) -> tuple[float, float]:
        """Work units an hour, and the share of others."""
        found = self._times(spec, folder, Limits(), self.seconds / 2, lambda step: watch("measuring this machine"))
        return found.ready.flops / UNIT_FLOPS / found.step * SECONDS_PER_HOUR, found.busy

    def _checkpoint(self, spec: JobSpec, folder: Path, limits: Limits, watch: Watch) -> tuple[Ready, float, float]:
        every = spec.checkpoint_every

        def told(step: int) -> None:
            watch(f"measuring the job: step {step}")

        found = self._times(spec, folder, limits, self.seconds, told)
        ending = found.ending
        if ending is None:
            few = max(1, min(every, int(PROBE_SHARE * self.seconds / found.step)))
            shorter = spec.model_copy(update={"checkpoint_every": few, "steps": few * MAX_CHECKPOINTS})
            ending = self._times(shorter, folder, limits, 0.0, told).ending
        return found.ready, every * found.step + (ending or 0.0), found.busy

    def _times(
        self, spec: JobSpec, folder: Path, limits: Limits, seconds: float, told: Callable[[int], None]
    ) -> StepTimes:
        """Trains for about `seconds` after the warm-up. With 0 until the first checkpoint after it."""
        watch = _Stopwatch(spec.checkpoint_every)
        with tempfile.TemporaryDirectory() as work_folder:
            runner = Runner(
                spec,
                folder,
                Path(work_folder),
                threads=self.threads,
                device=self.device,
                gpus=self.gpus,
                limits=limits,
                trusted=self.trusted,
                step_interval=0,
            )
            with runner as run:
                contention: Contention | None = None
                for message in answered(run):
                    watch.hear(message, seconds)
                    if isinstance(message, Stepped):
                        told(message.step)
                        if contention is None and watch.is_warm:
                            gpus = self.gpus if self.device == "cuda" else None
                            contention = Contention(run.processes, self.threads, gpus)
                    if isinstance(message, Done) or watch.has_enough(seconds):
                        return watch.result(contention.waited() if contention else 0.0)
        raise AssertionError("messages end with Failed, Stopped or Done")


class _Stopwatch:
    """Times of one run, by when its messages come."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._ready: Ready | None = None
        self._began = self._at = time.monotonic()
        self._warm_at: float | None = None
        self._steps = 0
        self._plain: list[float] = []  # seconds of steps that end no checkpoint
        self._last: list[float] = []  # of those that do, with what follows

    @property
    def is_warm(self) -> bool:
        return self._warm_at is not None

    def hear(self, message: Message, seconds: float) -> None:
        now = time.monotonic()
        match message:
            case Ready():
                self._ready, self._began, self._at = message, now, now
            case Stepped():
                self._steps += 1
                if self._steps % self._every:  # what ends a checkpoint is timed when that is taken
                    if self.is_warm:
                        self._plain.append(now - self._at)
                    self._warm(now, seconds)
                    self._at = now
            case Checkpoint():  # it is taken: its last step, evaluation and files are over
                if self.is_warm:
                    self._last.append(now - self._at)
                self._warm(now, 0.0)
                self._at = now

    def _warm(self, now: float, seconds: float) -> None:
        if not self.is_warm and (self._steps >= WARM_UP or now - self._began > seconds / 2):
            self._warm_at = now

    def has_enough(self, seconds: float) -> bool:
        """With 0 seconds a checkpoint is enough."""
        if self._warm_at is None or not (self._plain or self._last):
            return False
        return bool(self._last) if seconds == 0 else time.monotonic() - self._warm_at >= seconds

    def result(self, waited: float) -> StepTimes:
        assert self._ready is not None
        if self._warm_at is None or not (self._plain or self._last):  # a job of few steps: all that there is counts
            step = (time.monotonic() - self._began) / max(1, self._steps)
            return StepTimes(self._ready, step, 0.0, 0.0)
        ours = max(0.0, 1 - waited / max(0.001, time.monotonic() - self._warm_at))
        # A checkpoint of one step has no plain ones.
        step = _mean(self._plain or self._last)
        ending = max(0.0, _mean(self._last) - step) if self._last else None
        return StepTimes(self._ready, step * ours, ending and ending * ours, 1 - ours)


def _mean(seconds: Sequence[float]) -> float:
    return sum(seconds) / len(seconds)
