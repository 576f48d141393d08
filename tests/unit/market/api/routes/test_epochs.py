"""Epochs over HTTP, newest first."""

from market.store.models import EpochRow, MatchRow, UnmatchedRow
from tests.support.offline_market import World

HASH = "0x" + "ab" * 32


def test_epochs_newest_first(world: World) -> None:
    with world.context.db.session() as session:
        for number in (1, 2, 5):
            session.add(EpochRow(number=number, order_root=HASH))
        session.flush()
        session.add(MatchRow(epoch=5, bid=HASH, ask=HASH, price=1 << 80, note="skipped"))
        session.add(UnmatchedRow(epoch=5, bid="0x" + "cd" * 32, reason="there are no open asks"))
    assert [epoch.number for epoch in world.api.epochs()] == [5, 2, 1]
    page = world.api._http.get("/v1/epochs", params={"limit": 2}).json()
    rest = world.api._http.get("/v1/epochs", params={"limit": 2, "after": page["next"]}).json()
    assert [item["number"] for item in rest["items"]] == [1]
    epoch = world.api.epoch(5)
    assert [(match.price, match.lease, match.note) for match in epoch.matches] == [(1 << 80, None, "skipped")]
    assert [left.reason for left in epoch.unmatched] == ["there are no open asks"]
