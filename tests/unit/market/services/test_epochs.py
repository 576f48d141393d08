"""What is published of epochs' order sets is what was committed to, whatever became of the epochs."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlmodel import Session, select

from contracts.api.epochs import EpochHeader, epoch_root
from contracts.orders import new_account
from contracts.types import ZERO_HASH
from market.auction.announcement import announce
from market.auction.order_book import Snapshot
from market.maintenance import reindex
from market.runtime.context import Context
from market.services.epochs import _in_set
from market.store.apply import apply
from market.store.models import EpochOrderRow, EpochRow
from market.store.queries.events import Head
from tests.support.market_parts import FakeChain, make_context
from tests.support.offline_market import DOMAIN, RULES

ORDERS = [f"0x{number:064x}" for number in range(8)]  # the first half are bids
EPOCHS = 40


def test_published_sets_have_the_roots_that_were_committed_to(tmp_path: Path) -> None:
    """Orders come, go and come back; leaders die before and after they commit; numbers are left out."""
    context = make_context(tmp_path, FakeChain(DOMAIN), new_account().address, {"unchecked": RULES})
    dice, number = random.Random(4), 0
    committed: dict[int, set[str]] = {}
    for _ in range(EPOCHS):
        number += dice.choice([1, 1, 1, 3])
        orders = {id for id in ORDERS if dice.random() < 0.7}
        fate = dice.choice(["begun", "announced", "cleared", "cleared"])
        _say(context, "begun", {"number": number})
        if fate != "begun":
            announce(context, number, _snapshot(context, orders))
            committed[number] = orders
        if fate == "cleared":
            body = {"number": number, "published_tx": ZERO_HASH, "seed_block": 2, "seed": ZERO_HASH}
            _say(context, "cleared", body | {"matches": [], "prices": [], "unmatched": []})
        else:
            _say(context, "abandoned", {"number": number})
    with context.db.reading() as session:
        _check(session, committed)
    with reindex.scratch() as new:
        for _ in range(2):  # the same messages again change nothing
            with new.session() as session:
                for message in context.journal.read():
                    apply(session, DOMAIN, message)
        with new.reading() as session:
            _check(session, committed)
    context.db.close()


def _say(context: Context, kind: Any, body: dict[str, Any]) -> None:
    with context.leading() as session:
        context.accept(session, kind, body)


def _snapshot(context: Context, orders: set[str]) -> Snapshot:
    rules = next(iter(context.rules_by_hash))
    one: Any = SimpleNamespace(offer=SimpleNamespace(needs=SimpleNamespace(rules=rules)))
    bids, asks = ({id: one for id in orders if id in half} for half in (ORDERS[:4], ORDERS[4:]))
    return Snapshot(Head(1, 1, ZERO_HASH), 1, bids, asks, {}, [], 1)


def _check(session: Session, committed: dict[int, set[str]]) -> None:
    published = session.exec(select(EpochRow).where(EpochRow.order_root != "")).all()
    assert {row.number for row in published} == committed.keys()
    for row in published:
        ids = session.exec(select(EpochOrderRow.id).where(*_in_set(row.number))).all()
        assert sorted(ids) == sorted(committed[row.number])
        assert epoch_root(EpochHeader.model_validate(row.header), ids) == row.order_root
