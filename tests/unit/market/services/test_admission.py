"""Admission of Asks and Bids: what could be matched is stored once, what couldn't is refused and not stored."""

import base64
import json
import time
from typing import Any

import pytest

from contracts.api.offers import OffersIn
from contracts.api.problems import Code
from contracts.api.quotes import QuoteIn
from contracts.chain.events import PageRaised, Place
from contracts.types import ZERO_ADDRESS, ZERO_HASH
from market.store.models import AskRow, BidRow
from market.store.queries.events import Head, event_row
from tests.support.market_parts import (
    CPU,
    FOREVER,
    RECIPE,
    file_ref,
    forged,
    make_ask,
    make_spec,
    signed_ask,
)
from tests.support.offline_market import DOMAIN, RULES, World

OTHER = "0x00000000000000000000000000000000000000AA"


def test_an_ask_is_stored_once(world: World) -> None:
    body = world.ask()
    out = world.api.post_ask(body)
    assert out.id == body.ask.digest(DOMAIN)
    assert (out.ask, out.signature, out.resources) == (body.ask, body.signature, body.resources)
    assert (out.status, out.active) == ("open", 0)
    assert world.api.post_ask(body) == out == world.api.ask(out.id)
    assert world.count(AskRow) == 1


def test_a_bid_is_stored_once(world: World) -> None:
    body = world.bid()
    out = world.api.post_bid(body)
    assert out.id == body.bid.digest(DOMAIN)
    assert (out.bid, out.spec, out.name, out.status) == (body.bid, world.spec, "digits", "pending")
    world.set_account(world.client.address)  # the money may be locked by then
    assert world.api.post_bid(body) == out == world.api.job(out.id)
    assert world.count(BidRow) == 1


def test_new_is_201_and_again_is_200(world: World) -> None:
    for expected in (201, 200):
        response = world.api._http.post("/v1/asks", json=world.ask().model_dump(mode="json", by_alias=True))
        assert response.status_code == expected


@pytest.mark.parametrize("kind", ["ask", "bid"])
def test_forged(world: World, kind: str) -> None:
    post = world.api.post_ask if kind == "ask" else world.api.post_bid
    body = forged(getattr(world, kind)(), DOMAIN, world.stranger)
    problem = world.refuses(lambda: post(body), 422, Code.ORDER_SIGNATURE_INVALID)
    assert str(DOMAIN.verifying_contract) in str(problem.hint)
    other_chain = DOMAIN.model_copy(update={"chain_id": 1})
    owner = world.provider if kind == "ask" else world.client
    replayed = forged(getattr(world, kind)(), other_chain, owner)
    world.refuses(lambda: post(replayed), 422, Code.ORDER_SIGNATURE_INVALID)


@pytest.mark.parametrize("kind", ["ask", "bid"])
def test_expired(world: World, kind: str) -> None:
    body = getattr(world, kind)(valid_until=int(time.time()) - 1)
    post = world.api.post_ask if kind == "ask" else world.api.post_bid
    world.refuses(lambda: post(body), 422, Code.ORDER_EXPIRED)


@pytest.mark.parametrize("page", [0, 2])
def test_another_page_than_the_accounts(world: World, page: int) -> None:
    for address in (world.client.address, world.provider.address):
        world.set_account(address, free=100_000_000, page=1)
    ask, bid = world.ask(page=page), world.bid(nonce=page << 8)
    assert world.refuses(lambda: world.api.post_ask(ask), 422, Code.ORDER_CANCELLED).extra == {"page": 1}
    world.refuses(lambda: world.api.post_bid(bid), 422, Code.ORDER_CANCELLED)


def test_a_node_that_lags_behind_what_was_followed(world: World) -> None:
    """It knows the former page only. Neither is what was cancelled open, nor what was signed since refused."""
    withdrawn = world.api.post_ask(world.ask())
    with world.context.db.session() as session:
        for key in (world.client, world.provider):
            raised = PageRaised(Place(1, ZERO_HASH, key is world.client, ZERO_HASH, 1), key.address, 1)
            session.add(event_row(raised))
    world.context._accounts.clear()
    assert (world.chain.account(world.provider.address).page, world.api.ask(withdrawn.id).status) == (0, "cancelled")
    assert world.api.post_ask(world.ask(page=1)).status == "open"
    world.refuses(lambda: world.api.post_bid(world.bid()), 422, Code.ORDER_CANCELLED)
    world.set_account(world.client.address, free=100_000_000, used=1)  # of page 0
    assert world.api.account(world.client.address).next_nonce == 1 << 8
    assert world.api.post_bid(world.bid(nonce=1 << 8)).status == "pending"


@pytest.mark.parametrize("kind", ["ask", "bid"])
def test_for_another_market(world: World, kind: str) -> None:
    post = world.api.post_ask if kind == "ask" else world.api.post_bid
    body = getattr(world, kind)(matcher=OTHER)
    world.refuses(lambda: post(body), 422, Code.ORDER_NOT_FOR_THIS_MARKET)
    assert post(getattr(world, kind)(matcher=ZERO_ADDRESS)).id


@pytest.mark.parametrize("kind", ["ask", "bid"])
def test_unknown_rules(world: World, kind: str) -> None:
    post = world.api.post_ask if kind == "ask" else world.api.post_bid
    body = getattr(world, kind)(rules=ZERO_HASH)
    problem = world.refuses(lambda: post(body), 422, Code.RULES_UNKNOWN)
    assert RULES.struct_hash() in str(problem.hint)


@pytest.mark.parametrize("field", ["price_per_hour", "units_per_hour", "max_stake", "max_active", "max_checkpoints"])
def test_an_ask_with_a_zero(world: World, field: str) -> None:
    body = world.ask(**{field: 0})
    world.refuses(lambda: world.api.post_ask(body), 422, Code.ORDER_TERMS_INVALID)


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoints": 0},
        {"units": 0},
        {"max_price": 0},
        {"stake": 0},
        {"stake": RULES.arbiter_fee - 1},
        {"fee": 5, "max_price": 5},
        {"fee": 5, "matcher": ZERO_ADDRESS},
        {"nonce": 112},
    ],
)
def test_a_bid_that_the_escrow_would_refuse(world: World, changes: dict[str, int]) -> None:
    body = world.bid(**changes)
    world.refuses(lambda: world.api.post_bid(body), 422, Code.ORDER_TERMS_INVALID)


def test_an_ask_that_no_stake_could_suit(world: World) -> None:
    for changes in ({"max_stake": RULES.arbiter_fee - 1}, {"valid_from": 10, "valid_until": 9}):
        body = world.ask(**changes)
        world.refuses(lambda body=body: world.api.post_ask(body), 422, Code.ORDER_TERMS_INVALID)


def test_a_fee_below_the_markets(world: World) -> None:
    world.context.settings = world.context.settings.model_copy(update={"fee": 7})
    body = world.bid(fee=6)
    problem = world.refuses(lambda: world.api.post_bid(body), 422, Code.ORDER_TERMS_INVALID)
    assert problem.extra == {"fee": "7"}
    assert world.api.post_bid(world.bid(fee=7)).id


def test_resources_that_were_not_signed(world: World) -> None:
    body = world.ask()
    body = body.model_copy(update={"resources": body.resources.model_copy(update={"gpus": 8})})
    world.refuses(lambda: world.api.post_ask(body), 422, Code.RESOURCES_MISMATCH)


def test_a_spec_that_was_not_signed(world: World) -> None:
    body = world.bid().model_copy(update={"spec": make_spec(seed=2)})
    world.refuses(lambda: world.api.post_bid(body), 422, Code.JOB_MISMATCH)
    body = world.bid(checkpoints=3)
    world.refuses(lambda: world.api.post_bid(body), 422, Code.JOB_MISMATCH)


def test_a_path_out_of_the_job(world: World) -> None:
    body = world.bid().model_dump(mode="json", by_alias=True)
    body["spec"]["files"]["../escape.py"] = file_ref(RECIPE).model_dump()
    response = world.api._http.post("/v1/bids", json=body)
    assert response.status_code == 422
    assert response.json()["code"] == "validation_failed"
    assert "'../escape.py' is not a plain relative path" in response.json()["detail"]
    assert world.count(BidRow) == 0


def test_files_that_are_not_here(world: World) -> None:
    spec = make_spec(files={"recipe.py": file_ref(RECIPE), "data": file_ref(b"never uploaded")})
    body = world.bid(spec=spec)
    problem = world.refuses(lambda: world.api.post_bid(body), 422, Code.BLOB_MISSING)
    assert problem.extra == {"missing": {"data": file_ref(b"never uploaded").sha256}}
    wrong_size = file_ref(RECIPE).model_copy(update={"size": 1})
    body = world.bid(spec=make_spec(files={"recipe.py": wrong_size}))
    world.refuses(lambda: world.api.post_bid(body), 422, Code.BLOB_MISSING)


def test_a_nonce_that_was_used(world: World) -> None:
    world.set_account(world.client.address, free=100_000_000, used=0b1)
    body = world.bid(nonce=0)
    world.refuses(lambda: world.api.post_bid(body), 409, Code.ORDER_REPLAYED)
    world.api.post_bid(world.bid(nonce=1))
    again = world.bid(nonce=1, max_price=1_999_999)
    world.refuses(lambda: world.api.post_bid(again), 409, Code.ORDER_REPLAYED)


def test_too_little_money(world: World) -> None:
    world.set_account(world.client.address, free=7_999_999)
    body = world.bid()
    problem = world.refuses(lambda: world.api.post_bid(body), 422, Code.BALANCE_SHORT)
    assert problem.extra == {"free": "7999999", "needed": "8000000", "missing": "1"}
    assert "gpumarket wallet deposit 0.000001" in str(problem.hint)


def test_too_little_stake(world: World) -> None:
    world.set_account(world.provider.address, free=49_999_999)
    body = world.ask()
    problem = world.refuses(lambda: world.api.post_ask(body), 422, Code.STAKE_SHORT)
    assert problem.extra == {"free": "49999999", "needed": "50000000", "missing": "1"}
    world.set_account(world.provider.address, free=0, active=1)  # its stake works
    assert world.api.post_ask(body).status == "open"


def test_amounts_above_64_bits(world: World) -> None:
    world.set_account(world.client.address, free=(1 << 96) - 1)
    body = world.bid(max_price=1 << 90, stake=1 << 90)
    assert world.api.post_bid(body).bid == body.bid
    response = world.api._http.get(f"/v1/jobs/{body.bid.digest(DOMAIN)}")
    assert response.json()["bid"]["maxPrice"] == str(1 << 90)


def test_lists_of_asks(world: World) -> None:
    ids = [world.api.post_ask(world.ask(valid_until=FOREVER - n)).id for n in range(5)]
    assert [ask.id for ask in world.api.asks()] == ids
    assert [ask.id for ask in world.api.asks(provider=world.provider.address, status="open")] == ids
    assert list(world.api.asks(provider=OTHER)) == []
    world.set_account(world.provider.address)
    assert {ask.status for ask in world.api.asks()} == {"unfunded"}
    assert list(world.api.asks(status="open")) == []
    world.set_account(world.provider.address, free=100_000_000, page=1)
    assert [ask.id for ask in world.api.asks(status="cancelled")] == ids


@pytest.mark.parametrize("limit", [1, 2, 5, 500])
def test_pages_have_every_item_once(world: World, limit: int) -> None:
    ids = [world.api.post_ask(world.ask(valid_until=FOREVER - n)).id for n in range(5)]
    found: list[str] = []
    query: dict[str, Any] = {"limit": limit, "status": "open"}
    while True:
        page = world.api._http.get("/v1/asks", params=query).json()
        assert len(page["items"]) <= limit
        found += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert found == ids


@pytest.mark.parametrize("after", ["x", "bnVsbA", "WzEsMl0", "é"])
def test_a_cursor_of_nobody(world: World, after: str) -> None:
    response = world.api._http.get("/v1/asks", params={"after": after})
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")


def cursor(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("asks", cursor("2026-01-01T00:00:00+00:00", "\0")),
        ("jobs", cursor("2026-01-01T00:00:00+00:00", "\ud800")),
        ("jobs", cursor("0001-01-01T00:00:00+23:59", "0x00")),
        ("jobs", cursor("9999-12-31T23:59:59-23:59", "0x00")),
        ("epochs", cursor(1 << 31)),
        ("epochs", cursor(-1)),
    ],
)
def test_a_cursor_that_no_row_could_have(world: World, path: str, after: str) -> None:
    """PostgreSQL would end the request with an error of its own."""
    response = world.api._http.get(f"/v1/{path}", params={"after": after})
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")


def test_a_nul_in_a_text(world: World) -> None:
    body = world.bid().model_dump(mode="json", by_alias=True) | {"name": "a\0b"}
    response = world.api._http.post("/v1/bids", json=body)
    assert response.status_code == 422
    assert "NUL" in response.json()["detail"]


def test_the_account_tells_the_next_nonce(world: World) -> None:
    world.set_account(world.client.address, free=100_000_000, page=3, used=0b101)
    out = world.api.account(world.client.address)
    assert (out.free, out.page, out.next_nonce) == (100_000_000, 3, 3 << 8 | 1)
    world.api.post_bid(world.bid(nonce=3 << 8 | 1))
    assert world.api.account(world.client.address).next_nonce == 3 << 8 | 3
    world.set_account(world.client.address, used=(1 << 112) - 1)
    assert world.api.account(world.client.address).next_nonce is None


def test_the_number_of_asks(world: World) -> None:
    world.context.settings = world.context.settings.model_copy(update={"max_open_asks": 2})
    soon = int(time.time()) + 600
    bodies = [world.ask(valid_until=soon + number) for number in (0, 1000, 2000, 3000)]
    for body in bodies[:2]:
        world.api.post_ask(body)
    problem = world.refuses(lambda: world.api.post_ask(bodies[2]), 422, Code.QUOTA_EXCEEDED)
    assert problem.extra == {"max_open_asks": 2}
    world.api.post_ask(bodies[1])  # the same again is no more
    world.context.head = Head(1, soon + 1)  # the chain's time counts
    world.api.post_ask(bodies[2])  # the first has expired
    world.set_account(world.provider.address, free=100_000_000, page=1)
    world.api.post_ask(world.ask(page=1))  # the page has cancelled all others


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"config": {"text": "a\0b"}}, "spec.config.text: 'a\\x00b'"),
        ({"config": {"a\0b": 1}}, "a name in spec.config: 'a\\x00b'"),
        ({"resources": {"devices": ["\0"]}}, "spec.resources.devices: '\\x00'"),
        ({"resources": {"regions": ["\0"]}}, "spec.resources.regions: '\\x00'"),
        ({"stop": {"metric": "\0", "patience": 1}}, "spec.stop.metric: '\\x00'"),
    ],
)
def test_a_job_with_a_nul_in_a_text(world: World, change: dict[str, Any], place: str) -> None:
    spec = make_spec(**change)
    quote = QuoteIn(client=world.client.address, spec=spec, units=1)
    for call in (
        lambda: world.api.post_bid(world.bid(spec=spec)),
        lambda: world.api.quote(quote),
        lambda: list(world.api.offers(OffersIn(job=quote))),
    ):
        problem = world.refuses(call, 422, Code.VALIDATION_FAILED)
        assert problem.message == f"{place} has the character NUL (U+0000) in it"


@pytest.mark.parametrize("field", ["device", "region"])
def test_an_ask_with_a_nul_in_a_text(world: World, field: str) -> None:
    resources = CPU.model_copy(update={field: "a\0b"})
    body = signed_ask(
        make_ask(world.provider, world.context.matcher, RULES, resources), DOMAIN, world.provider, resources
    )
    problem = world.refuses(lambda: world.api.post_ask(body), 422, Code.VALIDATION_FAILED)
    assert f"resources.{field}" in problem.message
