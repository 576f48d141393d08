"""Whose checkpoints an approver looks at, and who waits."""

import time
from types import SimpleNamespace
from typing import Any, cast

from market.approver.turns import PAUSE_SECONDS, LeaseTurn, Turns


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def reported(*leases: str) -> Any:
    """One checkpoint each; a lease is named PROVIDER-NUMBER."""
    return [cast(Any, SimpleNamespace(lease=lease)) for lease in leases]


def new_turns(at_once: int, clock: Any = time.monotonic) -> Turns:
    return Turns(at_once, lambda lease: lease.partition("-")[0], clock)


def names(turns: list[LeaseTurn]) -> list[str]:
    return [turn.lease for turn in turns]


def test_checkpoints_of_one_lease_are_one_turn_in_their_order() -> None:
    given = reported("a-1", "b-1", "a-1")
    turns = new_turns(2).of(given)
    assert names(turns) == ["a-1", "b-1"]
    assert turns[0].reported == [given[0], given[2]]


def test_one_provider_leaves_a_place_to_others() -> None:
    turns = new_turns(3)
    begun = turns.begin(turns.of(reported("a-1", "a-2", "a-3", "b-1", "c-1")))
    assert names(begun) == ["a-1", "a-2", "b-1"]
    assert turns.begin(turns.of(reported("a-1", "a-3", "c-1"))) == []  # all places are taken
    turns.end(begun[2], too_slow=False)
    assert names(turns.begin(turns.of(reported("a-1", "a-2", "a-3", "c-1")))) == ["c-1"]


def test_a_single_place_is_for_anybody() -> None:
    turns = new_turns(1)
    assert names(turns.begin(turns.of(reported("a-1", "a-2")))) == ["a-1"]


def test_who_took_long_comes_after_the_others() -> None:
    clock = Clock()
    turns = new_turns(2, clock)
    (slow,) = turns.begin(turns.of(reported("a-1")))
    clock.now += 5
    turns.end(slow, too_slow=False)
    assert names(turns.of(reported("a-1", "b-1", "c-1"))) == ["b-1", "c-1", "a-1"]


def test_what_can_not_be_checked_in_time_waits_longer_each_time() -> None:
    clock = Clock()
    turns = new_turns(2, clock)
    shortest, longest = PAUSE_SECONDS
    waited = []
    for _ in range(9):
        (slow,) = turns.begin(turns.of(reported("a-1")))
        turns.end(slow, too_slow=True)
        ended = clock.now
        while not (again := turns.begin(turns.of(reported("a-1")))):
            clock.now += shortest / 2
        waited.append(clock.now - ended)
        turns.end(again[0], too_slow=True)
        clock.now += 2 * longest
    assert waited[:2] == [shortest, 4 * shortest] and waited[-1] == longest
    (good,) = turns.begin(turns.of(reported("a-1")))
    turns.end(good, too_slow=False)
    assert names(turns.begin(turns.of(reported("a-1")))) == ["a-1"]
