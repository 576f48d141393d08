"""Whether a lease's steps take more time than the units that were signed for them come to on this machine."""

import time
from collections.abc import Callable

from contracts.errors import UserError
from contracts.job.overrun import Overrun
from contracts.types import SECONDS_PER_HOUR
from worker.machine.contention import Contention

WARM_UP_SECONDS = 120.0  # for the first step: compiling, loading data
PATIENCE_SECONDS = 10.0  # beyond what is allowed, or PATIENCE_SHARE of a checkpoint if that is more
PATIENCE_SHARE = 0.1
LOOK_SECONDS = 2.0  # between two looks at what else the machine does, while steps are late


class TooMuchWork(UserError):
    """The lease's steps take a multiple of what was signed."""


class WorkMeter:
    """Pure. Measures steps from the end of the first one on, without the writing of checkpoints. Times are seconds of
    any one clock. What is late counts while it is late: a step that does not end is noticed as well as many slow ones.
    """

    def __init__(
        self, units: int, checkpoint_every: int, units_per_hour: int, allowed: float, started: float, first: int = 1
    ) -> None:
        """`units`: signed for a checkpoint of `checkpoint_every` steps, done at `units_per_hour` on this machine. The
        run starts with checkpoint `first`; `allowed`: how many times the signed work its steps may take.
        """
        self._units, self._every, self._speed, self._allowed = units, checkpoint_every, units_per_hour, allowed
        self._signed = units / checkpoint_every * SECONDS_PER_HOUR / units_per_hour  # seconds a step
        self._patience = max(PATIENCE_SECONDS, PATIENCE_SHARE * checkpoint_every * self._signed)
        self._first_step = (first - 1) * checkpoint_every + 1
        self._step = self._first_step - 1  # the newest that is done
        self._at = started  # when that was, or its checkpoint
        self._spent = 0.0  # on the steps after the first
        self._writes = False  # the newest step was a checkpoint's last

    @property
    def warm(self) -> bool:
        """Whether the first step is done, from whose end on it measures."""
        return self._step >= self._first_step

    def step(self, step: int, now: float) -> None:
        """Training step `step` is done."""
        if self.warm:
            self._spent += now - self._at
        self._step, self._at = step, now
        self._writes = step % self._every == 0

    def checkpoint(self, now: float) -> None:
        """Its files are written and taken; the next step may have begun a little before."""
        self._at, self._writes = max(self._at, now), False

    def judge(self, now: float, waited: float = 0.0) -> Overrun | None:
        """What the steps take, if that is too much. `waited`: seconds for which this machine had no time for them."""
        late = 0.0 if self._writes else now - self._at
        done = max(0, self._step - self._first_step)
        spent, steps = self._spent + late - waited, max(1, done + (not self._writes))
        if not self.warm:
            spent -= WARM_UP_SECONDS
        if spent <= self._allowed * steps * self._signed + self._patience:
            return None
        # The step in the making has not taken all of its time yet.
        each = max(spent / steps, (self._spent - waited) / max(1, done))
        return Overrun(each / self._signed, self._allowed)

    def problem(self, found: Overrun) -> TooMuchWork:
        """As it is reported: to the job's readers, and by its first sentence to all."""
        took = found.times * self._signed
        return TooMuchWork(
            f"{found.sentence()}: {took:.2g} s each on this machine, where {self._units} units for {self._every} of "
            f"them, at its {self._speed} units an hour, are {self._signed:.2g} s",
            "its client can correct the units and go on: gpumarket job reprice",
        )


class WorkWatch:
    """A meter of a run, and what else kept the machine busy meanwhile."""

    def __init__(self, meter: WorkMeter, contention: Callable[[], Contention]) -> None:
        """`contention` begins to measure that, of the run's processes."""
        self._meter, self._new_contention = meter, contention
        self._contention = contention()
        self._look_at = 0.0  # monotonic

    def step(self, step: int) -> None:
        was_warm = self._meter.warm
        self._meter.step(step, time.monotonic())
        if not was_warm:
            self._contention = self._new_contention()

    def checkpoint(self) -> None:
        self._meter.checkpoint(time.monotonic())

    def check(self) -> None:
        """Raises TooMuchWork."""
        now = time.monotonic()
        if self._meter.judge(now) is None or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        if found := self._meter.judge(now, self._contention.waited()):
            raise self._meter.problem(found)
