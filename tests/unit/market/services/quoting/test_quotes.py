"""A quote leads to a Bid that is taken, or says why there is none."""

from typing import Any

import pytest

from contracts.api.bodies import BidIn
from contracts.api.problems import Code
from contracts.api.quotes import QuoteIn
from contracts.audits.levels import CLOSED, OPEN
from contracts.audits.verification import Verification
from contracts.orders import Bid
from market.store.models import BidRow
from tests.support.market_parts import (
    make_bid,
    make_spec,
    rule_set,
    signed_bid,
)
from tests.support.offline_market import DOMAIN, RULES, World

OTHER = "0x00000000000000000000000000000000000000AA"


def quote_in(world: World, **changes: Any) -> QuoteIn:
    fields = {"client": world.client.address, "spec": world.spec, "units": 1_000_000}
    return QuoteIn.model_validate(fields | changes)


def test_a_quote_leads_to_a_bid_that_is_taken(world: World) -> None:
    world.api.post_ask(world.ask())
    world.api.post_ask(world.ask(price_per_hour=7_200_000_000))
    out = world.api.quote(quote_in(world))
    assert (out.matching_asks, out.lowest_limit, out.likely_price) == (1, 1_012_155, 1_000_000)  # one provider
    assert (out.likely_cost, out.seconds_per_checkpoint) == (4_000_000, 1)
    assert out.bid.max_price == 1_265_194  # 1.25 of the lowest limit
    assert (out.highest_cost, out.free, out.missing) == (5_060_776, 100_000_000, 0)
    assert out.typed_data == out.bid.typed_data(DOMAIN)
    assert out.warnings == [
        "no approver: you must approve checkpoints yourself, or the provider waits a window for each payment"
    ]
    body = signed_bid(out.bid, DOMAIN, world.client, world.spec)
    assert world.api.post_bid(body).bid == out.bid
    assert world.count(BidRow) == 1


def test_a_quote_without_asks(world: World) -> None:
    world.refuses(lambda: world.api.quote(quote_in(world)), 422, Code.VALIDATION_FAILED)
    world.set_account(world.client.address, free=1)
    out = world.api.quote(quote_in(world, max_price=2_000_000, stake=2_000_000, approver=OTHER))
    assert (out.matching_asks, out.lowest_limit, out.likely_cost, out.missing) == (0, None, None, 7_999_999)
    assert [warning[:20] for warning in out.warnings] == [
        "no open ask fits the", "a stake of 2 tUSD de", "deposit 7.999999 tUS",
    ]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [("max_price", 0), ("stake", 0)])
def test_a_quote_for_a_bid_that_nobody_could_take(world: World, field: str, value: int) -> None:
    offer = {"max_price": 2_000_000, "stake": 2_000_000} | {field: value}
    problem = world.refuses(lambda: world.api.quote(quote_in(world, **offer)), 422, Code.VALIDATION_FAILED)
    assert problem.message.startswith(f"{field}: {value} ")


@pytest.mark.parametrize(
    "spec",
    [
        {"environment": "torch-9.9"},
        {"resources": {"gpus": 1}},
        {"resources": {"memory_mb": 8001}},
        {"resources": {"devices": ["NVIDIA H100"]}},
    ],
)
def test_a_quote_counts_machines_that_fit(world: World, spec: dict[str, Any]) -> None:
    world.api.post_ask(world.ask())
    out = world.api.quote(quote_in(world, spec=make_spec(**spec), max_price=2_000_000))
    assert out.matching_asks == 0


def test_a_quote_under_unknown_rules(world: World) -> None:
    world.refuses(lambda: world.api.quote(quote_in(world, rules="lax")), 422, Code.RULES_UNKNOWN)


def test_the_bid_model_is_the_signed_one(world: World) -> None:
    """A body holds just what a wallet signs: unknown fields would not be signed."""
    spec = world.spec
    bid = make_bid(world.client, world.context.matcher, RULES, spec)
    body = BidIn(bid=bid, signature=bid.sign(DOMAIN, world.client), spec=spec).model_dump(mode="json", by_alias=True)
    body["bid"]["discount"] = 1
    response = world.api._http.post("/v1/bids", json=body)
    assert response.json()["detail"].startswith("bid.discount: there is no such field; known are: approver,")
    assert Bid.model_validate(body["bid"] | {"maxPrice": "2000000"} if body["bid"].pop("discount") else {}) == bid


@pytest.mark.parametrize(
    ("level", "prices", "replays"), [(OPEN, 5, 1_137_833), (CLOSED, 13.5, 400_000)], ids=["open", "closed"]
)
def test_under_audited_rules_the_stake_deters(world: World, level: Verification, prices: float, replays: int) -> None:
    rules = RULES.model_copy(update={"verification": level.hash()})
    world.context.rules["audited"] = rule_set("audited", rules)
    asked = {"rules": "audited", "max_price": 1_000_000, "approver": OTHER}
    out = world.api.quote(quote_in(world, **asked))
    assert out.bid.stake == out.audit.deterring_stake == prices * 1_000_000 + RULES.arbiter_fee
    assert (out.audit.level, out.audit.share_ppm, out.audit.approve_every) == (
        level.level, level.share_ppm, level.approve_every,
    )  # fmt: skip
    assert out.audit.replay_cost == replays  # of four checkpoints; the short batch of the open lease is drawn denser
    assert not [told for told in out.warnings if "deter" in told]
    less = world.api.quote(quote_in(world, **asked, stake=4_000_000))
    (told,) = (told for told in less.warnings if "does not deter" in told)
    share = 100 * level.share_ppm // 10**6
    assert told.startswith(f"a stake of 4 tUSD does not deter: of the checkpoints {share} % are replayed")
    assert told.endswith(f"{out.bid.stake / 1_000_000:g} tUSD is enough")


def test_unchecked_rules_say_so(world: World) -> None:
    out = world.api.quote(quote_in(world, max_price=2_000_000))
    assert out.audit.model_dump() == {
        "level": "unchecked", "share_ppm": 0, "approve_every": 1, "replay_cost": 0, "deterring_stake": None,
    }  # fmt: skip
