"""What is sent to the cold address, and what never is."""

from hypothesis import given
from hypothesis import strategies as st

from worker.agent.sweep import Sweep, plan_sweep

AMOUNT = st.integers(0, 10**6)


@given(held=AMOUNT, free=AMOUNT, above=AMOUNT, stake=AMOUNT)
def test_promises(held: int, free: int, above: int, stake: int) -> None:
    sweep = plan_sweep(held, free, above, stake)
    assert 0 <= sweep.from_wallet <= held and 0 <= sweep.from_escrow <= free
    left = held + free - sweep.amount
    assert free - sweep.from_escrow >= min(free, stake)  # the Ask stays covered
    assert left >= min(held + free, above)  # no more than is over the limit
    # What is still over the limit is stake, or makes up for it.
    assert left <= max(above, stake) or (free <= stake and sweep.from_wallet == held)
    assert plan_sweep(held - sweep.from_wallet, free - sweep.from_escrow, above, stake).amount == 0


def test_examples() -> None:
    assert plan_sweep(held=0, free=150, above=100, stake=100) == Sweep(0, 50)
    assert plan_sweep(held=30, free=100, above=100, stake=100) == Sweep(30, 0)
    assert plan_sweep(held=30, free=120, above=10, stake=100) == Sweep(30, 20)
    assert plan_sweep(held=0, free=50, above=10, stake=100) == Sweep(0, 0)
