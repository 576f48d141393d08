"""The market's signed word by which epoch it considers an order: given once, and kept by whom it is for."""

import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.api import receipts
from contracts.api.bodies import ReceiptOut
from contracts.errors import UserError
from contracts.orders import Receipt, new_account
from contracts.settings import home
from market.store.models import AskRow, BidRow, EpochRow
from market.store.queries.events import Head
from tests.support.market_parts import FakeSender, make_spec
from tests.support.offline_market import DOMAIN, World, replayed, stored

KINDS = ["ask", "bid"]


def post(world: World, kind: str, body: Any) -> Any:
    return (world.api.post_ask if kind == "ask" else world.api.post_bid)(body)


def begin_epoch(world: World, number: int) -> None:
    with world.context.db.session() as session:
        session.add(EpochRow(number=number, order_root="0x" + "11" * 32))


@pytest.fixture
def posted(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Bid as it was posted, and its receipt."""
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path / "home"))
    body = world.bid()
    return body, world.api.post_bid(body).receipt


# ------------------------------------------------------------------ the market


@pytest.mark.parametrize("kind", KINDS)
def test_each_order_gets_one_for_the_next_epoch(world: World, kind: str) -> None:
    world.context.head = Head(number=7, timestamp=(1 << 40) - 9)
    begin_epoch(world, 41)
    body = getattr(world, kind)()
    out = post(world, kind, body)
    order = getattr(body, kind).digest(DOMAIN)
    assert out.receipt.receipt == Receipt(order=order, epoch=42, block=7, time=(1 << 40) - 9)
    assert out.receipt.receipt.signer(DOMAIN, out.receipt.signature) == world.context.matcher
    # Posted again it is the same, also when there are later epochs and the market has another key.
    begin_epoch(world, 42)
    key = new_account()
    world.context.matcher, world.context.sender = key.address, FakeSender(key)  # type: ignore[assignment]
    assert post(world, kind, body).receipt == out.receipt
    assert (world.api.ask if kind == "ask" else world.api.job)(out.id).receipt == out.receipt


def test_a_database_made_anew_has_the_same(world: World) -> None:
    world.api.post_ask(world.ask())
    world.api.post_bid(world.bid())
    for model in (AskRow, BidRow):
        assert replayed(world, model) == stored(world, model)
        assert stored(world, model)[0]["receipt"] is not None


def test_an_order_of_before_there_were_receipts_has_none(world: World) -> None:
    out = world.api.post_ask(world.ask())
    with world.context.db.session() as session:
        session.get_one(AskRow, out.id).receipt = None
    assert world.api.ask(out.id).receipt is None


# ------------------------------------------------------------------ whom it is for


def test_it_is_kept_with_what_was_signed(world: World, posted: Any) -> None:
    body, receipt = posted
    ask = world.ask(valid_until=int(time.time()) + 600)
    answer = world.api.post_ask(ask).receipt
    receipts.keep_receipt(DOMAIN, world.context.matcher, body, receipt)
    receipts.keep_receipt(DOMAIN, world.context.matcher, ask, answer)
    kept = {one.id: one for one in receipts.load_receipts(world.context.matcher)}
    ids = body.bid.digest(DOMAIN), ask.ask.digest(DOMAIN)
    assert set(kept) == set(ids)
    for id, order, signature, of, until in (
        (ids[0], body.bid, body.signature, receipt, body.bid.valid_until),
        (ids[1], ask.ask, ask.signature, answer, ask.ask.valid_until),
    ):
        assert kept[id] == receipts.KeptReceipt(order=order, signature=signature, until=until, receipt=of)
        path = home() / "receipts" / world.context.matcher / f"{id}.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert receipts.load_receipts(new_account().address) == []


def test_a_job_with_a_deadline_ends_there(world: World, posted: Any) -> None:
    deadline = datetime(2040, 1, 1, tzinfo=UTC)
    body = world.bid(spec=make_spec(deadline=deadline.strftime("%Y-%m-%dT%H:%M:%SZ")), nonce=1)
    receipts.keep_receipt(DOMAIN, world.context.matcher, body, world.api.post_bid(body).receipt)
    (kept,) = receipts.load_receipts(world.context.matcher)
    assert kept.until == deadline.timestamp() < body.bid.valid_until


def test_one_that_proves_nothing_is_not_kept(world: World, posted: Any) -> None:
    body, receipt = posted
    other = world.api.post_bid(world.bid(nonce=1)).receipt
    forged = receipt.model_copy(update={"signature": receipt.receipt.sign(DOMAIN, world.stranger)})
    later = receipt.receipt.model_copy(update={"epoch": receipt.receipt.epoch + 1})
    for answer, why in (
        (None, "gave no receipt"),
        (other, "is for another order"),
        (forged, f"not signed by its matcher {world.context.matcher}"),
        (ReceiptOut(receipt=later, signature=receipt.signature), "not signed by its matcher"),
    ):
        with pytest.raises(UserError, match=why) as caught:
            receipts.keep_receipt(DOMAIN, world.context.matcher, body, answer)
        assert "ask its operator" in (caught.value.hint or "")
    assert receipts.load_receipts(world.context.matcher) == []


def test_those_of_orders_that_ended_long_ago_are_deleted(world: World, posted: Any) -> None:
    matcher = world.context.matcher
    soon, old = int(time.time()) + 1, time.time() - receipts.KEPT_SECONDS - 60
    asks = [world.ask(valid_until=soon), world.ask()]
    for ask in asks:
        receipts.keep_receipt(DOMAIN, matcher, ask, world.api.post_ask(ask).receipt)
    paths = [home() / "receipts" / matcher / f"{ask.ask.digest(DOMAIN)}.json" for ask in asks]
    # As if the first had ended 30 days ago, and both had been posted before that.
    text = paths[0].read_text()
    assert f'"until": {soon}' in text
    paths[0].write_text(text.replace(f'"until": {soon}', f'"until": {int(old)}'))
    for path in paths:
        os.utime(path, (old, old))
    receipts.keep_receipt(DOMAIN, matcher, *posted)
    assert {one.id for one in receipts.load_receipts(matcher)} == {asks[1].ask.digest(DOMAIN), posted[1].receipt.order}


def test_a_file_that_is_none_is_named(world: World, posted: Any) -> None:
    receipts.keep_receipt(DOMAIN, world.context.matcher, *posted)
    (path,) = (home() / "receipts" / world.context.matcher).iterdir()
    path.write_text(path.read_text()[:-9])
    with pytest.raises(UserError, match=f"{path} is no receipt"):
        receipts.load_receipts(world.context.matcher)


def test_a_full_disk_is_told(world: World, posted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        receipts.keep_receipt(DOMAIN, world.context.matcher, *posted)
