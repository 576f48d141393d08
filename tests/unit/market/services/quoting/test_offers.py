"""The list of what is on offer: what a machine is, filters, pages."""

from typing import Any

import pytest

from contracts.api.offers import OffersIn
from contracts.api.problems import Code, Problem
from tests.support.machines_on_offer import GPU, TOKEN, offers, post, quote_in
from tests.support.market_parts import (
    CPU,
    FOREVER,
    make_lease,
    make_spec,
)
from tests.support.offline_market import DOMAIN, World


def test_an_empty_market(world: World) -> None:
    assert offers(world, devices=["RTX 4090"], regions=["eu"], environment="torch-2.13") == []
    assert offers(world, job=quote_in(world, max_price=None), misfits=True) == []


def test_what_a_machine_is(world: World) -> None:
    provider = post(world, GPU, price_per_hour=7_200 * TOKEN, max_checkpoints=3)
    [one] = offers(world)
    assert (one.provider, one.rules, one.device, one.gpus, one.vram_mb, one.memory_mb, one.region, one.tier) == (
        provider.address, "unchecked", GPU.device, 1, 24_000, 8_000, "eu-de", 0
    )  # fmt: skip
    assert (one.units_per_hour, one.price_per_hour, one.max_stake, one.max_checkpoints) == (
        3_600_000_000, 7_200 * TOKEN, 50 * TOKEN, 3
    )  # fmt: skip
    assert (one.environments, one.hosts, one.free, one.job) == (["torch-2.13"], [], True, None)


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "cheap fast gpu"),
    ({"devices": [GPU.device]}, "gpu"),
    ({"devices": [GPU.device, CPU.device]}, "cheap fast gpu"),
    ({"gpus": 0}, "cheap fast"),
    ({"gpus": 1}, "gpu"),
    ({"gpus": 2}, ""),
    ({"min_vram_mb": 24_000}, "gpu"),
    ({"min_vram_mb": 24_001}, ""),
    ({"regions": ["eu-de", "us"]}, "fast gpu"),
    ({"min_tier": 1}, ""),
    ({"environment": "torch-2.13"}, "cheap fast gpu"),
    ({"rules": "unchecked"}, "cheap fast gpu"),
    ({"min_units_per_hour": 3_600_000_001}, "fast"),
    ({"max_price_per_hour": 3_600 * TOKEN}, "cheap"),
    ({"free": True}, "cheap gpu"),
]


def test_filters(world: World) -> None:
    resources = CPU.model_copy(update={"region": "us"})
    fast = post(world, resources, price_per_hour=9_000 * TOKEN, units_per_hour=7_200_000_000).address
    world.set_account(fast, free=50 * TOKEN, active=1)
    names = {fast: "fast", post(world).address: "cheap", post(world, GPU, price_per_hour=7_200 * TOKEN).address: "gpu"}
    for asked, shown in FILTERS:
        assert " ".join(names[one.provider] for one in offers(world, **asked)) == shown, asked


NAMES: list[tuple[dict[str, Any], str]] = [
    ({"devices": ["4090"]}, "devices: no machine on offer has '4090'; did you mean 'NVIDIA GeForce RTX 4090'?"),
    ({"devices": [CPU.device, "nvidia geforce rtx 4091"]}, "did you mean 'NVIDIA GeForce RTX 4090'?"),
    ({"regions": ["mars"]}, "regions: no machine on offer has 'mars'; there are: eu-de"),
    ({"environment": "torch-2.12"}, "did you mean 'torch-2.13'?"),
    ({"rules": "audit"}, "no rules named 'audit'"),
]


def test_a_name_that_nothing_has(world: World) -> None:
    post(world, GPU)
    post(world)
    for asked, says in NAMES:
        with pytest.raises(Problem) as caught:
            offers(world, **asked)
        assert caught.value.status == 422 and says in caught.value.message


def test_what_can_not_be_matched_is_not_on_offer(world: World) -> None:
    gone, poor = post(world), post(world)
    world.set_account(gone.address, free=100 * TOKEN, page=1)
    world.set_account(poor.address, free=1)
    assert offers(world) == []


def test_a_machine_is_there_once_though_its_ask_was_made_anew(world: World) -> None:
    world.api.post_ask(world.ask(valid_until=FOREVER - 1))
    world.api.post_ask(world.ask(price_per_hour=3_500 * TOKEN))
    world.api.post_ask(world.ask(price_per_hour=3_700 * TOKEN))
    assert [one.price_per_hour for one in offers(world)] == [3_500 * TOKEN]
    world.set_account(world.provider.address, free=100 * TOKEN, page=1)  # that cancels all of them
    world.api.post_ask(world.ask(price_per_hour=3_800 * TOKEN, page=1))
    assert [one.price_per_hour for one in offers(world)] == [3_800 * TOKEN]


def test_a_provider_that_was_paid_for_ten_checkpoints_has_a_tier(world: World) -> None:
    post(world)
    world.api.post_ask(world.ask())
    row = make_lease(world.bid().bid, DOMAIN, world.provider.address, end=10, settled=10)
    with world.context.db.session() as session:
        session.add(row)
    [one] = offers(world, min_tier=1)
    assert (one.provider, one.tier) == (world.provider.address, 1)
    job = quote_in(world, spec=make_spec(resources={"tier": 1}))
    assert [one.provider for one in offers(world, job=job)] == [world.provider.address]
    assert world.api.quote(job).likely_ask == one.ask


@pytest.mark.parametrize("job", [False, True])
def test_pages(world: World, job: bool) -> None:
    for price in (5, 3, 3, 1, 4):
        post(world, price_per_hour=price * 1_000 * TOKEN)
    asked: dict[str, Any] = {"job": quote_in(world, max_price=9 * TOKEN)} if job else {}
    page = world.api._http.post("/v1/offers", json=OffersIn(limit=2, **asked).model_dump(mode="json")).json()
    assert len(page["items"]) == 2 and page["next"]
    found = offers(world, limit=2, **asked)
    assert [one.price_per_hour // TOKEN for one in found] == [1_000, 3_000, 3_000, 4_000, 5_000]
    assert len({one.ask for one in found}) == 5
    assert len(offers(world, limit=5, **asked)) == 5


def test_a_cursor_of_another_list(world: World) -> None:
    for cursor in ("x", "", "W10", "WzAsMSwyLCJ4Il0x", "WzAsMSwyLDNd", "W1tbW1tb" * 100):
        problem = world.refuses(lambda after=cursor: offers(world, after=after), 422, Code.VALIDATION_FAILED)
        assert "is not a cursor of this list" in problem.message
