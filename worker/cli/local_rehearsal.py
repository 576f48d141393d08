"""`recipe run` rehearses what a market does: stop at a checkpoint, go on from it in another process."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contracts.errors import UserError
from contracts.job.spec import JobSpec
from worker.cli.local_run import RunRecord, limits_for
from worker.sandbox.rehearsal import USUAL_CAUSES, Cut, Divergence, Rehearsal, Steps, compared
from worker.training.checkpoints import TakenCheckpoint, read_trace, trace_name
from worker.training.failures import Failure

SHARE = 0.5  # of the run's own time, at most, for the steps from its first checkpoint on
LEAST_SECONDS = 20.0  # but so long they may take at least
SHORT_SECONDS = 120.0  # for the first steps


@dataclass
class LocalRehearsal:
    """Before a run its first steps, after it from its first checkpoint on. What does not repeat is a UserError."""

    spec: JobSpec
    job_folder: Path
    work_folder: Path
    threads: int
    trusted: bool
    say: Callable[[str], None] = lambda text: None
    resumed_after: list[int] = field(default_factory=list)  # steps
    seconds: float = 0.0
    cut: bool = False  # whether it ended before all of that was done
    unlike_after: int | None = None  # a step that no lease resumes after, from whose state it does not go on exactly

    def __post_init__(self) -> None:
        self._first: Steps | None = None

    def before(self, last: int) -> None:
        """The first steps of a run of checkpoints 1 .. last."""
        began = time.monotonic()
        rehearsal = self._rehearsal(SHORT_SECONDS)
        start = self.spec.start_step or 0
        try:
            self.say("rehearsing: the first steps, and again from the middle of them")
            first, divergence = rehearsal.short(start, self.spec.step_of(last), None)
            self._heed(divergence)
            if rehearsal.resumed_after is not None:
                self.resumed_after.append(rehearsal.resumed_after)
            self._first = replace(first, states=[])  # which are deleted now
        except Cut:
            self.cut = True
        finally:
            self.unlike_after = rehearsal.unlike_after
            rehearsal.remove()
            self.seconds += time.monotonic() - began

    def after(self, record: RunRecord, seconds: float) -> None:
        """The run took `seconds`: it must have done what was rehearsed, and what its first checkpoint leads to."""
        began = time.monotonic()
        run = self._steps_of(record)
        if self._first is not None:
            self._heed(compared(self._first, run, resumed=False, but={taken.step for taken in run.states}))
        try:
            if len(run.states) > 1:
                self._resume(run, max(LEAST_SECONDS, SHARE * seconds))
        finally:
            self.seconds += time.monotonic() - began

    def _resume(self, run: Steps, seconds: float) -> None:
        """Goes on from the first checkpoint to the run's end, or as far as it comes: the sooner, the more is ahead."""
        taken, rehearsal = run.states[0], self._rehearsal(seconds)
        self.say("rehearsing: from the first checkpoint on, in another process")

        def heed(steps: Steps) -> None:
            self._heed(compared(run, steps, resumed=True))

        try:
            every, checkpoints = self.spec.checkpoint_every, len(run.states) - 1
            rehearsal.train("resumed", taken.step, every, checkpoints, taken.path, evaluate=True, heed=heed)
        except Cut:
            self.cut = True
        except Failure as failure:
            self._heed(Divergence(taken.step + 1, taken.step, f"it fails: {failure.message}"))
        finally:
            rehearsal.remove()
        self.resumed_after.append(taken.step)

    def facts(self) -> dict[str, Any]:
        return {
            "resumed_after": self.resumed_after,
            "unlike_after": self.unlike_after,
            "seconds": round(self.seconds, 3),
            "cut": self.cut,
        }

    def told(self) -> str:
        """What was rehearsed, and what it cost."""
        after = f"step {', '.join(map(str, self.resumed_after))}" if self.resumed_after else "no step"
        cut = ", not to the end" if self.cut else ""
        cost = f"{self.seconds:.1f} s; --no-rehearsal leaves it out"
        told = f"resumed after {after}: the same bit for bit{cut} ({cost})"
        if self.unlike_after is None:
            return told
        resumes = (
            "it resumes exactly at checkpoints only" if self.resumed_after else "there was no time to try it at one"
        )
        return f"{told}\n           not after step {self.unlike_after}, which is at no checkpoint: {resumes}"

    def _rehearsal(self, seconds: float) -> Rehearsal:
        options: dict[str, Any] = {"threads": self.threads, "trusted": self.trusted, "limits": limits_for(self.spec)}
        folder = self.work_folder / "rehearsal"
        return Rehearsal(self.spec, self.job_folder, folder, options, seconds=seconds)

    def _steps_of(self, record: RunRecord) -> Steps:
        steps = Steps(self.spec.start_step or 0, record.metrics)
        for made in record.checkpoints:
            trace = self.work_folder / trace_name(made["index"])
            steps.digests += read_trace(trace)
            path, root = self.work_folder / made["file"], bytes.fromhex(made["trace_root"][2:])
            steps.states.append(TakenCheckpoint(made["index"], made["step"], path, trace, {}, root, made["seconds"]))
        return steps

    def _heed(self, divergence: Divergence | None) -> None:
        if divergence is not None:
            raise UserError(divergence.sentence(), USUAL_CAUSES)
