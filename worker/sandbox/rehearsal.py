"""Does a recipe go on bit for bit from a saved state? Tried on a few steps, by one process and by one that resumes.

Who is paid by the checkpoint must be able to train any stretch again: another machine goes on from it, and a judge
repeats it. A recipe that can't is not told by its losses, which look well either way.
"""

import math
import shutil
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.job.spec import JobSpec
from worker.sandbox.runner import Runner
from worker.training.checkpoints import TakenCheckpoint, state_difference
from worker.training.failures import Failure, FailureKind
from worker.training.messages import Checkpoint, Done, Failed, Ready, Stepped, Stopped

STEPS = 4  # that are rehearsed; the second process does half of them
WHOLE_STEPS = 64  # of a checkpoint; of longer ones as many as divide both it and
PERIODS = 240  # which all usual periods divide that a recipe may have between checkpoints
POLL_SECONDS = 0.2
USUAL_CAUSES = (
    "usual causes: an optimizer, schedule or scaler that state_dict() leaves out; a generator of its own "
    "(torch.Generator, numpy's default_rng, random.Random); a DataLoader that shuffles, or is kept from step to step; "
    "gradients kept from step to step; the time, os.urandom, id(), the order of a set. docs/recipe-api.md has a cure "
    "for each"
)
OF_THE_RECIPE: tuple[FailureKind, ...] = ("recipe", "exception", "nan", "state")


class Cut(Exception):
    """There was no time left for it, or it was told to stop."""


@dataclass(frozen=True)
class Divergence:
    """Where two runs are not the same."""

    step: int  # the first that is not
    resumed_after: int | None  # the step whose state the second process went on from; None: from none
    what: str
    trace: str = ""  # where in the recipe, if the second one fails
    at_once: bool = False  # it does not even take up the state

    def sentence(self) -> str:
        second = "another process" if self.resumed_after is None else (
            f"a process that goes on from the state after step {self.resumed_after}"
        )  # fmt: skip
        return f"the recipe does not repeat bit for bit: step {self.step} is not the same in {second}: {self.what}"


@dataclass
class Steps:
    """What one process did after step `before`."""

    before: int
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)  # by step
    digests: list[bytes] = field(default_factory=list)  # of each step, as far as checkpoints were made
    states: list[TakenCheckpoint] = field(default_factory=list)

    def digest(self, step: int) -> bytes:
        return self.digests[step - self.before - 1]


@dataclass
class Rehearsal:
    """Stretches of one job, each trained in a process of its own; what they write lies in `folder`.

    `options` are the Runner's. It is cut off at the monotonic time `until`, and each process after `seconds` of steps.
    """

    spec: JobSpec
    job_folder: Path
    folder: Path
    options: dict[str, Any]
    until: float = math.inf
    seconds: float = math.inf
    stopped: Callable[[], bool] = lambda: False
    once: Steps | None = None
    resumed_after: int | None = None  # the step from whose state a second process has done the same
    unlike_after: int | None = None  # the step, within a checkpoint, from whose state it has not

    def short(self, before: int, last: int, state: Path | None) -> tuple[Steps, Divergence | None]:
        """The first steps after `before`, whose state is `state`; `last` is the job's last step.

        A recipe may do something at each fourth step, say, and be exact at checkpoints only, where leases resume. So
        what differs elsewhere (`unlike_after`) counts only if it does so from a checkpoint, too. Raises Cut, after
        which `once` may still tell what the first process did, and Failure if that fails: training would, too.
        """
        half = max(1, min(STEPS, last - before) // 2)
        self.once = once = self.train("once", before, half, min(2, last - before), state)
        if len(once.states) < 2:
            return once, None
        divergence = self._resumed("again", once, half)
        stretch = stretch_to_resume_after(self.spec.checkpoint_every, last - before)
        if divergence is None or divergence.at_once or half % stretch == 0:
            return once, divergence
        self.unlike_after = before + half
        if self.until < math.inf:
            self.seconds = math.inf  # a verdict is worth more: else exact recipes were refused, or others passed
        longer = self.train("longer", before, stretch, 2, state)
        if len(longer.states) < 2 or self._resumed("resumed", longer, stretch) is not None:
            return once, divergence
        return once, None

    def _resumed(self, name: str, once: Steps, steps: int) -> Divergence | None:
        """How another process, which goes on for so many steps from the first state of `once`, differs from it."""
        taken = once.states[0]
        try:
            again = self.train(name, taken.step, steps, 1, taken.path)
        except Failure as failure:
            if failure.kind not in OF_THE_RECIPE:
                raise
            what = f"it fails: {failure.message}"
            return Divergence(taken.step + 1, taken.step, what, failure.trace, at_once=failure.kind == "state")
        divergence = compared(once, again, resumed=True)
        if divergence is None:
            self.resumed_after = taken.step
        return divergence

    def train(
        self,
        name: str,
        before: int,
        every: int,
        checkpoints: int,
        state: Path | None,
        *,
        evaluate: bool = False,
        heed: Callable[[Steps], None] = lambda steps: None,
    ) -> Steps:
        """Trains `checkpoints` times `every` steps from a state, None: from the recipe's start.

        `heed` sees what there is after each message. Raises Failure, and Cut.
        """
        spec = self.spec.model_copy(
            update={"start_step": before or None, "steps": every * checkpoints, "checkpoint_every": every}
        )
        steps = Steps(before)
        folder = self.folder / name
        with Runner(
            spec, self.job_folder, folder, state=state, step_interval=0, evaluate=evaluate, **self.options
        ) as run:
            until = self.until
            while True:
                if self.stopped() or time.monotonic() > until:
                    raise Cut
                match run.next_message(timeout=POLL_SECONDS):
                    case Ready():
                        run.go()
                        until = min(until, time.monotonic() + self.seconds)
                    case Stepped() as step:
                        steps.metrics[step.step] = step.metrics
                    case Checkpoint() as made:
                        taken = run.take(made)
                        steps.states.append(taken)
                        steps.digests += taken.trace()
                    case Failed() as failed:
                        raise failed.failure()
                    case Done() | Stopped():
                        return steps
                heed(steps)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def stretch_to_resume_after(checkpoint_every: int, left: int) -> int:
    """How many steps lead to where a lease may resume, if `left` are to be trained: twice as many are tried.

    Of a long checkpoint, or of the only one that is left, it is a part that periods of the recipe fit into as they fit
    into checkpoints.
    """
    whole = checkpoint_every if checkpoint_every <= WHOLE_STEPS else math.gcd(checkpoint_every, PERIODS)
    return next((steps for steps in range(min(whole, left // 2), 0, -1) if whole % steps == 0), 1)


def compared(one: Steps, other: Steps, *, resumed: bool, but: Container[int] = ()) -> Divergence | None:
    """How two runs differ in the steps that both did. `resumed`: the other began at a state of the one.

    `but`: steps after which one of them has evaluated, and the other has not.
    """
    after = other.before if resumed else None
    first = max(one.before, other.before) + 1
    last = min(steps.before + len(steps.digests) for steps in (one, other))
    unlike = [step for step in range(first, last + 1) if step not in but and one.digest(step) != other.digest(step)]
    reported = [step for step in sorted(one.metrics.keys() & other.metrics.keys()) if step not in but]
    worse = next((step for step in reported if one.metrics[step] != other.metrics[step]), None)
    found = min(unlike[:1] + ([] if worse is None else [worse]), default=None)
    told = [] if worse is None else [_metrics_differ(worse, found, one.metrics[worse], other.metrics[worse])]
    for state in one.states:
        twin = next((taken for taken in other.states if taken.step == state.step), None)
        if twin and (differs := state_difference(state.path, twin.path)):
            told.append(f"of the state after step {state.step} {differs}")
            found = state.step if found is None else found
            break
    return None if found is None else Divergence(found, after, "; ".join(told) or "other elements of the state")


def _metrics_differ(step: int, found: int | None, one: dict[str, float], other: dict[str, float]) -> str:
    name = next(name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name))
    where = f" (in step {step})" if step != found else ""
    return f"{name} {one.get(name)!r} against {other.get(name)!r}{where}"
