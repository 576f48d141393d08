"""Which classes audits can tell of."""

from contracts.audits.coverage import problem_with_class
from contracts.audits.levels import OPEN, UNCHECKED
from contracts.commitment import machine_class
from contracts.types import to_hex

NUMERICS = {"torch": "2.13.0", "threads": 1}
CLASS = to_hex(machine_class(NUMERICS))


def test_what_the_ask_tells_must_be_the_claims() -> None:
    assert problem_with_class(NUMERICS, OPEN, CLASS, 0) is None
    assert problem_with_class({**NUMERICS, "threads": 2}, OPEN, CLASS, 0) is None
    assert "and the Ask sells 0x11" in (problem_with_class(NUMERICS, OPEN, "0x11", 0) or "")
    assert "its Ask tells none: register" in (problem_with_class(NUMERICS, OPEN, None, 0) or "")
    assert "the job wants 2" in (problem_with_class(NUMERICS, OPEN, CLASS, 2) or "")
    assert problem_with_class(NUMERICS, UNCHECKED, None, 0) is None  # nobody looks
