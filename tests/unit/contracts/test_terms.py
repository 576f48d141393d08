"""A lease's word on chain: what a window that has passed makes of it, as StateLib.sync does."""

import pytest

from contracts.terms import Flag, Nums, Phase, StateWord

NUMS = Nums(start=0, end=10, window=30, timeout=100, price=5, fee=0, ask_price=5)
LATE = Flag.LATE | Flag.BY_CLIENT


def stored(status: int, accepted: int, claimed: int) -> StateWord:
    return StateWord(status, 1, accepted, claimed, 1000, 7)


@pytest.mark.parametrize("phase", [Phase.ACTIVE, Phase.CLOSING])
def test_a_passed_window_accepts_what_is_pending(phase: Phase) -> None:
    state = stored(phase, 2, 4)
    assert state.synced(NUMS, 1029.9) == state
    assert state.synced(NUMS, 1030) == stored(phase, 4, 4)


def test_whoever_ended_late_is_forgiven_with_it() -> None:
    assert stored(Phase.CLOSING | LATE, 2, 4).synced(NUMS, 1030) == stored(Phase.CLOSING | Flag.BY_CLIENT, 4, 4)
    assert stored(Phase.CLOSING | LATE, 2, 4).synced(NUMS, 1029).flags == LATE


@pytest.mark.parametrize(
    "state",
    [
        stored(Phase.CLOSING | LATE, 4, 4),  # nothing is pending, so nothing is forgiven
        stored(Phase.CHALLENGED | Flag.WAS_CLOSING, 2, 4),
        stored(Phase.CLOSED, 2, 4),
        stored(Phase.NONE, 0, 0),
    ],
)
def test_all_else_stays(state: StateWord) -> None:
    assert state.synced(NUMS, 10**9) == state
