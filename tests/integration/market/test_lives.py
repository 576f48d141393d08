"""Whole lives of jobs: cleared, approved, released, timed out, moved on, and reconciled; on a real chain."""

import pytest
from sqlmodel import select

from contracts.api.epochs import epoch_root
from contracts.api.problems import Code, Problem
from contracts.api.quotes import QuoteIn
from contracts.chain.sending.sender import Sender
from contracts.terms import Phase
from market.client.download import accepted_chain
from market.store.models import (
    ChainEvent,
    EpochRow,
    LeaseRow,
    UnmatchedRow,
)
from tests.support.devnet import TOKEN
from tests.support.stepped_market import Lives, differences, one_lease

# ------------------------------------------------------------------ clearing


def test_an_epoch_opens_what_matches_and_says_why_the_rest_waits(market: Lives) -> None:
    wanted, dear, poor = market.post_bid(), market.post_bid(max_price=1), market.post_bid(stake=60 * TOKEN)
    market.post_ask(market.providers[0])
    epoch = market.clear()
    assert epoch is not None
    lease = market.lease_of(wanted)
    assert (lease.state.phase, lease.provider, lease.price) == ("active", market.providers[0].address, 1_000_000)
    assert "price" in market.api.job(dear.id).reason
    assert "stake" in market.api.job(poor.id).reason
    shown = market.api.epoch(epoch.number)
    assert [(m.bid, m.lease) for m in shown.matches] == [(wanted.id, lease.id)]
    assert {u.bid for u in shown.unmatched} == {dear.id, poor.id}
    assert market.chain.newest_epoch(market.context.matcher) == epoch.number == 1
    orders = [wanted.id, dear.id, poor.id, lease_ask(market)]
    assert shown.header is not None
    assert epoch_root(shown.header, orders) == epoch.order_root == published_root(market)
    assert {one.id for one in market.api.epoch_bids(1)} | {one.id for one in market.api.epoch_asks(1)} == set(orders)
    assert shown.seed == market.chain.block_hash(shown.seed_block or 0)


def lease_ask(market: Lives) -> str:
    with market.context.db.reading() as session:
        return session.exec(select(LeaseRow)).one().ask


def published_root(market: Lives) -> str:
    with market.context.db.reading() as session:
        row = session.exec(select(ChainEvent).where(ChainEvent.name == "EpochPublished")).one()
        return str(row.data["order_set_root"])


def test_an_epoch_with_nothing_new_sends_nothing(market: Lives) -> None:
    one_lease(market)
    before = market.chain.w3.eth.get_transaction_count(market.context.matcher)
    market.post_bid(max_price=1)
    assert market.clear() is None
    assert market.clear() is None
    assert market.chain.w3.eth.get_transaction_count(market.context.matcher) == before


def test_a_provider_has_one_lease_at_a_time(market: Lives) -> None:
    first, second = market.post_bid(), market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    assert market.clear() is None
    placed = [job for job in (first, second) if market.api.job(job.id).leases]
    assert len(placed) == 1
    market.post_ask(market.providers[1])
    assert market.clear() is not None
    assert {market.lease_of(job).provider for job in (first, second)} == {p.address for p in market.providers[:2]}


# ------------------------------------------------------------------ to the end


def test_a_job_by_one_approval_at_the_price_of_its_quote(market: Lives) -> None:
    market.post_ask(market.providers[0])
    market.post_bid(max_price=1_200_000)  # wants the machine, too
    asked = {"client": market.client.address, "spec": market.spec, "units": 1_000_000}
    quote = market.api.quote(QuoteIn.model_validate(asked | {"max_price": 2 * TOKEN, "stake": 20 * TOKEN}))
    job = market.post_bid()
    assert market.clear() is not None
    lease = market.lease_of(job)
    assert TOKEN < lease.price == quote.likely_price < 1_200_000
    market.make(lease, 4)
    market.redeem(lease)
    done = market.api.job(job.id)
    assert (done.status, done.accepted, done.paid) == ("done", 4, 4 * lease.price)
    assert market.chain.account(lease.provider).free == 100 * TOKEN + 4 * lease.price
    assert differences(market) == []


def test_released_work_goes_on_elsewhere_from_its_last_checkpoint(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    tip = market.make(lease, 2)
    market.say(lease, "release", 2)
    market.approver.answer_releases()
    market.redeem(lease)
    assert market.state(lease).phase is Phase.CLOSED
    market.post_ask(market.providers[1], price_per_hour=1_800_000_000)
    assert market.clear() is not None
    following = market.lease_of(job)
    assert (following.provider, following.start, following.prev) == (market.providers[1].address, 2, lease.id)
    assert following.state.tip == tip
    market.make(following, 2)
    market.redeem(following)
    done = market.api.job(job.id)
    assert (done.status, [one.paid for one in done.leases]) == ("done", [2 * TOKEN, 1 * TOKEN])
    assert differences(market) == []


def test_a_job_released_before_its_first_checkpoint_is_matched_again(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.say(lease, "release", 0)
    market.approver.answer_releases()
    market.redeem(lease)
    market.post_ask(market.providers[1], price_per_hour=3_700_000_000)
    assert market.clear() is not None
    assert market.lease_of(job).provider == market.providers[1].address  # dearer, but the other gave it back


def test_a_vanished_worker_is_paid_what_was_approved_and_the_job_moves(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.make(lease, 2)  # approved, and never redeemed by its worker
    market.keep()
    assert market.state(lease).phase is Phase.ACTIVE
    market.pass_time(lease.timeout)
    market.keep()
    assert market.state(lease).phase is Phase.CLOSING
    market.approver.redeem_for_vanished()
    market.follow()
    assert market.chain.account(lease.provider).free == (100 - 20 + 2) * TOKEN
    market.pass_time(lease.window)
    market.keep()
    ended = market.api.job(job.id).leases[-1]
    assert (ended.finished, ended.paid, market.chain.account(lease.provider).free) == ("closed", 2 * TOKEN, 102 * TOKEN)
    # Its old ask is still valid, but nobody trusts it until the worker is back and posts a new one.
    assert market.clear() is None
    market.post_ask(market.providers[0], price_per_hour=3_700_000_000)
    assert market.clear() is not None
    assert market.lease_of(job).start == 2
    assert differences(market) == []


def test_the_market_redeems_if_the_approver_is_away(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.make(lease, 1)
    market.pass_time(lease.timeout)
    market.keep()
    market.pass_time(lease.window)
    market.keep()
    ended = market.api.job(job.id).leases[-1]
    assert (ended.finished, ended.paid) == ("closed", 1 * TOKEN)
    assert market.chain.account(lease.provider).free == 101 * TOKEN  # not late: it had done something


def test_silence_costs_one_price(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.pass_time(lease.timeout)
    market.keep()
    market.pass_time(lease.window)
    market.keep()
    assert market.api.job(job.id).leases[-1].finished == "closed"
    assert market.chain.account(lease.provider).free == 99 * TOKEN
    assert market.chain.account(market.client.address).free == 101 * TOKEN
    assert differences(market) == []


def test_records_of_what_was_accepted_on_chain_are_welcome_however_late(market: Lives) -> None:
    """The worker could not reach the market, claimed on chain, and was paid after the window."""
    job = one_lease(market)
    lease = market.lease_of(job)
    records = [market.record(lease, 1, lease.state.tip)]
    records.append(market.record(lease, 2, records[0].tip))
    claim = market.chain.claim(market.terms(lease), 2, records[1].tip, [record.root for record in records])
    Sender(market.chain, market.providers[0]).send(claim)
    market.follow()
    market.pass_time(lease.window)
    Sender(market.chain, market.providers[0]).send(market.chain.collect(market.terms(lease)))
    market.follow()
    assert market.api.lease(lease.id).state.accepted == 2
    other = market.record(lease, 1, lease.state.tip, trace_root="0x" + "44" * 32)
    with pytest.raises(Problem) as refused:
        market.hand_in(lease, other)
    assert refused.value.code == Code.PROGRESS_OUT_OF_ORDER
    for record in records:
        assert market.hand_in(lease, record).status == "approved"
    assert [one.checkpoint for one in accepted_chain(market.api, market.api.job(job.id))] == records


def test_a_failed_checkpoint_is_tried_three_times(market: Lives) -> None:
    job = one_lease(market)
    for attempt in range(3):
        lease = market.lease_of(job)
        market.say(lease, "failed", lease.start + 1, f"ValueError: attempt {attempt}")
        market.approver.answer_releases()
        market.redeem(lease)
        assert market.state(lease).phase is Phase.CLOSED
        opened = market.clear()
        assert (opened is None) == (attempt == 2)
    failed = market.api.job(job.id)
    assert failed.status == "failed" and "their logs are in its reports" in failed.reason
    assert market.chain.account(market.client.address).free == 100 * TOKEN  # its money is free


def test_epoch_rows_say_what_was_unmatched(market: Lives) -> None:
    market.post_bid(max_price=1)
    one_lease(market)
    with market.context.db.reading() as session:
        assert len(session.exec(select(EpochRow)).all()) == 1
        assert session.exec(select(UnmatchedRow)).one().reason
