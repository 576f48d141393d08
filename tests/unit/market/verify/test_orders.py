"""Orders of a set that were not signed, or are not in force: each is named."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from contracts.chain.events import (
    Approved,
)
from contracts.terms import AccountWord
from market.verify.published import OrderSet
from tests.support.epoch_to_spoil import FREE, NUMBER, TIP, Held, World, at
from tests.support.market_parts import CPU, make_spec
from tests.support.offline_market import DOMAIN, RULES


def test_a_forged_order(held: Held) -> None:
    bid = held.orders.bids[0]
    forged = bid.model_copy(update={"signature": bid.bid.sign(DOMAIN, held.world.stranger)})
    held.orders = replace(held.orders, bids=[forged, *held.orders.bids[1:]])
    assert held.lie() == f"bid {bid.id} of epoch 3 is not signed by {bid.bid.client}"


def test_a_contract_wallet_may_have_changed_its_mind(held: Held) -> None:
    bid = held.orders.bids[2]
    held.world.node.wallets.add(bid.bid.client)
    forged = bid.model_copy(update={"signature": bid.bid.sign(DOMAIN, held.world.stranger)})
    held.orders = replace(held.orders, bids=[*held.orders.bids[:2], forged])
    assert len(held.notes()) == 1


def test_an_order_with_another_id_or_other_terms(held: Held) -> None:
    bid = held.orders.bids[0]
    changed = bid.model_copy(update={"bid": bid.bid.model_copy(update={"max_price": 1})})
    held.orders = replace(held.orders, bids=[changed, *held.orders.bids[1:]])
    assert f"bid {bid.id} of epoch 3 is not what its id says" in held.lie()


def test_another_job_than_was_signed(held: Held) -> None:
    bid = held.orders.bids[0].model_copy(update={"spec": make_spec(seed=2)})
    held.orders = replace(held.orders, bids=[bid, *held.orders.bids[1:]])
    assert f"signs the job {bid.bid.job}, but the spec given has the hash" in held.lie()


def test_other_resources_than_were_signed(held: Held) -> None:
    ask = held.orders.asks[0]
    faster = ask.model_copy(update={"resources": CPU.model_copy(update={"memory_mb": 9000})})
    held.orders = replace(held.orders, asks=[faster])
    assert f"ask {ask.id} of epoch 3 signs resources {ask.ask.resources}, but" in held.lie()


def test_an_order_that_is_there_twice(held: Held) -> None:
    held.orders = replace(held.orders, asks=held.orders.asks * 2)
    assert "is 2 times in epoch 3" in held.lie()


def test_rules_that_the_header_does_not_have(held: Held) -> None:
    held.commit_anew(held.orders.header.model_copy(update={"rules": []}))
    assert f"signs rules {RULES.struct_hash()}, which the header does not have" in held.lie()


def test_a_receipt_of_somebody_else(held: Held) -> None:
    bid = held.orders.bids[0]
    forged = bid.model_copy(update={"receipt": held.world.receipt(bid.id, key=held.world.stranger)})
    held.orders = replace(held.orders, bids=[forged, *held.orders.bids[1:]])
    assert "is not signed by the market" in held.lie()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda world: world.bid(valid_until=1021), "it ended at 1021, before 1022"),
        (lambda world: world.bid(spec=make_spec(deadline="1970-01-01T00:17:00Z")), "it ended at 1020, before 1022"),
        (lambda world: world.ask(1, valid_from=1023), "it begins at 1023, after 1022"),
        (lambda world: world.ask(1, page=1), "it names page 1, and its owner is at page 0"),
        (lambda world: world.bid(matcher=world.stranger.address), "it names the matcher"),
        (lambda world: world.bid(max_price=7, fee=7), "the escrow opens no lease with such terms"),
        (lambda world: world.bid(stake=1), "its stake 1 does not cover the arbiter's fee 1000000"),
        (lambda world: world.bid(units=0), "it has a 0 where 1 is the least"),
    ],
)
def test_an_order_that_is_not_in_force(world: World, spoil: Callable[[World], Any], sentence: str) -> None:
    order, header = spoil(world), world.header()
    held = Held(world, world.told(header), OrderSet(NUMBER, header, world.bids, world.asks), [])
    held.commit_anew()
    lie = held.lie()
    assert f"{order.id} of epoch 3 is not in force: " in lie
    assert sentence in lie


def test_a_bid_that_has_a_lease_or_is_done(world: World) -> None:
    bid, ask = world.bid(), world.make_ask()
    lease = world.open(bid, ask, 1_000_000, 5)
    held = world.hold()
    assert f"its lease {lease.lease} is live" in held.lie()
    world.events.append(Approved(at(6), lease.lease, 4, TIP))
    assert f"nothing can follow its lease {lease.lease}" in held.lie()


def test_a_bid_whose_nonce_another_order_used(held: Held) -> None:
    bid, word = held.orders.bids[2], AccountWord(FREE, 0, 0, 1 << 2)
    held.world.node.words[bid.bid.client] = word
    assert f"bid {bid.id} of epoch 3 can open no lease: another order has used its nonce" in held.lie()
    held.world.node.forgets = True
    assert ["can't be told" in note for note in held.notes()] == [True]
