"""A disk that is full: told as that, and the market is not ready."""

from typing import Any

import pytest
from sqlalchemy import event

from contracts.api.problems import Code, Problem
from market.store import disk
from tests.support.offline_market import World


def test_a_database_that_can_not_grow(world: World) -> None:
    body = world.bid()
    engine = world.context.db.engine

    def no_more_pages(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

    event.listen(engine, "connect", no_more_pages)
    engine.dispose()
    with pytest.raises(Problem) as caught:
        for nonce in range(100):  # until the pages are used up that it has
            body = world.bid(nonce=nonce)
            world.api.post_bid(body)
    assert (caught.value.status, caught.value.code) == (507, Code.STORAGE_FULL)
    assert not_ready(world).startswith("the market's disk is full")
    event.remove(engine, "connect", no_more_pages)
    engine.dispose()
    assert world.api.post_bid(body).status == "pending"


def test_a_disk_with_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LEAST_FREE", 1 << 62)
    assert not_ready(world).startswith("the market's disk is full: ")


def not_ready(world: World) -> str:
    """The reason."""
    response = world.api._http.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "market_not_ready")
    assert world.api._http.get("/healthz").status_code == 204
    return str(response.json()["detail"])
