"""What the auction takes from providers' reports: each lease's first word, however much it says."""

import time

import pytest
from sqlalchemy import event

from contracts.api.epochs import TELLING_KINDS
from contracts.job.overrun import Overrun
from contracts.types import ZERO_HASH
from market.auction.order_book import OrderBook, Snapshot
from market.store.models import ChainBlock, LeaseRow
from tests.support.market_parts import signed_report
from tests.support.offline_market import DOMAIN, World

LONG = "x" * 50_000


@pytest.fixture
def lease(world: World) -> LeaseRow:
    """Is over, and its Bid waits again."""
    lease = world.lease(continuable=True)
    with world.context.db.session() as session:
        session.add(ChainBlock(number=9, hash="0x" + "9" * 64, parent=ZERO_HASH, timestamp=int(time.time())))
    return lease


def look(world: World) -> Snapshot:
    with world.context.db.reading() as session:
        return OrderBook(world.context).look(session, int(time.time()))


def say(world: World, lease: LeaseRow, kind: str, text: str, n: int = 1) -> None:
    world.api.post_report(signed_report(lease.id, n, kind, text, int(time.time()), DOMAIN, world.provider))


def test_a_lease_tells_once_whatever_it_says(world: World, lease: LeaseRow) -> None:
    said = "its steps take {} times the work that was signed (1.5 times is allowed)\n" + LONG
    for turn in range(4):
        for kind in TELLING_KINDS:
            say(world, lease, kind, said.format(turn + 2), n=turn)
    world.update_lease(lease.id, finished="closed")
    snapshot = look(world)
    told = [(one.report.lease, one.report.kind, one.report.n) for one in snapshot.failures]
    assert sorted(told) == sorted((lease.id, kind, 0) for kind in TELLING_KINDS)
    waiting = snapshot.bids[lease.bid]
    assert waiting.overruns == (Overrun(2, 1.5),)
    assert waiting.offer.given_back_by == waiting.offer.avoid == {lease.provider}


def test_texts_of_reports_stay_in_the_database(world: World, lease: LeaseRow) -> None:
    for kind in TELLING_KINDS:
        say(world, lease, kind, LONG)
    world.update_lease(lease.id, finished="closed")
    asked: list[str] = []
    engine = world.context.db.engine

    def note(conn: object, cursor: object, statement: str, *rest: object) -> None:
        asked.append(" ".join(statement.split()))

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert len(look(world).failures) == len(TELLING_KINDS)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    reports = [one for one in asked if "FROM report" in one]
    assert reports and not [one for one in reports if "report.text" in one.replace("substr(report.text,", "")]
