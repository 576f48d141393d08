"""Which machine comes nearest to what a job wants, and by what it falls short."""

from typing import Any

import pytest

from contracts.job.overrun import Overrun
from market.auction.wait_reasons import wait_reason
from market.matching import Reason
from market.store.models import BidRow
from tests.support.machines_on_offer import GPU, TOKEN, post, quote_in
from tests.support.market_parts import CPU, make_spec
from tests.support.offline_market import World

STRANGER = "0x00000000000000000000000000000000000000AA"
SHORT: list[tuple[dict[str, Any], str]] = [
    ({"resources": {"gpus": 2}}, "sells 1 GPUs at once; the job wants 2"),
    ({"environment": "torch-9.9"}, "has torch-2.13; the job wants torch-9.9"),
    ({"resources": {"memory_mb": 8_001}}, "has 8,000 MB of memory; the job wants 8,001 MB"),
    ({"resources": {"gpus": 1, "vram_mb": 25_000}}, "has GPUs of 24,000 MB; the job wants 25,000 MB"),
    ({"resources": {"gpus": 1, "devices": ["NVIDIA H100"]}}, f"has '{GPU.device}'; the job wants NVIDIA H100"),
    ({"resources": {"regions": ["us", "eu-fr"]}}, "is in a region not told; the job wants eu-fr, us"),
    ({"resources": {"tier": 2}}, "is of tier 0; the job wants 2"),
    ({"resources": {"numerics": ["0x" + "ab" * 32]}}, f"has no numerics class; the job wants 0x{'ab' * 32}"),
    ({"resources": {"providers": [STRANGER]}}, "is of a provider that the job does not name, or does not want"),
    (
        {"resources": {"units_per_hour": 3_700_000_000}},
        "does 3,600,000,000 work units an hour; 3,700,000,000 are needed",
    ),
]


@pytest.mark.parametrize(("asked", "told"), SHORT)
def test_the_rule_and_both_numbers_are_told(world: World, asked: dict[str, Any], told: str) -> None:
    for resources in (CPU, GPU):
        post(world, resources)
    quote = world.api.quote(quote_in(world, spec=make_spec(**asked)))
    [line] = [warning for warning in quote.warnings if warning.startswith("the nearest is ask 0x")]
    assert line.endswith(f", which {told}"), line


def test_the_nearest_of_several_by_price_and_by_stake(world: World) -> None:
    post(world, price_per_hour=9_000 * TOKEN)
    cheap = post(world, price_per_hour=7_000 * TOKEN)
    dear = world.api.quote(quote_in(world, max_price=TOKEN)).warnings
    assert f"of {cheap.address[:12]}, which takes 1.968" in dear[1] and dear[1].endswith(
        "the job's max_price is 1 tUSD"
    )
    world.set_account(cheap.address, free=100 * TOKEN)
    stake = world.api.quote(quote_in(world, max_price=4 * TOKEN, stake=60 * TOKEN)).warnings
    assert stake[1].endswith("locks 50 tUSD at most; the job wants 60 tUSD")


def test_a_waiting_job_tells_it_until_it_waits_for_something_else(world: World) -> None:
    provider = post(world, price_per_hour=9_000 * TOKEN)
    job = world.api.post_bid(world.bid(max_price=TOKEN)).id
    assert world.api.job(job).nearest == ""  # no epoch has said that it waits
    wait(world, job, str(Reason.PRICE))
    told = world.api.job(job)
    assert told.reason == Reason.PRICE
    assert f"of {provider.address[:12]}, which takes 2.5" in told.nearest
    wait(world, job, "something else")
    assert world.api.job(job).nearest == ""
    wait(world, job, str(Reason.CAPACITY))
    post(world, price_per_hour=3_000 * TOKEN)  # what nothing keeps from trading is busy, or goes to others
    assert world.api.job(job).nearest == ""


@pytest.mark.parametrize("overruns", [[Overrun(3.0, 2.0)], [None, Overrun(5.1, 2.0)], [None]])
@pytest.mark.parametrize("why", [Reason.PRICE, Reason.UNITS])
def test_a_job_that_was_given_back_tells_it_too(world: World, why: Reason, overruns: list[Overrun | None]) -> None:
    provider = post(world, price_per_hour=9_000 * TOKEN)
    job = world.api.post_bid(world.bid(max_price=TOKEN)).id
    wait(world, job, wait_reason(job, why, overruns))
    told = world.api.job(job)
    assert "gave it back: its steps take" in told.reason
    assert f"of {provider.address[:12]}, which takes 2.5" in told.nearest


def wait(world: World, job: str, reason: str) -> None:
    with world.context.db.session() as session:
        session.get_one(BidRow, job).wait_reason = reason
