"""A recipe of microseconds, committed to as any other, and the ways in which a provider may not train it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from random import Random

from contracts.audits.cases import Replayed
from contracts.commitment import (
    Tensor,
    checkpoint_root,
    next_tip,
    numerics_class,
    start_tip,
    state_root,
    step_digest,
    step_seed,
    trace_root,
)
from contracts.types import to_hex

JOB, CLASS = hashlib.sha256(b"job").digest(), numerics_class({"device": "a machine"})
SEED, EVERY = 42, 4  # steps of a checkpoint
BEGINNING = bytes(32)
CHECKPOINTS = 12


@dataclass(frozen=True)
class Made:
    """What is handed in as a checkpoint."""

    state: bytes
    trace: bytes


@lru_cache(maxsize=1 << 16)
def train(
    state: bytes, n: int, steps: int = EVERY, rate: float = 0.1, batch: int = 8, seed: int = SEED, where: bytes = b""
) -> Made:
    """Checkpoint `n` from the state before it. `where` is what a keyed recipe looks at."""
    digests = []
    for step in range((n - 1) * EVERY + 1, (n - 1) * EVERY + 1 + steps):
        state = hashlib.sha256(b"%b%d %f %d %b" % (state, step_seed(seed, step), rate, batch, where)).digest()
        digests.append(step_digest(step, {"loss": state[0] / 256}, state))
    return Made(state, trace_root(digests))


@lru_cache(maxsize=1 << 16)
def root_of(made: Made, n: int) -> bytes:
    tensors = [Tensor("w", "U8", (32,), made.state)]
    return checkpoint_root(JOB, n, n * EVERY, state_root(tensors, {}), made.trace, CLASS)


@dataclass(frozen=True)
class History:
    """All that a provider has handed in, from checkpoint 1 on."""

    made: tuple[Made, ...]

    @property
    def tips(self) -> list[str]:
        found, tip = [], start_tip(JOB)
        for n, made in enumerate(self.made, 1):
            tip = next_tip(tip, root_of(made, n))
            found.append(to_hex(tip))
        return found

    def replay(self, n: int, where: bytes = b"") -> Replayed:
        """What an honest replay of checkpoint n comes to, from the state that was handed in before it."""
        before = self.made[n - 2].state if n > 1 else BEGINNING
        found = root_of(train(before, n, where=where), n)
        return Replayed("equal") if found == root_of(self.made[n - 1], n) else Replayed("differs", to_hex(found))

    @property
    def lies(self) -> frozenset[int]:
        return frozenset(n for n in range(1, len(self.made) + 1) if self.replay(n).outcome == "differs")


Maker = Callable[[int, list[Made], Random], Made]  # checkpoint n, from those before


def _before(past: list[Made]) -> bytes:
    return past[-1].state if past else BEGINNING


def honest(n: int, past: list[Made], rng: Random) -> Made:
    return train(_before(past), n)


def _otherwise(n: int, past: list[Made], rng: Random, **how: int | float) -> Made:
    return train(_before(past), n, **how)  # type: ignore[arg-type]


def _random(n: int, past: list[Made], rng: Random) -> Made:
    return Made(rng.randbytes(32), rng.randbytes(32))


def _stale(n: int, past: list[Made], rng: Random) -> Made:
    return Made(past[0].state if past else BEGINNING, rng.randbytes(32))


def _wrong_root(n: int, past: list[Made], rng: Random) -> Made:
    return Made(honest(n, past, rng).state, rng.randbytes(32))


def _honest_until(last: int, n: int, past: list[Made], rng: Random) -> Made:
    return (honest if n <= last else _random)(n, past, rng)


@dataclass(frozen=True)
class Liar:
    """`saves`: of the work of a checkpoint; `made`: how many it hands in before it ends its lease, or goes dark."""

    make: Maker
    saves: Fraction
    made: int = CHECKPOINTS

    def history(self, rng: Random) -> History:
        past: list[Made] = []
        for n in range(1, self.made + 1):
            past.append(self.make(n, past, rng))
        return History(tuple(past))


# Those that the draw must find. Withheld bytes and a class of one's own are refused before it.
LIARS: dict[str, Liar] = {
    "no training": Liar(_random, Fraction(1)),
    "half the steps": Liar(partial(_otherwise, steps=EVERY // 2), Fraction(1, 2)),
    "a smaller batch": Liar(partial(_otherwise, batch=2), Fraction(3, 4)),
    "a stale copy": Liar(_stale, Fraction(1)),
    "another's bytes": Liar(partial(_otherwise, seed=SEED + 1), Fraction(1)),
    "honest, then lazy": Liar(partial(_honest_until, 6), Fraction(1)),
    "one lie, then release": Liar(partial(_honest_until, 1), Fraction(1), made=2),
    "lies, then end": Liar(partial(_honest_until, 4), Fraction(1), made=7),
    "lies, then dark": Liar(_random, Fraction(1), made=3),
    "a wrong root": Liar(_wrong_root, Fraction(0)),
    "another learning rate": Liar(partial(_otherwise, rate=0.2), Fraction(0)),
    "many fake roots": Liar(_random, Fraction(1), made=40),
}
