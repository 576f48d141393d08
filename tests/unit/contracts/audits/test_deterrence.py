"""Stakes that deter: the published table to its digits, the defaults, and that the escrow's rounding costs nothing."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.audits.deterrence import (
    OWN_SHARE,
    default_stake,
    described,
    deterring_penalty,
    deters,
    expected_replays,
    least_penalty,
    penalty_of,
    replay_cost,
    stake_prices,
)
from contracts.audits.draw import threshold
from contracts.audits.levels import CLOSED, OPEN, UNCHECKED
from contracts.audits.verification import MAX_APPROVE_EVERY, PPM

COLUMNS = [(1, 0), (1, 30), (4, 0), (4, 15), (4, 30), (8, 0), (8, 15), (8, 30)]  # m, and s in percent
TABLE = {
    2: "49 70 48 56 69 46 54 67",
    5: "19 28 18 21 26 16 19 24",
    10: "9 13 7.6 9.4 12 6.0 7.7 10",
    20: "4 6.1 2.8 3.6 4.8 1.6 2.3 3.4",
    30: "2.3 3.8 1.3 1.8 2.6 0.5 0.8 1.4",
}


@pytest.mark.parametrize("percent", TABLE)
def test_the_table(percent: int) -> None:
    for (m, s), printed in zip(COLUMNS, TABLE[percent].split(), strict=True):
        digits = len(printed.partition(".")[2])
        found = least_penalty(Fraction(percent, 100), m, Fraction(s, 100))
        assert f"{float(found):.{digits}f}" == printed, (percent, m, s)


def brute(q: float, m: int) -> float:
    """What a liar would have to lose, by its own expectation at a penalty p: gain j, or lose m - j + p."""
    low, high = 0.0, 1e9
    for _ in range(200):
        p = (low + high) / 2
        best = max(j * (1 - q) ** j - (1 - (1 - q) ** j) * (m - j + p) for j in range(1, m + 1))
        low, high = (p, high) if best > 0 else (low, p)
    return low


@given(st.integers(10_000, 900_000), st.integers(1, 12))
def test_it_is_where_a_lie_begins_to_lose(ppm: int, m: int) -> None:
    found = float(least_penalty(Fraction(ppm, PPM), m, Fraction(0)))
    assert max(found, 0.0) == pytest.approx(brute(ppm / PPM, m), rel=1e-6, abs=1e-6)


def test_the_defaults() -> None:
    assert (stake_prices(CLOSED), stake_prices(OPEN)) == (Fraction(27, 2), Fraction(5))
    assert default_stake(CLOSED, 1_000_000, 3_000_000) == 16_500_000
    assert default_stake(OPEN, 1_000_000, 3_000_000) == 8_000_000
    with pytest.raises(ValueError, match="no stake deters"):
        default_stake(UNCHECKED, 1, 1)
    assert not deters(UNCHECKED, 10**30, 1, 0)


@given(st.sampled_from([OPEN, CLOSED]), st.integers(1, 10**24), st.integers(0, 10**24))
def test_the_default_deters_at_any_price(level: type[OPEN], price: int, fee: int) -> None:
    stake = default_stake(level, price, fee)
    assert deters(level, stake, price, fee)
    less = fee + price * 4  # an open one needs 4.9 prices, a closed one 13.5
    assert not deters(level, less, price, fee)


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_the_penalty_is_what_the_escrow_keeps(stake: int, fee: int) -> None:
    rest = max(0, stake - fee)
    challenger = rest * 20 // 100
    assert penalty_of("closed", stake, fee) == rest - challenger
    assert penalty_of("open", stake, fee) == rest


@given(st.integers(1, PPM - 1), st.integers(1, 20), st.sampled_from([Fraction(0), OWN_SHARE, Fraction(3, 10)]))
def test_every_length_of_a_batch_is_deterred(ppm: int, every: int, s: Fraction) -> None:
    needed = deterring_penalty(ppm, every, s)
    for size in range(1, every + 1):
        seen = Fraction(threshold(ppm, every, size), 1 << 256) * (1 - s)
        for lies in range(1, size + 1):
            away = (1 - seen) ** lies
            assert away * lies <= (1 - away) * (size - lies + needed)


@given(st.integers(1, 200))
def test_what_the_buyer_pays(checkpoints: int) -> None:
    expected = expected_replays(CLOSED, checkpoints)
    assert expected >= Fraction(checkpoints, 10) - Fraction(1, 10**60)
    assert expected - Fraction(checkpoints, 10) < Fraction(1, 4)  # the short batch: at most 0.244 of a replay more
    cost = replay_cost(CLOSED, checkpoints, 1_000_003)
    assert 0 <= cost - expected * 1_000_003 < 1
    if checkpoints % 4 == 0:
        assert round(float(expected), 9) == checkpoints / 10


def test_nothing_seen() -> None:
    for q, s, unaudited in ((0, 0, 0), (Fraction(1, 2), 1, 0), (Fraction(1, 2), 0, 1)):
        with pytest.raises(ValueError, match="nothing would be seen"):
            least_penalty(Fraction(q), 4, Fraction(s), Fraction(unaudited))


def test_the_widest_batch_is_counted_in_no_time() -> None:
    assert deterring_penalty(1, MAX_APPROVE_EVERY) > 0


def test_what_a_level_is_in_words() -> None:
    assert described(OPEN) == (
        "open: 20 % of the checkpoints are replayed, for about 20 % more, and 6 approved together; what differs voids "
        "the lease. A stake of 5 prices and the arbiter's fee deters"
    )
    assert "closed: 10 %" in described(CLOSED) and "A stake of 13.5 prices" in described(CLOSED)
    assert "0.25 % of the checkpoints" in described(OPEN.model_copy(update={"share_ppm": 2_500}))
    assert "100 % of the checkpoints" in described(OPEN.model_copy(update={"share_ppm": PPM}))
    assert described(None) == described(UNCHECKED)
