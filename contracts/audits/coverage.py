"""Which checkpoints audits can tell of: those of a numerics class that others can have. Pure."""

from collections.abc import Mapping
from typing import Any

from contracts.audits.verification import Verification
from contracts.commitment import machine_class
from contracts.types import to_hex


def problem_with_class(
    numerics: Mapping[str, Any], verification: Verification, told: str | None, asked: int
) -> str | None:
    """Why no replay could tell of a checkpoint's bits: its numerics class is not the one that its Ask tells, or one
    that the rules' audits do not cover; None if nothing is wrong. `told`: by the Ask; None: nothing.
    `asked`: threads that the job wants; 0: any.
    """
    found = to_hex(machine_class(numerics))
    if told is None and verification.level != "unchecked":
        return f"it was made in the numerics class {found}, and its Ask tells none: register the machine again"
    if told is not None and found != told:
        return f"it was made in the numerics class {found}, and the Ask sells {told}: register the machine again"
    if verification.classes and found not in verification.classes:
        return f"its numerics class {found} is not among the {len(verification.classes)} that the rules' audits cover"
    threads, bounds = numerics.get("threads"), verification.threads
    if asked and threads != asked:
        return f"it was made with {threads!r:.40} threads; the job wants {asked}"
    if bounds and not (type(threads) is int and bounds.least <= threads <= bounds.most):
        return f"it was made with {threads!r:.40} threads; the rules' audits cover {bounds.least} to {bounds.most}"
    return None
