"""What strangers can make a market spend in an hour, and that nobody waits for ever."""

from itertools import pairwise

import pytest

from market.auction.pacing import BURST, LONGEST_WAIT, VAIN_SECONDS, Pacing

EPOCH, OPENING = 50_000, 120_000  # gas


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def an_hour(pacing: Pacing, clock: Clock, gas: int) -> list[float]:
    """When epochs are held, if each uses that much and something is always new."""
    began, held = clock.now, []
    while clock.now < began + 3600:
        clock.now += pacing.wait()
        held.append(clock.now)
        pacing.use(gas)
        pacing.held(in_vain=False)
        clock.now += 5  # epoch_seconds
    return held


def test_a_quiet_market_never_waits() -> None:
    clock = Clock()
    pacing = Pacing(30_000_000, clock)
    for _ in range(100):
        assert pacing.wait() == 0
        pacing.use(EPOCH)
        pacing.held(in_vain=False)
        clock.now += 30


def test_a_stranger_gets_no_more_than_the_budget() -> None:
    clock = Clock()
    pacing = Pacing(6_000_000, clock)
    held = an_hour(pacing, clock, EPOCH)
    assert len(held) * EPOCH <= 6_000_000 * (1 + BURST) + EPOCH
    assert held[1] - held[0] == 5  # at first nobody waits


@pytest.mark.parametrize("gas", [EPOCH + OPENING, EPOCH + 100 * OPENING])
def test_an_honest_order_waits_a_minute_at_most(gas: int) -> None:
    clock = Clock()
    held = an_hour(Pacing(100_000, clock), clock, gas)
    assert max(after - before for before, after in pairwise(held)) <= LONGEST_WAIT + 5


def test_epochs_in_vain_become_rare_until_one_matches() -> None:
    clock = Clock()
    pacing = Pacing(30_000_000, clock)
    shortest, longest = VAIN_SECONDS
    assert pacing.vain_wait() == 0
    waits = []
    for _ in range(6):
        pacing.held(in_vain=True)
        waits.append(pacing.vain_wait())
        clock.now += waits[-1]
        assert pacing.vain_wait() == 0
    assert waits == [shortest, 2 * shortest, 4 * shortest, 8 * shortest, longest, longest]
    pacing.held(in_vain=False)
    assert pacing.vain_wait() == 0
    pacing.held(in_vain=True)
    assert pacing.vain_wait() == shortest
