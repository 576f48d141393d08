"""What a new Bid would get: the same as in the epoch that it comes to."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from market.matching import Book, Reason, clear
from market.matching.classes import lone_price, lowest_limit, obstacle
from market.matching.preview import rehearse
from tests.support.gpu_books import random_book
from tests.support.small_books import ask_offer, bid_offer, book


def without_matches(of: Book) -> Book:
    matches = clear(of).matches
    bids, asks = {match.bid.id for match in matches}, {match.ask.id for match in matches}
    return replace(
        of,
        bids=tuple(bid for bid in of.bids if bid.id not in bids),
        asks=tuple(ask for ask in of.asks if ask.id not in asks),
    )


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=25, deadline=None)
def test_in_a_book_that_rests_a_new_bid_gets_what_it_would_get_alone(seed: int) -> None:
    """So a quote may leave out those that wait, where there are many."""
    full = random_book(80, 60, seed)
    new, resting = full.bids[0], without_matches(replace(full, bids=full.bids[1:]))
    matching = [ask for ask in resting.asks if obstacle(new, ask, 1) is None]
    match, _ = rehearse(resting, new, matching)
    alone, _ = rehearse(replace(resting, bids=(), asks=tuple(matching)), new, matching)
    assert (match is None) == (alone is None) == (not matching)
    if match and alone:
        assert (match.price, match.trade_class) == (alone.price, alone.trade_class)
        assert lone_price(match.ask, new.units, 1) <= match.price <= lowest_limit(match.ask, new.units, 1) <= new.limit


def test_the_clients_balance_is_no_bound() -> None:
    bid, ask = bid_offer(1), ask_offer(2)
    match, reason = rehearse(book(ask, free={ask.provider: 100}), bid, [ask])
    assert (match and match.ask, reason) == (ask, None)


def test_of_asks_that_are_busy_what_it_gets_when_they_are_free() -> None:
    bid, ask = bid_offer(1), ask_offer(2)
    for free, active in ({ask.provider: 100}, {ask.provider: 1}), ({ask.provider: 0}, {}):
        match, reason = rehearse(replace(book(ask, free=free), active=active), bid, [ask])
        assert (match and match.price, reason) == (lone_price(ask, bid.units, 1), Reason.CAPACITY)


def test_who_is_outbid_gets_nothing() -> None:
    poor, ask = bid_offer(1, limit=70), ask_offer(2)
    match, reason = rehearse(book(bid_offer(3, limit=80), ask), poor, [ask])
    assert (match, reason) == (None, Reason.OUTBID)
    match, reason = rehearse(book(bid_offer(3, limit=80), ask), replace(poor, limit=90), [ask])
    assert match is not None and match.price == 80
