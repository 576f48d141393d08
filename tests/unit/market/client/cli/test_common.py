"""Numbers as `gpumarket job` and `offer` show them, as extreme as strangers may make them."""

from datetime import UTC, datetime

import pytest

from contracts.amounts import MAX_AMOUNT, format_amount
from contracts.clocks import utc_text
from market.client.cli.common import short_time


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 s"),
        (5e-324, "4.94e-324 s"),
        (59.94, "59.9 s"),
        (60, "0:01:00"),
        (86_400 * 3 + 1, "3 days, 0:00:01"),
        (1e9 - 1, "11574 days, 1:46:39"),
        (1e9, "over 30 years"),
        (2.4e17, "over 30 years"),
        (4.4e27, "over 30 years"),
        (1.7e308, "over 30 years"),
        (float("inf"), "over 30 years"),
    ],
)
def test_short_times(seconds: float, shown: str) -> None:
    assert short_time(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "1970-01-01 00:00:00 UTC"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp(), "9999-12-31 23:59:59 UTC"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp() + 1, "after the year 9999"),
        ((1 << 40) - 1, "after the year 9999"),
        ((1 << 256) - 1, "after the year 9999"),
    ],
)
def test_moments(seconds: float, shown: str) -> None:
    assert utc_text(seconds) == shown


@pytest.mark.parametrize("decimals", [0, 6, 18, 77])
@pytest.mark.parametrize("amount", [0, 1, MAX_AMOUNT, (1 << 256) - 1])
def test_amounts_are_whole(amount: int, decimals: int) -> None:
    whole, _, fraction = format_amount(amount, decimals).partition(".")
    assert int(whole + fraction.ljust(decimals, "0")) == amount
