"""Fees stay below their cap and rise by what a node asks for."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.chain.sending.fees import fees_now, raised

WEI = st.integers(0, 2**80)


@given(WEI, WEI, WEI)
def test_fees_stay_below_the_cap(tip: int, base: int, cap: int) -> None:
    fees = fees_now(tip, base, cap)
    assert fees.tip <= fees.most <= cap
    assert fees.most == cap or fees == (tip, 2 * base + tip)


@given(WEI, WEI, WEI, WEI)
def test_both_fees_rise_by_an_eighth_at_least(tip: int, base: int, tip_now: int, base_now: int) -> None:
    old, today = fees_now(tip, base, 2**100), fees_now(tip_now, base_now, 2**100)
    new = raised(old, today, 2**100)
    assert new is not None
    assert all(8 * after >= 9 * before for before, after in zip(old, new, strict=True))
    assert new.tip >= today.tip
    assert new.most >= max(today.most, new.tip)
    assert raised(old, today, new.most) == new
    assert raised(old, today, new.most - 1) is None
