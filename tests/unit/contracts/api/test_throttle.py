"""Transfers stay below a rate; the clock is the test's."""

import pytest

from contracts.api import throttle
from contracts.api.throttle import Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throttle, "time", clock)
    return clock


def test_a_long_transfer_takes_its_time(clock: Clock) -> None:
    limited = Throttle(1000)
    for _ in range(100):
        limited.wait(limited.chunk)
    assert clock.now == pytest.approx(1000 + 100 * limited.chunk / 1000 - throttle.BURST_SECONDS)


def test_a_rest_is_not_saved_up(clock: Clock) -> None:
    limited = Throttle(1000)
    limited.wait(5_000)
    clock.now += 3600
    began = clock.now
    limited.wait(5_000)
    assert clock.now - began == pytest.approx(5 - throttle.BURST_SECONDS)


def test_chunks_are_small_where_the_rate_is() -> None:
    assert [Throttle(rate).chunk for rate in (1, 10_000, 10**9)] == [1, 1_000, 1 << 20]
