"""Orders that an epoch should have had: each that is missing is named, unless there was a reason."""

from typing import Any

from contracts.api.epochs import (
    EpochAsk,
    EpochBid,
    FailureReport,
    LeftOut,
    LeftOutReason,
    MatchOut,
    epoch_root,
)
from contracts.chain.errors import Refusal
from contracts.chain.events import (
    PageRaised,
)
from contracts.finality import Finality
from contracts.orders import Report
from contracts.terms import AccountWord
from contracts.types import ZERO_HASH
from market.verify.published import OrderSet, Promise, until
from tests.support.epoch_to_spoil import FREE, Held, World, at
from tests.support.offline_market import DOMAIN


def promised(one: EpochBid | EpochAsk, due: int = 1, whence: str = "has a receipt for epoch 1") -> Promise:
    order = one.bid if isinstance(one, EpochBid) else one.ask
    return Promise(one.id, order, one.signature, until(one), one.receipt, whence, due)


def test_a_promised_order_that_is_missing(world: World) -> None:
    kept = world.make_bid()
    world.kept.append(promised(kept))
    assert world.hold().lie() == (
        f"bid {kept.id} has a receipt for epoch 1, and is in force at block 20, but it is not in epoch 3, "
        "nor does the header say why"
    )


def test_promises_that_need_not_be_kept_yet_or_any_more(world: World) -> None:
    later, spent, cancelled = world.make_bid(0), world.make_bid(0), world.make_bid(1)
    world.node.words[spent.bid.client] = AccountWord(FREE, 0, 0, 1 << spent.bid.bit)
    world.events.append(PageRaised(at(6), cancelled.bid.client, 1))
    over = world.make_ask(valid_until=1000)
    world.kept += [promised(later, due=4), promised(spent), promised(cancelled), promised(over)]
    assert world.hold().notes() == []


def test_a_promise_that_is_put_off(world: World) -> None:
    """As a market could that promises some orders an epoch far away."""
    kept = world.make_bid()
    receipt = world.receipt(kept.id, epoch=9)
    world.kept.append(promised(kept.model_copy(update={"receipt": receipt}), due=9))
    world.header_changes["time"] = 1061
    assert world.hold().lie() == (
        f"bid {kept.id} was accepted at 1000, and epoch 3 counts from 1061, but its receipt promises epoch 9 only"
    )


def test_an_order_of_the_epoch_before_that_is_missing(world: World) -> None:
    ask = world.make_ask()
    header = world.header().model_copy(update={"number": 2})
    world.before = OrderSet(2, header, [], [ask])
    world.publish(2, epoch_root(header, [ask.id]), 12)
    held = world.hold()
    assert f"ask {ask.id} was in epoch 2, and is in force at block 20, but it is not in epoch 3" in held.lie()
    world.before = OrderSet(2, header, [], [])
    assert "epoch 2's header and orders have the root" in held.lie()


def test_an_epoch_that_is_hidden(world: World) -> None:
    world.publish(2, ZERO_HASH, 12)
    held = world.hold()
    assert held.lie() == (
        f"{world.matcher.address} published epoch 2 with the root {ZERO_HASH} in block 12, "
        "but the market tells nothing of it"
    )
    world.lookup.epochs[2] = world.told(world.header()).model_copy(update={"header": None})
    assert ["has no orders of epoch 2" in note for note in held.notes()] == [True]


def test_an_order_that_is_in_the_set_and_left_out(world: World) -> None:
    bid = world.bid()
    world.header_changes["left_out"] = [LeftOut(order=bid.id, reason=LeftOutReason.STOPPED_EARLY)]
    assert "is in epoch 3, and said to be left out of it" in world.hold().lie()


def left_out(world: World, one: EpochBid | EpochAsk, reason: LeftOutReason, **shown: Any) -> Held:
    world.header_changes["left_out"] = [LeftOut(order=one.id, reason=reason, **shown)]
    world.lookup.orders[one.id] = promised(one, whence="was left out")
    return world.hold()


def test_left_out_because_the_lease_before_is_not_final(world: World) -> None:
    bid, ask = world.make_bid(), world.make_ask()
    lease = world.open(bid, ask, 1_000_000, 15)
    world.give_up(lease, 18, accepted=2)
    world.finality = Finality(base=3, max=3)
    held = left_out(world, bid, LeftOutReason.FINAL, lease=lease.lease)
    assert held.notes() == []
    world.finality = Finality(base=2, max=2)
    assert "in block 18 was 2 blocks deep, and by the market's own finality 2 are enough" in held.lie()


def test_left_out_because_it_failed(world: World) -> None:
    bid, lease, reports = world.make_bid(), None, []
    for n in range(3):
        prev = {"prev": lease.lease} if lease else {}
        lease = world.open(bid, world.make_ask(n), 1_000_000, 5 + 3 * n, **prev)
        world.give_up(lease, 6 + 3 * n)
        report = Report(lease=lease.lease, n=1, kind="failed", content=ZERO_HASH, time=1000)
        reports.append(FailureReport(report=report, signature=report.sign(DOMAIN, world.providers[n])))
    world.header_changes["failures"] = reports
    held = left_out(world, bid, LeftOutReason.FAILED)
    assert held.notes() == []
    held.commit_anew(held.orders.header.model_copy(update={"failures": reports[1:]}))
    assert "the header has reports of 2 leases that failed at checkpoint 1, not of 3" in held.lie()
    again = reports[0].report.model_copy(update={"time": 1001})  # markets told all that a lease said, formerly
    told = FailureReport(report=again, signature=again.sign(DOMAIN, world.providers[0]))
    held.commit_anew(held.orders.header.model_copy(update={"failures": [told, *reports]}))
    assert held.notes() == []
    held.commit_anew(held.orders.header.model_copy(update={"failures": [*reports, reports[0]]}))
    assert "the header of epoch 3 tells a failure report twice" in held.lie()
    forged = reports[0].model_copy(update={"signature": reports[1].signature})
    held.commit_anew(held.orders.header.model_copy(update={"failures": [forged, *reports[1:]]}))
    assert f"is not signed by {world.providers[0].address}" in held.lie()


def test_left_out_because_its_provider_is_silent(world: World) -> None:
    lease = world.open(world.make_bid(), world.make_ask(1), 1_000_000, 5)
    world.give_up(lease, 11, late=True)
    ask = world.make_ask(1, price_per_hour=3_700_000_000)  # received at block 10
    held = left_out(world, ask, LeftOutReason.SILENT, lease=lease.lease)
    assert held.notes() == []
    newer = ask.model_copy(update={"receipt": world.receipt(ask.id, block=12)})
    world.lookup.orders[ask.id] = promised(newer)
    assert f"lease {lease.lease} ended in block 11, and the market received the ask after block 12" in held.lie()
    other = left_out(world, world.make_ask(2), LeftOutReason.SILENT, lease=lease.lease)
    assert f"{lease.lease} is no lease of an ask's provider" in other.lie()


def test_a_silent_friend_that_stays_in(world: World) -> None:
    lease = world.open(world.make_bid(), world.make_ask(1), 1_000_000, 5)
    world.give_up(lease, 11, late=True)
    ask = world.ask(1)
    assert f"ask {ask.id} is in epoch 3, though its provider let lease {lease.lease} time out" in world.hold().lie()


def test_left_out_because_the_escrow_refused_it(world: World) -> None:
    bid, ask = world.make_bid(), world.make_ask()
    refused = MatchOut(bid=bid.id, ask=ask.id, price=1, lease=None, note=Refusal.BALANCE_SHORT.sentence)
    earlier = world.header().model_copy(update={"number": 2, "time": 900})
    world.lookup.epochs[2] = world.told(earlier, matches=[refused])
    held = left_out(world, bid, LeftOutReason.REFUSED, epoch=2)
    assert held.notes() == []
    world.lookup.epochs[2] = world.told(earlier.model_copy(update={"time": 300}), matches=[refused])
    assert "epoch 2 was 722 s before, more than 600" in held.lie()
    world.lookup.epochs[2] = world.told(earlier, matches=[])
    assert "epoch 2 tells of no refused match that was its fault" in held.lie()
    world.lookup.epochs[2] = world.told(
        earlier, matches=[refused.model_copy(update={"note": Refusal.STAKE_SHORT.sentence})]
    )
    assert "epoch 2 tells of no refused match that was its fault" in held.lie()


def test_left_out_because_it_stopped_early_is_the_markets_word(world: World) -> None:
    bid = world.make_bid()
    held = left_out(world, bid, LeftOutReason.STOPPED_EARLY)
    assert "it never had a lease" in held.lie()
    world.give_up(world.open(bid, world.make_ask(), 1_000_000, 5), 6, accepted=2)
    assert ["is for its client to see" in note for note in held.notes()] == [True]


def test_an_order_left_out_that_nobody_knows(world: World) -> None:
    world.header_changes["left_out"] = [LeftOut(order=ZERO_HASH, reason=LeftOutReason.FAILED)]
    assert ["does not tell what it was" in note for note in world.hold().notes()] == [True]
