"""POSTs with an Idempotency-Key: the same answer for the same request, and no second time for another one."""

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from contracts.api.client import IDEMPOTENCY_KEY as HEADER
from contracts.api.offers import OffersIn
from market.api import idempotency
from market.api.app import create_app
from market.maintenance import retention
from market.store.columns import now
from market.store.models import AnswerRow, BidRow
from tests.support.machines_on_offer import quote_in
from tests.support.offline_market import World


def post(world: World, body: Any, key: str = "one", path: str = "/v1/bids") -> Any:
    return world.api._http.post(
        path, content=body.model_dump_json(by_alias=True), headers={"content-type": "application/json", HEADER: key}
    )


def test_the_same_request_gets_the_same_answer(world: World) -> None:
    body = world.bid()
    first, again = post(world, body), post(world, body)
    assert (first.status_code, again.status_code) == (201, 201)  # without a key the second would be 200
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert post(world, body, key="two").status_code == 200


def test_another_body_under_the_same_key(world: World) -> None:
    post(world, world.bid())
    refused = post(world, world.bid(nonce=1))
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert world.count(BidRow) == 1


def test_what_was_refused_may_be_tried_again(world: World) -> None:
    body = world.bid()
    world.set_account(world.client.address, free=0)
    assert post(world, body).json()["code"] == "balance_short"
    world.set_account(world.client.address, free=100_000_000)
    assert post(world, body).status_code == 201


def test_while_the_first_is_in_progress(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    body, seen = world.bid(), []

    def meanwhile(*args: Any) -> Any:
        seen.append(post(world, body))
        raise ZeroDivisionError("a bug after the second request came")

    monkeypatch.setattr("market.services.bids.admit_bid", meanwhile)
    assert post(world, body).status_code == 500
    assert (seen[0].status_code, seen[0].json()["code"]) == (409, "request_in_progress")
    assert seen[0].headers["retry-after"] == "1"
    monkeypatch.undo()
    assert post(world, body).status_code == 201


def test_a_mark_that_a_dead_process_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    body = world.bid()
    monkeypatch.setattr(idempotency.KeepAnswer, "_keep", lambda *_: _nothing())
    post(world, body)
    monkeypatch.undo()
    assert post(world, body).status_code == 409
    _age(world, idempotency.PENDING)
    assert post(world, body).status_code == 200


async def _nothing() -> None:
    pass


def test_answers_go_after_a_day(world: World) -> None:
    post(world, world.bid())
    _age(world, timedelta(hours=23))
    retention.forget_answers(world.context)
    assert world.count(AnswerRow) == 1
    _age(world, timedelta(hours=25))
    assert "idempotency-replayed" not in post(world, world.bid(nonce=1)).headers  # not even before they are collected
    _age(world, timedelta(hours=25))
    retention.forget_answers(world.context)
    assert world.count(AnswerRow) == 0


def _age(world: World, age: timedelta) -> None:
    with world.context.db.session() as session:
        row = session.get_one(AnswerRow, ("one", "/v1/bids"))
        row.received = now() - age
        session.add(row)


def test_keys_cost_nothing_so_only_some_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MOST_ANSWERS", 3)
    for key in "abcde":
        post(world, world.bid(), key=key)
    with world.context.db.reading() as session:
        assert {row.key for row in session.exec(select(AnswerRow))} == {"c", "d", "e"}
    assert "idempotency-replayed" in post(world, world.bid(), key="c").headers
    assert "idempotency-replayed" not in post(world, world.bid(), key="a").headers


def test_their_bytes_have_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = len(post(world, world.bid(), key="first").content)
    monkeypatch.setattr(idempotency, "MOST_BYTES", 3 * one + one // 2)
    for key in "abcde":
        post(world, world.bid(), key=key)
    with world.context.db.reading() as session:
        rows = session.exec(select(AnswerRow)).all()
    assert {row.key for row in rows} == {"c", "d", "e"}
    assert all(row.size == len(row.answer.encode()) == one for row in rows)
    assert "idempotency-replayed" in post(world, world.bid(), key="c").headers
    assert "idempotency-replayed" not in post(world, world.bid(), key="a").headers


def test_an_answer_that_is_too_large_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(post(world, world.bid()).content)
    monkeypatch.setattr(idempotency, "MOST_BYTES_OF_ONE", size - 1)
    for key in ("two", "two"):
        again = post(world, world.bid(), key=key)
        assert (again.status_code, "idempotency-replayed" in again.headers) == (200, False)
    assert world.count(AnswerRow) == 1
    monkeypatch.setattr(idempotency, "MOST_BYTES_OF_ONE", size)
    post(world, world.bid(), key="two")
    assert world.count(AnswerRow) == 2


@pytest.mark.parametrize("path", ["/v1/offers", "/v1/quote"])
def test_what_stores_nothing_stores_no_answer(world: World, path: str) -> None:
    world.api.post_ask(world.ask())
    body = OffersIn() if path == "/v1/offers" else quote_in(world)
    before = world.count(AnswerRow)
    for _ in range(2):
        answered = post(world, body, path=path)
        assert (answered.status_code, "idempotency-replayed" in answered.headers) == (200, False)
    assert world.count(AnswerRow) == before


def test_each_route_either_stores_or_is_known_not_to() -> None:
    """A new POST that stores nothing belongs to those that are answered anew."""
    described = {
        path: methods["post"]["description"]
        for path, methods in create_app().openapi()["paths"].items()
        if "post" in methods
    }
    said = {path for path, text in described.items() if "Stores nothing" in text}
    assert said == set(idempotency.STORES_NOTHING)


@pytest.mark.parametrize("id", ["0" * 500, "%00", "%1b%5b2J"])
def test_no_row_for_a_path_that_no_route_has(world: World, id: str) -> None:
    refused = post(world, world.bid(), path=f"/v1/jobs/{id}/auditors")
    assert refused.status_code == 422
    assert world.count(AnswerRow) == 0


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "ä"])
def test_keys_that_are_none(world: World, key: str) -> None:
    refused = world.api._http.post("/v1/quote", content="{}", headers={HEADER: key.encode()})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert refused.json()["detail"].startswith(HEADER)


def test_the_client_keeps_its_key_while_it_tries_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is lost on the way back, so the client sends the Bid once more: the job is new to it, as it was."""
    import httpx2

    send, sent = world.api._http.request, []

    def lossy(method: str, path: str, **kwargs: Any) -> Any:
        response = send(method, path, **kwargs)
        sent.append((kwargs["headers"][HEADER], response.status_code))
        if len(sent) == 1:
            raise httpx2.ReadError("connection reset")
        return response

    monkeypatch.setattr(world.api._http, "request", lossy)
    world.api.post_bid(world.bid())
    world.api.post_bid(world.bid(nonce=1))
    assert sent[0] == sent[1] != sent[2]
    assert sent[1][1] == 201


def test_every_post_that_stores_something_says_so_in_the_schema() -> None:
    for path, methods in create_app().openapi()["paths"].items():
        for method, operation in methods.items():
            named = [one["name"] for one in operation.get("parameters", [])]
            assert (HEADER in named) == (method == "post" and path not in ("/v1/quote", "/v1/offers")), path
