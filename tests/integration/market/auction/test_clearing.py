"""The course of an epoch: what is promised, what is published before what, and what a crash leaves."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from sqlmodel import delete, select

from contracts.api.bodies import JobOut
from contracts.api.epochs import EpochOut, EpochStatus, LeftOutReason
from contracts.chain.sending.lane import close_lanes
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from market.auction import clearing
from market.auction.clearing import Clearing
from market.store.models import BidRow, ChainBlock
from tests.support.devnet import TOKEN, rpc
from tests.support.stepped_market import Lives, clear

pytestmark = pytest.mark.mostly_sqlite


class Crash(Exception):
    """Of a test."""


def newest(market: Lives) -> EpochOut:
    return next(market.api.epochs())


def promised(order: Any) -> int:
    assert order.receipt is not None
    return int(order.receipt.receipt.epoch)


def restart(market: Lives) -> None:
    """A new process goes on with what is stored."""
    market.follow()
    market.clearing = Clearing(market.context)


def test_a_market_without_a_block_yet_waits_for_one(market: Lives) -> None:
    with market.context.db.session() as session:
        session.exec(delete(ChainBlock))
    assert market.clearing.epoch() is None
    market.follow()
    market.post_ask(market.providers[0])
    market.post_bid()
    assert market.clear() is not None


def test_an_order_is_promised_the_first_epoch_that_has_not_begun(market: Lives) -> None:
    market.post_ask(market.providers[0])
    first = market.post_bid()
    late: list[JobOut] = []

    def post_meanwhile(*of: Any) -> Any:
        late.append(market.post_bid())
        return drawn(*of)

    drawn = clearing.draw_coin
    with patch.object(clearing, "draw_coin", post_meanwhile):
        assert market.clear() is not None
    assert [promised(first), promised(late[0])] == [1, 2]
    assert [one.id for one in market.api.epoch_bids(1)] == [first.id]
    market.post_ask(market.providers[1])
    assert market.clear() is not None
    assert [one.id for one in market.api.epoch_bids(2)] == [late[0].id]


def test_the_orders_are_on_chain_before_the_coin_is_drawn(market: Lives) -> None:
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    epoch = newest(market)
    assert epoch.header is not None and epoch.seed_block is not None
    published = market.chain.epoch_block(market.context.matcher, 1, 0)
    assert published is not None and epoch.header.block < published == epoch.seed_block - 1
    assert market.lease_of(job).opened_block > epoch.seed_block


def test_with_nothing_new_neither_chain_nor_orders_are_looked_at(market: Lives) -> None:
    market.post_ask(market.providers[0])
    market.post_bid(max_price=1)
    assert market.clear() is not None  # it can't be matched, and anybody can check that
    for _ in range(2):  # the first of these still sees what the epoch itself has written
        assert market.clear() is None
    with patch.object(Clearing, "_look", side_effect=AssertionError("it looked")):
        assert market.clear() is None
    job = market.post_bid(max_price=2)
    assert market.clear() is not None
    assert [one.bid for one in newest(market).unmatched] == [job.id]  # why the other one waits is not new


@pytest.mark.parametrize("when", ["announce", "draw_coin", "clear"])
def test_an_epoch_whose_leader_dies_before_it_is_cleared_is_abandoned(market: Lives, when: str) -> None:
    job = market.post_bid()
    market.post_ask(market.providers[0])
    with patch.object(clearing, when, side_effect=Crash()), pytest.raises(Crash):
        market.clear()
    restart(market)
    assert market.clear() is not None
    after, before = list(market.api.epochs())
    assert (before.status, before.matches, after.status) == (EpochStatus.ABANDONED, [], EpochStatus.CLEARED)
    assert market.lease_of(job).id == after.matches[0].lease
    assert [one.id for one in market.api.epoch_bids(after.number)] == [job.id]


def test_what_the_escrow_refuses_is_left_out_for_a_while_and_in_nobodys_way(market: Lives) -> None:
    job = market.post_bid()
    market.post_ask(market.providers[0])
    with market.context.db.session() as session:  # as if its wallet had changed its mind since
        row = session.exec(select(BidRow).where(BidRow.id == job.id)).one()
        row.signature = "0x" + "00" * 64
        session.add(row)
    assert market.clear() is not None
    (match,) = newest(market).matches
    assert match.lease is None and "not signed by its client" in match.note
    other = market.post_bid()
    assert market.clear() is not None
    epoch = newest(market)
    assert epoch.header is not None
    assert [(one.order, one.reason, one.epoch) for one in epoch.header.left_out] == [
        (job.id, LeftOutReason.REFUSED, epoch.number - 1)
    ]
    assert [one.bid for one in epoch.matches] == [other.id]


@pytest.mark.parametrize("is_restarted", [True, False])
def test_what_a_leader_matched_and_did_not_open_is_opened_later(market: Lives, is_restarted: bool) -> None:
    job = market.post_bid()
    market.post_ask(market.providers[0])
    with patch.object(clearing, "open_matches", side_effect=Crash()), pytest.raises(Crash):
        market.clear()
    assert newest(market).matches[0].lease is None
    if is_restarted:
        restart(market)
    for _ in range(3):
        assert market.clear() is None
    assert newest(market).matches[0].lease == market.lease_of(job).id


def test_an_epoch_that_was_given_up_meanwhile_is_not_cleared(market: Lives) -> None:
    """Its leader was cut off for a while, and leads again."""
    job = market.post_bid()
    market.post_ask(market.providers[0])
    drawn, other = clearing.draw_coin, Clearing(market.context)

    def pause(*of: Any) -> Any:
        with patch.object(clearing, "draw_coin", drawn):
            for _ in range(2):
                clear(other)
                market.follow()
        return drawn(*of)

    with patch.object(clearing, "draw_coin", pause), pytest.raises(UserError, match="is abandoned meanwhile"):
        market.clear()
    after, before = list(market.api.epochs())
    assert (before.status, before.matches, after.status) == (EpochStatus.ABANDONED, [], EpochStatus.CLEARED)
    assert [one.lease for one in after.matches] == [market.lease_of(job).id]


def test_a_new_leader_looks_at_no_orders_before_it_has_followed_the_chain(market: Lives) -> None:
    market.post_bid()
    market.post_ask(market.providers[0])
    with patch.object(clearing, "announce", side_effect=Crash()), pytest.raises(Crash):
        market.clear()
    restart(market)
    rpc(market.chain, "evm_mine")
    with patch.object(Clearing, "_look", side_effect=AssertionError("it looked")):
        assert market.clearing.epoch() is None
    market.follow()
    assert market.clear() is not None


def test_what_an_order_has_set_aside_is_free_for_others_when_it_ends(market: Lives) -> None:
    end = market.context.now() + 100
    market.post_bid(max_price=25 * TOKEN, stake=60 * TOKEN, valid_until=end)  # no ask locks so much
    job = market.post_bid()
    market.post_ask(market.providers[0])
    assert market.clear() is None
    assert "balance" in market.api.job(job.id).reason
    with patch.object(Clearing, "_look", side_effect=AssertionError("it looked")):
        assert market.clear() is None
    market.pass_time(end + 1 - market.chain.now())
    assert market.clear() is not None
    assert market.lease_of(job).id == newest(market).matches[0].lease


def test_an_epoch_counts_from_no_earlier_than_its_block(market: Lives) -> None:
    market.post_bid()
    market.post_ask(market.providers[0])
    market.pass_time(3600)
    head = market.context.head
    market.context.head = replace(head, timestamp=0)  # the indexer stores a block just before it tells so
    assert clear(market.clearing) is not None
    epoch = newest(market)
    assert epoch.header is not None and epoch.header.time >= head.timestamp


def test_reports_of_a_lease_that_a_reorganisation_undid_do_not_count(market: Lives) -> None:
    job = market.post_bid()
    gone, other = market.providers
    market.post_ask(gone)
    market.clear()
    market.say(market.lease_of(job), "failed", 1)
    close_lanes()  # else what is lost would be sent again
    rpc(market.chain, "anvil_reorg", 1, [])
    Sender(market.chain, gone).send(market.chain.raise_page(1))
    market.follow()
    assert not market.api.job(job.id).leases
    market.post_ask(other)
    market.clear()
    lease = market.lease_of(job)
    market.say(lease, "release", 0)
    market.approver.answer_releases()
    market.redeem(lease)
    market.post_ask(other, price_per_hour=1_800_000_000)
    assert market.clear() is not None
    epoch = newest(market)
    assert epoch.header is not None and epoch.header.failures == []


def test_another_market_may_count_as_high_as_it_likes(market: Lives) -> None:
    call = market.chain.publish_epoch(2**64 - 1, "0x" + "11" * 32)
    Sender(market.chain, market.client).send(call)
    job = market.post_bid()
    market.post_ask(market.providers[0])
    assert market.clear() is not None
    assert newest(market).matches[0].lease == market.lease_of(job).id


def test_an_epoch_tells_why_it_left_a_bid_that_waited_before_it(market: Lives) -> None:
    market.post_bid(max_price=25 * TOKEN, stake=60 * TOKEN)  # takes all of the balance
    waiting = market.post_bid()
    market.post_ask(market.providers[0])
    assert market.clear() is None  # nothing to solve, but its client is told why
    assert "balance" in market.api.job(waiting.id).reason
    market.post_ask(market.providers[1], max_stake=60 * TOKEN, price_per_hour=360_000_000_000)
    assert market.clear() is not None
    assert waiting.id in [one.bid for one in newest(market).unmatched]


def test_an_epoch_whose_block_a_reorganisation_took_back_is_given_up(market: Lives) -> None:
    market.post_bid()
    market.post_ask(market.providers[0])

    def reorganise_meanwhile(*of: Any) -> Any:
        close_lanes()  # else the root would be sent again
        rpc(market.chain, "anvil_reorg", 3, [])
        return drawn(*of)

    drawn = clearing.draw_coin
    with patch.object(clearing, "draw_coin", reorganise_meanwhile), pytest.raises(UserError, match="reorganisation"):
        clear(market.clearing)
    market.follow()
    with patch.object(Clearing, "_clear", return_value=None):
        market.clearing.epoch()
    assert newest(market).status is EpochStatus.ABANDONED


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_asks_that_nobody_wants_cost_one_epoch(market: Lives) -> None:
    """Each of them is new to a Bid that none of them suits; before, each cost the market an epoch."""
    market.post_bid(max_price=1)
    before = market.chain.newest_epoch(market.context.matcher)
    for turn in range(5):
        market.post_ask(market.providers[0], price_per_hour=3_600_000_000 + turn)
        clear(market.clearing, paced=True)
    assert market.chain.newest_epoch(market.context.matcher) == before + 1
    waiting = next(market.api.jobs(status="pending"))
    assert waiting.reason  # why, it is told all the same
    # Who can be served waits for nothing.
    job = market.post_bid()
    clear(market.clearing, paced=True)
    market.follow()
    assert market.api.job(job.id).leases
    used = market.context.metrics.registry.get_sample_value
    assert (used("gpumarket_gas_used_total", {"what": "epoch"}) or 0) > 50_000
    assert (used("gpumarket_gas_used_total", {"what": "opening"}) or 0) > 50_000
