"""Prices, matches and reasons that orders, chain and coin do not give: each is named."""

from contracts.api.epochs import (
    MatchOut,
    UnmatchedOut,
)
from contracts.chain.events import (
    PageRaised,
)
from market.matching import Reason
from tests.support.epoch_to_spoil import NUMBER, Held, World, at, only_match


def test_a_price_that_is_not_the_class_s(held: Held) -> None:
    match = only_match(held)
    held.spoil(matches=[match.model_copy(update={"price": match.price + 1})])
    assert f"bid {match.bid} pays ask {match.ask} {match.price + 1} a checkpoint; its class's price is" in held.lie()


def test_a_price_that_nobody_objects_to_but_is_too_high(world: World) -> None:
    """One bid for one machine: any price between their limits proves itself, and the market owes the least."""
    world.bid()
    world.ask()
    held = world.hold()
    match, (price,) = only_match(held), held.prices
    dear = price.model_copy(update={"price": price.price * 3 // 2})
    held.prices = [dear]
    held.spoil(matches=[match.model_copy(update={"price": match.price * 3 // 2})])
    assert held.lie() == (
        f"bid {match.bid} got ask {match.ask} (place 0) at 1500000 a checkpoint; "
        f"cleared again with the epoch's seed it got ask {match.ask} (place 0) at 1000000 a checkpoint"
    )


def test_a_friend_among_equals(held: Held) -> None:
    match = only_match(held)
    friend = next(bid for bid in held.orders.bids if bid.id != match.bid and bid.bid.max_price == 2_000_000)
    held.spoil(matches=[match.model_copy(update={"bid": friend.id})])
    assert {f"bid {match.bid} got no lease", f"bid {friend.id} got ask {match.ask}"} == {
        lie.split(";")[0].split(" (place")[0]
        for one in held.check(every=True)
        if one.name == "coin"
        for lie in one.lies
    }


def test_a_bid_that_is_told_a_wrong_reason(held: Held) -> None:
    low = held.orders.bids[2]
    held.spoil(unmatched=[UnmatchedOut(bid=low.id, reason=Reason.PRICE)])
    assert held.notes() == []
    held.spoil(unmatched=[UnmatchedOut(bid=low.id, reason=Reason.NO_ASKS)])
    assert held.lie() == (
        f"bid {low.id} is said to be left because {Reason.NO_ASKS}; cleared again it is left because {Reason.PRICE}"
    )
    held.prices = [one.model_copy(update={"epoch": NUMBER - 1}) for one in held.prices]
    assert held.notes() == []  # it was told then


def test_a_dearer_friend(world: World) -> None:
    bid, _, dear = world.bid(), world.ask(0), world.ask(1, price_per_hour=5_000_000_000)
    held = world.hold()
    price = 1_388_889
    held.spoil(matches=[MatchOut(bid=bid.id, ask=dear.id, price=price, lease=None)])
    assert f"bid {bid.id}" in held.lie()
    assert {one.name for one in held.check() if one.lies} == {"prices"}


def test_a_job_goes_on_elsewhere(world: World) -> None:
    """From the checkpoint that it has reached, away from the provider that made none, as the chain says."""
    bid, ask = world.bid(), world.ask(0)
    first = world.open(bid, ask, 1_000_000, 5)
    world.give_up(first, 6, accepted=1)
    second = world.open(bid, ask, 1_000_000, 7, start=1, prev=first.lease)
    world.give_up(second, 8, accepted=1)
    other = world.ask(1, price_per_hour=5_000_000_000)
    world.events.append(PageRaised(at(9), world.clients[0].address, 1))  # which ends no Bid that has had a lease
    held = world.hold()
    assert (only_match(held).ask, held.notes()) == (other.id, [])
    held.spoil(matches=[only_match(held).model_copy(update={"ask": ask.id, "price": 1_000_000})])
    assert "matched with a machine that it does not fit" in held.lie()
