"""Clocks that differ: told with each difference, and refused only where what is signed would be refused."""

import pytest

from contracts.clocks import check_clocks, clock_difference
from contracts.errors import UserError

NOW = 1_900_000_000.0


@pytest.mark.parametrize(
    ("market", "chain"),
    [(NOW, NOW), (NOW + 500, NOW - 90_000), (NOW - 500, NOW + 3000), (None, NOW), (None, None), (NOW, None)],
)
def test_what_does_no_harm(market: float | None, chain: float | None) -> None:
    check_clocks(NOW, market, chain)


@pytest.mark.parametrize(
    ("market", "chain", "words", "hint"),
    [
        (
            NOW - 7200,
            NOW - 7210,
            "2 h ahead of the market's clock, 2 h ahead of the chain's newest block, those two",
            "set",
        ),
        (
            NOW + 7200,
            NOW + 7195,
            "2 h behind the market's clock, 2 h behind the chain's newest block, those two",
            "set",
        ),
        (None, NOW + 5400, "1 h 30 min behind the chain's newest block", "set this machine's clock"),
        (NOW + 2, NOW + 7200, "as the market's clock does, 2 h behind the chain's newest block", "right node"),
        (NOW + 600, NOW, "10 min behind the market's clock, as the chain's newest block does", "operator"),
        (NOW - 86_400 * 9, None, "9 days ahead of the market's clock", "set"),
    ],
)
def test_all_differences_are_named(market: float | None, chain: float | None, words: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        check_clocks(NOW, market, chain)
    assert f"this machine's says 2030-03-17 17:46:40 UTC, {words}" in caught.value.message
    assert hint in (caught.value.hint or "")


def test_spans() -> None:
    told = [clock_difference(NOW + seconds, NOW, "x") for seconds in (59, 60, 119, -120, 3599, 3600, -3660, 200_000)]
    assert told == [
        "as x does", "60 s ahead of x", "119 s ahead of x", "2 min behind x", "1 h ahead of x", "1 h ahead of x",
        "1 h 1 min behind x", "2 days ahead of x",
    ]  # fmt: skip
