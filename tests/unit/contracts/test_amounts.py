"""Amounts are exact, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.amounts import MAX_AMOUNT, format_amount, parse_amount
from contracts.errors import UserError


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12.5", 12_500_000), ("0", 0), ("0.000001", 1), ("007", 7_000_000), ("1.10000000000", 1_100_000)],
)
def test_parse(text: str, amount: int) -> None:
    assert parse_amount(text, 6) == amount


@pytest.mark.parametrize("text", ["", "1e3", "-1", "+1", "1,5", ".5", "5.", "0x10", "1 000", "nan", "１２", "1\n"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(UserError, match="is not an amount"):
        parse_amount(text, 6)


def test_too_many_digits() -> None:
    with pytest.raises(UserError, match=r"'0\.0000001' has 7 digits after the point, the token has 6") as caught:
        parse_amount("0.0000001", 6)
    assert caught.value.hint == "the smallest amount is 0.000001"


@pytest.mark.parametrize("text", [format_amount(MAX_AMOUNT + 1, 6), "9" * 5000])
def test_more_than_the_escrow_counts(text: str) -> None:
    with pytest.raises(UserError, match="more than the escrow can count"):
        parse_amount(text, 6)


@given(st.integers(0, MAX_AMOUNT), st.integers(0, 18))
def test_there_and_back(amount: int, decimals: int) -> None:
    text = format_amount(amount, decimals)
    assert parse_amount(text, decimals) == amount
    assert not ("." in text and text.endswith(("0", ".")))
