"""What is on offer, and what a job would pay: filters, prices, and why a machine does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from eth_account.signers.local import LocalAccount
from structlog.testing import capture_logs
from typer.testing import CliRunner

from contracts.api.bodies import AskResources, QuoteIn
from contracts.api.offers import OfferOut, OffersIn
from contracts.api.problems import Code, Problem
from contracts.cli import main
from contracts.orders import new_account
from market.client.cli import offers as offers_cli
from market.services import pricing
from tests.support.market_parts import (
    CPU,
    FOREVER,
    RECIPE,
    make_ask,
    make_bid,
    make_lease,
    make_spec,
    signed_ask,
    signed_bid,
    upload,
)
from tests.support.offline_market import DOMAIN, RULES, World

GPU = CPU.model_copy(update={"device": "NVIDIA GeForce RTX 4090", "gpus": 1, "vram_mb": 24_000, "region": "eu-de"})
TOKEN = 1_000_000


def post(world: World, resources: AskResources = CPU, **changes: Any) -> LocalAccount:
    """An Ask of another provider; by default a token, and a second, for a million units."""
    provider = new_account()
    world.set_account(provider.address, free=100 * TOKEN)
    ask = make_ask(provider, world.context.matcher, RULES, resources, **changes)
    world.api.post_ask(signed_ask(ask, DOMAIN, provider, resources))
    return provider


def rival(world: World, max_price: int) -> None:
    """A Bid of another client for the same kind of machine."""
    client = new_account()
    world.set_account(client.address, free=100 * TOKEN)
    upload(world.context, client.address, RECIPE)
    bid = make_bid(client, world.context.matcher, RULES, world.spec, max_price=max_price)
    world.api.post_bid(signed_bid(bid, DOMAIN, client, world.spec))


def offers(world: World, **fields: Any) -> list[OfferOut]:
    return list(world.api.offers(OffersIn.model_validate(fields)))


def quote_in(world: World, **changes: Any) -> QuoteIn:
    fields = {
        "client": world.client.address,
        "spec": world.spec,
        "units": 1_000_000,
        "max_price": 2 * TOKEN,
        "stake": 20 * TOKEN,
    }
    return QuoteIn.model_validate(fields | changes)


# ------------------------------------------------------------------ the list


def test_an_empty_market(world: World) -> None:
    assert offers(world, devices=["RTX 4090"], regions=["eu"], environment="torch-2.13") == []
    assert offers(world, job=quote_in(world, max_price=None), misfits=True) == []


def test_what_a_machine_is(world: World) -> None:
    provider = post(world, GPU, price_per_hour=7_200 * TOKEN, max_checkpoints=3)
    [one] = offers(world)
    assert (one.provider, one.rules, one.device, one.gpus, one.vram_mb, one.memory_mb, one.region, one.tier) == (
        provider.address, "audited", GPU.device, 1, 24_000, 8_000, "eu-de", 0
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
    ({"rules": "audited"}, "cheap fast gpu"),
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


# ------------------------------------------------------------------ what a job would pay


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
    assert "for now it would wait: every fitting machine is taken, or its provider's stake is" in quote.warnings
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


# ------------------------------------------------------------------ gpumarket offer list


def run(world: World, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(offers_cli, "MarketClient", lambda url: world.api)
    monkeypatch.setattr(type(world.api), "__exit__", lambda *_: None, raising=False)
    monkeypatch.setenv("GPUMARKET_MARKET_URL", "http://market.test")
    with capture_logs():
        result = CliRunner().invoke(main.app, ["offer", "list", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "recipe.py").write_text("class Mine: ...\n")
    fields = {
        "environment": "torch-2.13", "recipe": "recipe.py:Mine", "files": ["recipe.py"], "steps": 40,
        "checkpoint_every": 10, "units": 1_000_000, "max_price": "2", "resources": {"gpus": 1},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(fields))
    return tmp_path


def test_the_command_shows_machines_and_prices(world: World, monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    assert run(world, monkeypatch) == "There is no machine on offer that is like this.\n"
    assert json.loads(run(world, monkeypatch, "-o", "json")) == []
    post(world)
    gpu = post(world, GPU, price_per_hour=5_400 * TOKEN)
    both = run(world, monkeypatch)
    assert "3600 tUSD" in both and "5400 tUSD" in both and "per checkpoint" not in both
    told = run(world, monkeypatch, "--limit", "1")
    assert "3600 tUSD" in told and "5400 tUSD" not in told and "There are more: --limit 2" in told
    priced = run(world, monkeypatch, "--job", str(job))
    assert "Test CPU" not in priced and "eu-de" in priced and "1.5 tUSD" in priced and "yes *" in priced
    assert "no: lot" in run(world, monkeypatch, "--job", str(job), "--all")
    found = json.loads(run(world, monkeypatch, "--job", str(job), "--units", "2000000", "--all", "-o", "json"))
    reasons = {one["provider"]: (one["job"]["price"], one["job"]["reason"]) for one in found}
    assert reasons[gpu.address] == ("3000000", "price") and len(found) == 2
