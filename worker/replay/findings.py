"""What a replay found, as values. `as_json` of each is what `gpumarket replay -o json` prints; docs/replay.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from contracts.api.bodies import CheckpointOut, CheckpointRecord
from contracts.commitment import numerics_class
from contracts.errors import UserError
from contracts.job.state_kinds import Kind
from contracts.types import to_hex

Mode = Literal["validate", "verify"]
Verdict = Literal["consistent", "equal", "inconsistent", "differs", "withheld", "not_here", "failed"]

# Beside 0, 1 (an error), 2 (of the command line) and 130 (interrupted).
EXIT_CODES: dict[Verdict, int] = {
    "consistent": 0,
    "equal": 0,
    "inconsistent": 3,
    "differs": 3,
    "withheld": 4,
    "not_here": 5,
    "failed": 6,
}
MOST_NAMED = 100  # tensors that differ


class Withheld(UserError):
    """Something that a replay needs can't be had: nobody serves it, not to this reader, or not the right bytes."""


class NotHere(UserError):
    """This machine can't replay the stretch: another numerics class, no such environment, no GPU, no sandbox."""


@dataclass(frozen=True)
class Check:
    """One thing that must hold; `holds` None: it can't be told from what is known."""

    name: str
    holds: bool | None
    said: str


@dataclass(frozen=True)
class TensorDifference:
    """A tensor of two states that is not the same in both."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int  # of it
    unlike: int  # of them; all, if dtype or shape differ or only one state has it

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "elements": self.elements,
            "unlike": self.unlike,
        }


@dataclass(frozen=True)
class ReplayDifference:
    """How a replay is not what was claimed, as far as that can be told."""

    step: int | None  # the first that differs; None: the claimed steps' digests are not known here
    tensors: tuple[TensorDifference, ...]  # at the checkpoint, by name; none if its state is equal, or not to be had
    of_tensors: int | None  # how many the state has; None: the claimed state could not be had
    metrics: dict[str, tuple[float | None, float | None]]  # claimed, replayed; of the checkpoint's last step
    kinds: Mapping[str, tuple[Kind | None, Kind | None]] = field(default_factory=dict)  # claimed, replayed; by entry

    def sentence(self) -> str:
        told = []
        if self.step is not None:
            told.append(f"step {self.step} is the first that differs")
        if self.tensors:
            first = self.tensors[0]
            told.append(
                f"{len(self.tensors)} of the state's {self.of_tensors} tensors differ, the first is {first.name!r:.200}"
                f" ({first.unlike:,} of {first.elements:,} elements)"
            )
        if self.kinds:
            name, (theirs, ours) = next(iter(self.kinds.items()))
            told.append(
                f"{len(self.kinds)} of its entries are of another kind, the first is {name!r:.200} "
                f"({_kind(ours)}, claimed was {_kind(theirs)})"
            )
        if not self.tensors and not self.kinds and self.of_tensors is not None:
            told.append("the state is equal, its steps are not")
        told += [f"{name} is {mine!r}, claimed was {theirs!r}" for name, (theirs, mine) in self.metrics.items()]
        return "; ".join(told)

    def as_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "tensors": [one.as_json() for one in self.tensors[:MOST_NAMED]],
            "tensors_unlike": None if self.of_tensors is None else len(self.tensors),
            "tensors_in_all": self.of_tensors,
            "kinds": {
                name: {"claimed": theirs, "replayed": ours}
                for name, (theirs, ours) in islice(self.kinds.items(), MOST_NAMED)
            },
            "metrics": {name: {"claimed": theirs, "replayed": mine} for name, (theirs, mine) in self.metrics.items()},
        }


def _kind(kind: Kind | None) -> str:
    return "none of its own" if kind is None else f"{kind!r:.100}"


@dataclass(frozen=True)
class Rerun:
    """What came of training the stretch here."""

    state_root: bytes
    trace_root: bytes
    root: bytes  # with this machine's numerics
    tip: bytes
    numerics: dict[str, Any]
    metrics: dict[str, float]  # of the last step
    trace: tuple[bytes, ...]  # a digest a step: show them to nobody before all have answered
    sandbox: str
    start_seconds: float  # from the start of the process to the end of its first step
    start_cpu_seconds: float  # processor time from when it was ready to train to there
    seconds: float  # from the end of the first step to the roots
    cpu_seconds: float  # processor time of that

    def as_json(self) -> dict[str, Any]:
        return {
            "state_root": to_hex(self.state_root),
            "trace_root": to_hex(self.trace_root),
            "root": to_hex(self.root),
            "tip": to_hex(self.tip),
            **numerics_as_json(self.numerics),
            "metrics": self.metrics,
            "steps": len(self.trace),
            "sandbox": self.sandbox,
            "start_seconds": round(self.start_seconds, 3),
            "start_cpu_seconds": round(self.start_cpu_seconds, 3),
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
        }


@dataclass
class ReplayFindings:
    """What was asked, and all that was found."""

    mode: Mode
    claim: CheckpointOut
    before: str | None = None  # the tip that it follows on; None: no record leads to it
    start_step: int = 0  # the step after which the stretch begins
    verdict: Verdict = "consistent"
    why: str = ""
    hint: str | None = None
    checks: list[Check] = field(default_factory=list)
    rerun: Rerun | None = None
    difference: ReplayDifference | None = None
    spoiled: bool = False  # the recipe fails in this stretch, and not in the job's first: for what it goes on from

    def conclude(self, verdict: Verdict, why: str = "", hint: str | None = None) -> "ReplayFindings":
        self.verdict, self.why, self.hint = verdict, why, hint
        return self

    def as_json(self) -> dict[str, Any]:
        out, record = self.claim, self.claim.checkpoint
        claimed = {
            "lease": out.lease,
            "provider": out.provider,
            "status": out.status.value,
            "state_root": record.state_root,
            "trace_root": record.trace_root,
            "root": record.root,
            "tip": record.tip,
            **numerics_as_json(record.numerics),
            "metrics": record.metrics,
            "seconds": record.seconds,
        }
        return {
            "mode": self.mode,
            "verdict": self.verdict,
            "why": self.why,
            "job": out.job,
            "checkpoint": record.index,
            "first_step": self.start_step + 1,
            "last_step": record.step,
            "before": self.before,
            "claimed": claimed,
            "checks": [{"name": one.name, "holds": one.holds, "said": one.said} for one in self.checks],
            "replayed": self.rerun and self.rerun.as_json(),
            "difference": self.difference and self.difference.as_json(),
            "spoiled": self.spoiled,
        }


def numerics_as_json(numerics: dict[str, Any]) -> dict[str, Any]:
    return {"numerics": numerics, "numerics_class": to_hex(numerics_class(numerics))}


def unlike_numerics(record: CheckpointRecord, here: dict[str, Any]) -> list[str]:
    """The facts by which two numerics classes differ, in words."""
    theirs = record.numerics
    return [
        f"{name} {here.get(name, 'untold')!r} here, {theirs.get(name, 'untold')!r} there"
        for name in sorted(here.keys() | theirs.keys())
        if numerics_class({name: here.get(name)}) != numerics_class({name: theirs.get(name)})  # 1 is not true
    ]
