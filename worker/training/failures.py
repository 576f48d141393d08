"""Why a training run ended other than by finishing: one exception, with a kind that programs can act on."""

import errno
from typing import Literal

from contracts.errors import UserError

FailureKind = Literal[
    "recipe",  # could not be loaded, or lacks a method
    "exception",  # raised while it ran, or returned something that is no training step
    "nan",  # a metric was not finite
    "units",  # its work could not be counted
    "state",  # a checkpoint could not be loaded, restored or written
    "memory",
    "disk",
    "processes",
    "hang",  # silent for too long
    "protocol",  # the child process said what the worker's own harness would never say
    "exit",  # the child process ended without a word
    "killed",  # by somebody, or by a kernel short of memory: not by a limit on it
    "machine",  # this machine can't run it, or any other: no GPU, no sandbox, another environment
]

SCALED = ("norm", "grad", "scale")  # in names of metrics that a scaler's overflow makes infinite


def printable(text: str) -> str:
    """What a recipe said, without characters that a terminal would obey."""
    text = text.replace("\r", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


class Failure(UserError):
    """A recipe's or its process's failure. `message` says what was wrong, `hint` what to do, `trace` where."""

    def __init__(self, kind: FailureKind, message: str, hint: str | None = None, trace: str = "") -> None:
        super().__init__(message, hint)
        self.kind: FailureKind = kind
        self.trace = trace


def not_finite(name: str, value: float, step: int) -> Failure:
    """Of a metric. Loss scaling overflows by design, and says so by the norm of gradients that were never used."""
    if any(word in name.lower() for word in SCALED):
        hint = (
            f"with loss scaling (AMP) the first steps overflow by design, and the scaler skips them: leave {name} out "
            "of such a step's metrics, or clamp it. Without loss scaling, clip gradients, or try a lower learning rate"
        )
    else:
        hint = "try a lower learning rate"
    return Failure("nan", f"step {step}: {name} is {value}", hint)


def is_full(error: BaseException) -> bool:
    """Whether a disk had no room: that passes, and is not the recipe's fault."""
    # safetensors has an exception of its own, which tells the number in words.
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(f"(os error {number})" in str(error) for number in full)
