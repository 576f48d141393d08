"""How many blocks something of a value must have on top."""

import pytest

from contracts.finality import Finality, at_stake
from contracts.terms import Nums


@pytest.mark.parametrize(
    ("value", "blocks"), [(0, 2), (1, 3), (10, 3), (11, 4), (100, 12), (180, 20), (181, 20), (1 << 255, 20)]
)
def test_more_value_wants_more_blocks(value: int, blocks: int) -> None:
    policy = Finality(base=2, per=10, max=20)
    assert policy.confirmations(value) == blocks
    assert policy.is_final(100, 100 + blocks, value)
    assert not policy.is_final(100, 99 + blocks, value)


def test_a_devnet_waits_for_nothing() -> None:
    assert Finality().is_final(7, 7, 1 << 90)


def test_value_may_not_matter() -> None:
    assert Finality(base=3, per=0, max=64).confirmations(1 << 90) == 3


def test_a_lease_holds_its_lock_and_its_stake() -> None:
    assert at_stake(Nums(start=2, end=6, window=4, timeout=20, price=10, fee=1, ask_price=10), 100) == 144
