"""What an arbiter says that trains the questioned stretch again, from what it found. Pure; docs/arbiter.md.

Of a wrong root: its own runs, varied, must be one. If they are, and are not the claim, a closed job is false only
where a control stretch of the same job has come out equal here; else the lease is void, and nobody gains by it.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal, NamedTuple

from contracts.terms import Verdict

LEAST_RUNS = 2
MOST_CONTROLS = 3

# What was asked for: there and right; answered that it can't be had; not the right bytes; nobody answered.
Found = Literal["there", "missing", "wrong", "away"]


class Ground(IntEnum):
    """Of a challenge, as on chain."""

    WRONG = 0
    WITHHELD = 1


class Stretch(NamedTuple):
    """One that leads to a checkpoint before the questioned one, on the same chain of tips."""

    n: int
    provider: str
    approved: bool


def wants_control(claimed: str, roots: Sequence[str], closed: bool) -> bool:
    """Whether a control stretch decides between verdicts."""
    return closed and len(set(roots)) == 1 and roots[0] != claimed


def rule_root(claimed: str, roots: Sequence[str], *, closed: bool, control: bool | None) -> Verdict:
    """The ground `wrong`. `roots`: of the arbiter's own runs; `closed`: the job can't know where and when it runs;
    `control`: whether a control stretch was equal, None without one.
    """
    if len(roots) < LEAST_RUNS:
        raise ValueError(f"{len(roots)} own runs are no ground for a verdict: it takes {LEAST_RUNS}")
    if len(set(roots)) > 1:
        return Verdict.UNREPRODUCIBLE
    if roots[0] == claimed:
        return Verdict.TRUE
    return Verdict.FALSE if closed and control else Verdict.VOID


def rule_bytes(found: Found, elapsed: int, timeout: int) -> Verdict | None:
    """The ground `withheld`, so many seconds after the challenge; None: not now. What is not there may come in the
    first half of the arbiter's time. A market that does not answer says nothing about a provider.
    """
    if found == "there":
        return Verdict.TRUE
    return Verdict.FALSE if found != "away" and 2 * elapsed >= timeout else None


def control_stretches(before: Sequence[Stretch], provider: str) -> list[int]:
    """Which to try, in order, until one is equal: the one before the questioned one, the newest that was approved, the
    newest of another provider than the questioned one. A liar has lied in its own as well, mostly.
    """
    newest = sorted(before, key=lambda one: -one.n)
    found = [
        next(iter(newest), None),
        next((one for one in newest if one.approved), None),
        next((one for one in newest if one.provider != provider), None),
    ]
    return list(dict.fromkeys(one.n for one in found if one is not None))[:MOST_CONTROLS]
