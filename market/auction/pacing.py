"""How fast the market spends gas on what strangers ask of it. Pure, but for a clock.

Two things hold strangers back. An epoch that matches nothing is held once in a while only: whoever posts orders that
nobody wants pays nothing for it. And what epochs and openings use comes out of a budget: when it is used up, the next
epoch waits until there is room, though never longer than a minute. A receipt promises by its number the epoch that will
consider an order, not when that is: so none is broken, and no order is left out.
"""

import threading
import time
from collections.abc import Callable

from contracts.types import SECONDS_PER_HOUR

BURST = 0.1  # of an hour's budget, which may be used at once
LONGEST_WAIT = 60.0  # seconds that an epoch waits for the budget; then it is held all the same
VAIN_SECONDS = (60.0, 600.0)  # between two epochs that match nothing: at first, and at most; twice as long each time


class Pacing:
    """One process's. After a restart the budget is whole again."""

    def __init__(self, gas_per_hour: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = gas_per_hour / SECONDS_PER_HOUR, clock
        self._most = self._left = gas_per_hour * BURST
        self._looked = self._held = clock()
        self._vain_pause, self._vain_until = VAIN_SECONDS[0], self._looked
        self._lock = threading.Lock()

    def use(self, gas: int) -> None:
        """Of a transaction of an epoch: its root, or leases that it opens."""
        with self._lock:
            self._refill()
            self._left -= gas

    def held(self, *, in_vain: bool) -> None:
        """An epoch was published; in vain if it matched nothing."""
        now = self._held = self._clock()
        shortest, longest = VAIN_SECONDS
        if in_vain:
            self._vain_until = now + self._vain_pause
            self._vain_pause = min(longest, 2 * self._vain_pause)
        else:
            self._vain_pause, self._vain_until = shortest, now

    def wait(self) -> float:
        """Seconds until the next epoch may begin."""
        with self._lock:
            self._refill()
            missing = max(0.0, -self._left) / self._rate
        return max(0.0, min(missing, self._held + LONGEST_WAIT - self._clock()))

    def vain_wait(self) -> float:
        """Seconds until an epoch may be held that matches nothing."""
        return max(0.0, self._vain_until - self._clock())

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._looked) * self._rate)
        self._looked = now
