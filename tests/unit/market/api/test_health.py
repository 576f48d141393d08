"""/readyz: only a market that follows the chain and has its database is ready."""

import pytest
from sqlalchemy import create_engine

from contracts.api.problems import Code
from tests.support.offline_market import World


def test_until_the_chain_is_followed(world: World) -> None:
    assert world.api._http.get("/readyz").status_code == 204
    world.context.caught_up.clear()
    assert_not_ready(world, "this market still follows the chain; it has come to block 0")
    world.refuses(world.api.info, 503, Code.MARKET_NOT_READY)


def test_when_the_chain_is_followed_no_more(world: World) -> None:
    world.context.followed -= world.context.settings.ready_seconds + 1
    assert_not_ready(world, "the chain could not be followed for 6")  # and some seconds


def test_without_a_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.context.db, "_reader", create_engine("sqlite:////no/such/folder/market.sqlite3"))
    assert_not_ready(world, "the market's database does not answer")


def assert_not_ready(world: World, detail: str) -> None:
    """But alive."""
    assert world.api._http.get("/healthz").status_code == 204
    response = world.api._http.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "market_not_ready")
    assert response.json()["detail"].startswith(detail)
