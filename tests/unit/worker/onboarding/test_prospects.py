"""What a market suggests to somebody who has a machine: what such machines get, ask, or what as much work costs."""

from typing import Any

import pytest

from contracts.api.offers import OfferOut
from tests.support.worker_leases import PROVIDER
from worker.onboarding.prospects import Demand, Hour, power_cost


def offer(price: int, device: str = "A", *, units: int = 100, free: bool = True) -> OfferOut:
    return OfferOut(
        ask="0x" + "11" * 32, provider=PROVIDER.address, rules="unchecked", device=device, gpus=1, vram_mb=1,
        memory_mb=1, environments=["torch-2.13"], region="", hosts=[], tier=0, units_per_hour=units,
        price_per_hour=price, max_stake=1, max_checkpoints=1, free=free, job=None, numerics=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("offers", "cleared", "price", "source"),
    [
        ([offer(900), offer(700)], [500, 600, 640], 600, "such machines get"),
        ([offer(900), offer(700), offer(10, "B")], [], 800, "such machines ask"),
        ([offer(400, "B", units=200), offer(900, "B", units=300)], [], 250, "as much work"),
    ],
)
def test_the_nearest_that_is_known(offers: list[OfferOut], cleared: list[int], price: int, source: str) -> None:
    found = demand(offers, cleared).suggestion(units_per_hour=100)
    assert found is not None and found.price == price and source in found.source


def test_an_empty_market_suggests_nothing() -> None:
    empty = demand([])
    assert empty.suggestion(100) is None and empty.busy_share is None


def test_how_busy_such_machines_are() -> None:
    assert demand([offer(1, free=False), offer(1), offer(1, "B")]).busy_share == 0.5
    assert demand([offer(1, "B", free=False)]).busy_share == 1  # nothing like it: all kinds
    assert demand([offer(1), offer(1, "B", free=False)]).busy_share == 0


def test_power_may_cost_more_than_a_lease_pays() -> None:
    assert power_cost(450, 300_000) == 135_000
    assert Hour(100_000, power_cost(450, 300_000), None).left == -35_000
    assert Hour(100_000, None, 1_000).left == 99_000


def demand(offers: list[OfferOut], cleared: Any = ()) -> Demand:
    return Demand("A", 1, offers, cleared, waiting=0, running=0)
