"""Whose checkpoints are looked at when: leases beside each other, slow ones behind. Pure, but for a clock."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from contracts.api.bodies import CheckpointOut

PAUSE_SECONDS = (60.0, 3600.0)  # before a check that took too long is tried again; each time twice as long


@dataclass(eq=False)
class LeaseTurn:
    """What waits for a word on one lease, in the order of its coming."""

    lease: str
    reported: list[CheckpointOut] = field(default_factory=list)


class Turns:
    """At most `at_once` leases are looked at; one provider's never take all places, if there are several."""

    def __init__(
        self, at_once: int, provider: Callable[[str], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`provider`: of a lease, by its id; or the id itself, as long as it is not known."""
        self._at_once, self._provider, self._clock = at_once, provider, clock
        self._under_way: dict[str, LeaseTurn] = {}
        self._took: dict[str, float] = {}  # seconds, by lease, when it was looked at last
        self._pauses: dict[str, tuple[float, float]] = {}  # by lease: until when, and how long that is
        self._begun: dict[str, float] = {}

    def of(self, reported: Iterable[CheckpointOut]) -> list[LeaseTurn]:
        """Turns for what is reported, those first that took least the last time."""
        turns: dict[str, LeaseTurn] = {}
        for one in reported:
            turns.setdefault(one.lease, LeaseTurn(one.lease)).reported.append(one)
        self._took = {lease: took for lease, took in self._took.items() if lease in turns}
        self._pauses = {lease: pause for lease, pause in self._pauses.items() if lease in turns}
        return sorted(turns.values(), key=lambda turn: self._took.get(turn.lease, 0.0))

    def begin(self, turns: Iterable[LeaseTurn]) -> list[LeaseTurn]:
        """Those that may begin now; they are under way until `end`."""
        begun = []
        by_provider = Counter(map(self._provider, self._under_way))
        for turn in turns:
            if len(self._under_way) == self._at_once:
                break
            if turn.lease in self._under_way or self._clock() < self._pauses.get(turn.lease, (0.0, 0.0))[0]:
                continue
            provider = self._provider(turn.lease)
            if by_provider[provider] >= max(1, self._at_once - 1):
                continue
            by_provider[provider] += 1
            self._under_way[turn.lease], self._begun[turn.lease] = turn, self._clock()
            begun.append(turn)
        return begun

    def end(self, turn: LeaseTurn, *, too_slow: bool) -> None:
        now = self._clock()
        del self._under_way[turn.lease]
        self._took[turn.lease] = now - self._begun.pop(turn.lease)
        if not too_slow:
            self._pauses.pop(turn.lease, None)
            return
        shortest, longest = PAUSE_SECONDS
        pause = min(longest, 2 * self._pauses[turn.lease][1] if turn.lease in self._pauses else shortest)
        self._pauses[turn.lease] = now + pause, pause
