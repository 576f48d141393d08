"""What a lease must pay to cover its gas."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tests.support import ROOT
from worker.agent import gas
from worker.agent.gas import GasPrice, lease_gas, least_pay

GWEI = 10**9


def test_the_constants_are_those_that_were_measured() -> None:
    text = (ROOT / "docs" / "gas.md").read_text()
    measured = {
        name: int(value.replace(",", "")) for name, value in re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", text, re.M)
    }
    assert (measured["redeem_partial"], measured["redeem_complete"]) == (gas.REDEEM, gas.REDEEM_LAST)
    assert measured["claim"] == gas.CLAIM


def test_gas_in_tokens_is_rounded_up() -> None:
    price = GasPrice(20 * GWEI, 2500 * 10**6)  # 2500 tokens of 6 digits an ETH
    assert price.in_tokens(50_000) == 2_500_000  # 0.001 ETH
    assert GasPrice(1, 1).in_tokens(1) == 1
    assert GasPrice(20 * GWEI).in_tokens(50_000) is None


def test_no_wish_and_no_lease_that_is_worth_it() -> None:
    price = GasPrice(20 * GWEI, 2500 * 10**6)
    assert least_pay(10**6, GasPrice(20 * GWEI), 1800, 3) == 0  # nobody said what an ETH is worth
    # A redeemed approval each half hour costs about 5 tokens an hour: a provider at 1 an hour loses by working.
    assert least_pay(10**6, price, 1800, 1) is None
    assert least_pay(10**7, price, 1800, 1) is not None


@given(
    rate=st.integers(1, 10**9), wei=st.integers(1, 10**12), worth=st.integers(1, 10**10),
    every=st.floats(10, 10**5), times=st.floats(0.1, 100),
)  # fmt: skip
def test_a_lease_that_pays_the_least_covers_its_gas(
    rate: int, wei: int, worth: int, every: float, times: float
) -> None:
    price = GasPrice(wei, worth)
    least = least_pay(rate, price, every, times)
    if least is not None:
        cost = price.in_tokens(lease_gas(3600 * least / rate, every))
        assert cost is not None
        assert least * 1.000001 + times + 1 >= times * (cost - 2)
