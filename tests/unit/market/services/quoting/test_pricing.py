"""What a job would pay now on each machine, and why a machine does not fit."""

from typing import Any

import pytest

from contracts.api.problems import Code
from market.services.quoting import pricing
from tests.support.machines_on_offer import TOKEN, offers, post, quote_in, rival
from tests.support.market_parts import (
    CPU,
    make_spec,
)
from tests.support.offline_market import World


def test_what_a_job_costs_on_each_machine(world: World) -> None:
    slow = post(world, price_per_hour=1_000 * TOKEN, units_per_hour=1_800_000_000)
    fast = post(world, price_per_hour=5_400 * TOKEN, units_per_hour=7_200_000_000)
    first, second = offers(world, job=quote_in(world))
    assert (first.provider, second.provider) == (slow.address, fast.address)
    assert first.job is not None and second.job is not None
    assert (first.job.price, first.job.cost, first.job.seconds_per_checkpoint, first.job.seconds) == (
        555_556, 4 * 555_556, 2.0, 8.0
    )  # fmt: skip
    assert (second.job.price, second.job.cost, second.job.seconds) == (750_000, 3 * TOKEN, 2.0)
    # For an hour of the fast one the client would pay 14,400 - 5,400 more than it costs; of the slow one 3,600 - 1,000.
    assert (first.job.likely, second.job.likely) == (False, True)
    quote = world.api.quote(quote_in(world))
    assert (quote.likely_price, quote.likely_ask, quote.likely_cost) == (750_000, second.ask, 3 * TOKEN)
    assert quote.lowest_limit == first.job.lowest_limit == 562_308
    assert world.api.quote(quote_in(world, max_price=first.job.lowest_limit)).likely_ask == first.ask
    assert world.api.quote(quote_in(world, max_price=first.job.lowest_limit - 1)).likely_ask is None


NEEDS: list[tuple[dict[str, Any], str | None]] = [
    ({"resources": {"gpus": 1}}, "lot"),
    ({"environment": "torch-9.9"}, "environment"),
    ({"resources": {"devices": ["NVIDIA H100"]}}, "device"),
    ({"resources": {"memory_mb": 8_001}}, "memory"),
    ({"resources": {"regions": ["eu-fr", "us"]}}, "region"),
    ({"resources": {"tier": 1}}, "tier"),
    ({"resources": {"units_per_hour": 3_600_000_001}}, "speed"),
    ({"deadline": "2099-01-01T00:00:00Z"}, None),
    ({"resources": {"regions": ["eu-de"], "devices": [CPU.device], "units_per_hour": 3_500_000_000}}, None),
]


def test_why_a_machine_does_not_fit(world: World) -> None:
    post(world, CPU.model_copy(update={"region": "eu-de"}))
    for asked, reason in NEEDS:
        job = quote_in(world, spec=make_spec(**asked))
        [one] = offers(world, job=job, misfits=True)
        assert one.job is not None and one.job.reason == reason
        assert [one.ask for one in offers(world, job=job)] == ([] if reason else [one.ask])
        quote = world.api.quote(job)
        assert quote.matching_asks == (0 if reason else 1)
        assert any("no open ask fits" in warning for warning in quote.warnings) == bool(reason)


@pytest.mark.parametrize(("terms", "reason"), [({"max_price": 1_012_154}, "price"), ({"stake": 60 * TOKEN}, "stake")])
def test_terms_that_no_machine_takes(world: World, terms: dict[str, Any], reason: str) -> None:
    post(world)
    [one] = offers(world, job=quote_in(world, **terms), misfits=True)
    assert one.job is not None and (one.job.reason, one.job.lowest_limit) == (reason, 1_012_155)
    quote = world.api.quote(quote_in(world, **terms))
    enough = "; the least max_price for one with this stake is 1.012155 tUSD" if reason == "price" else ""
    assert f"machines fit the job, but none at this max_price and stake{enough}" in quote.warnings


def test_a_name_that_nothing_has_is_told_by_the_quote(world: World) -> None:
    post(world, CPU.model_copy(update={"region": "eu-de"}))
    quote = world.api.quote(quote_in(world, spec=make_spec(resources={"regions": ["eu-d"]})))
    assert quote.warnings[0].endswith("no machine is in a region that the job wants")
    assert quote.warnings[1] == "regions: no machine on offer has 'eu-d'; did you mean 'eu-de'?"


def test_others_who_want_the_machine_raise_the_price(world: World) -> None:
    post(world)
    rival(world, 1_200_000)
    quote = world.api.quote(quote_in(world))
    assert quote.likely_price == 1_185_590  # what an hour is worth to the other, at the class's speed
    outbid = world.api.quote(quote_in(world, max_price=1_100_000))
    assert (outbid.matching_asks, outbid.likely_price, outbid.likely_cost) == (1, None, None)
    assert "for now it would wait: others pay more for the machines that fit" in outbid.warnings
    post(world)
    assert world.api.quote(quote_in(world)).likely_price == TOKEN


def test_in_a_large_book_a_job_is_tried_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    post(world)
    rival(world, 1_200_000)
    monkeypatch.setattr(pricing, "MOST_ORDERS", 1)
    assert world.api.quote(quote_in(world)).likely_price == TOKEN


def test_while_all_are_busy_a_quote_says_what_one_would_cost_then(world: World) -> None:
    provider = post(world)
    world.set_account(provider.address, free=50 * TOKEN, active=1)
    quote = world.api.quote(quote_in(world))
    assert (quote.matching_asks, quote.likely_price) == (1, TOKEN)
    assert (
        "for now it would wait: every fitting machine within this bid's price is taken, or its provider's stake is"
        in (quote.warnings)
    )
    [one] = offers(world, job=quote_in(world))
    assert not one.free and one.job is not None and one.job.likely
    assert offers(world, job=quote_in(world), free=True) == []


def test_what_a_poor_client_would_pay(world: World) -> None:
    """It may deposit once it knows."""
    world.set_account(world.client.address)
    post(world)
    quote = world.api.quote(quote_in(world))
    assert (quote.likely_price, quote.missing) == (TOKEN, 8 * TOKEN)


def test_a_usual_limit_is_enough_for_half_of_the_providers(world: World) -> None:
    for tokens in (4, 1, 2):
        post(world, price_per_hour=tokens * 3_600 * TOKEN)
    quote = world.api.quote(quote_in(world, max_price=None))
    assert quote.bid.max_price == 2_530_387  # 1.25 times the lowest limit for the second
    assert quote.matching_asks == 2


def test_an_ask_that_nobody_could_pay_spoils_no_quote(world: World) -> None:
    for _ in range(2):
        post(world)
    post(world, price_per_hour=(1 << 96) - 1)
    quote = world.api.quote(quote_in(world, max_price=None, stake=None))
    assert (quote.bid.max_price, quote.matching_asks, quote.likely_price) == (1_265_194, 2, TOKEN)
    assert len(offers(world, job=quote_in(world), misfits=True)) == 3


def test_a_price_that_the_escrow_can_not_count(world: World) -> None:
    post(world, price_per_hour=(1 << 96) - 1)
    dear = quote_in(world, max_price=None, spec=make_spec(steps=100_000))
    problem = world.refuses(lambda: world.api.quote(dear), 422, Code.VALIDATION_FAILED)
    assert "is more than the escrow can count" in problem.message
