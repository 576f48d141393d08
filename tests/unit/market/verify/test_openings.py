"""Leases that an epoch had not matched, and matches that it did not open: each is named."""

from dataclasses import replace

from contracts.chain.events import (
    Opened,
    Withdrawn,
)
from contracts.types import ZERO_HASH
from tests.support.epoch_to_spoil import NUMBER, SEED_BLOCK, Held, at, only_match


def test_a_lease_that_was_not_matched(held: Held) -> None:
    bid = next(bid for bid in held.orders.bids if bid.id != only_match(held).bid)
    lease = held.world.open(bid, held.orders.asks[0], 900_000, 31)
    assert held.lie() == (
        f"lease {lease.lease} (bid {bid.id}, ask {held.orders.asks[0].id}, 900000 a checkpoint) was opened "
        "after epoch 3 was published, in block 31, but is no match of it"
    )


def test_leases_of_other_markets_are_none_of_ours(held: Held) -> None:
    world = held.world
    bid, ask = world.make_bid(matcher=world.stranger.address), world.make_ask(2, matcher=world.stranger.address)
    lease = world.open(bid, ask, 1, 31)
    world.node.senders[lease.at.transaction] = world.stranger.address
    assert held.notes() == []


def test_a_lease_for_everybody_is_the_sender_s(held: Held) -> None:
    world, nobody = held.world, "0x" + "0" * 40
    world.open(world.make_bid(matcher=nobody), world.make_ask(2, matcher=nobody), 1, 31)
    assert "but is no match of it" in held.lie()


def test_a_lease_at_another_price(held: Held) -> None:
    world, match = held.world, only_match(held)
    opened = next(one for one in world.events if isinstance(one, Opened))
    world.events.remove(opened)
    bid = next(bid for bid in held.orders.bids if bid.id == match.bid)
    world.open(bid, held.orders.asks[0], match.price + 5, 30)
    assert f"which matched it at {match.price}" in held.lie()


def test_a_lease_before_the_seed_was_known(held: Held) -> None:
    world = held.world
    opened = next(one for one in world.events if isinstance(one, Opened))
    world.events[world.events.index(opened)] = replace(opened, at=at(SEED_BLOCK))
    assert "was opened in block 26, when the seed of epoch 3 was not known" in held.lie()


def test_a_match_that_was_not_opened(held: Held) -> None:
    world, match = held.world, only_match(held)
    world.events = [one for one in world.events if not isinstance(one, Opened)]
    assert f"lease {match.lease} is said to be theirs, but it was not opened by it" in held.lie()
    held.spoil(matches=[match.model_copy(update={"lease": None, "note": "the client is short"})])
    assert held.lie() == (
        f"bid {match.bid} and ask {match.ask} were matched in epoch 3, but not opened ('the client is short'), "
        "although nothing had changed for either"
    )
    withdrawn = Withdrawn(at(27), world.providers[0].address, world.providers[0].address, 1)
    world.events.append(withdrawn)
    assert held.notes() == []
    world.events.remove(withdrawn)
    held.spoil(matches=[match.model_copy(update={"lease": None})], transaction=None)
    assert held.notes() == [f"bid {match.bid} and ask {match.ask} were matched in epoch 3, and not opened yet"]
    world.publish(NUMBER + 1, ZERO_HASH, 40)
    assert "but not opened, although nothing had changed" in held.lie()


def test_what_came_of_the_next_epoch_is_none_of_this_one(held: Held) -> None:
    world = held.world
    world.publish(NUMBER + 1, ZERO_HASH, 40)
    world.open(world.make_bid(), world.make_ask(2), 1, 42)
    assert held.notes() == []
