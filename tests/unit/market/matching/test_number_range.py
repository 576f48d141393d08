"""Numbers at the ends of what orders can sign: counted right, or refused with a reason; never wrong."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.amounts import MAX_AMOUNT
from contracts.errors import UserError
from market.matching import AskOffer, BidOffer, Book, Reason, clear, flow
from market.matching.classes import MAX_VALUE, obstacle
from market.matching.verifier import lies
from tests.support.small_books import PARTIES, RICH, ask_offer, bid_offer, book, checked, claims, markets, rich

MAX_UNITS = 2**64 - 1
BOUNDLESS = dict.fromkeys(PARTIES, 2**200)
BIDS = [bid_offer(n, client=PARTIES[1], limit=200) for n in (1, 2)]
ASKS = [ask_offer(n, provider=PARTIES[2 + n]) for n in (1, 2)]


@pytest.mark.parametrize(
    "odd",
    [
        bid_offer(9, limit=MAX_AMOUNT),
        bid_offer(9, limit=MAX_AMOUNT, units=1),
        bid_offer(9, limit=MAX_AMOUNT, units=MAX_UNITS, rest=65_535),
        bid_offer(9, units=MAX_UNITS, rest=65_535, left=1, timeout=1),
        bid_offer(9, limit=1, units=MAX_UNITS),
        bid_offer(9, stake=MAX_AMOUNT),
        bid_offer(9, needs={"memory_mb": 10**30}),
        bid_offer(9, needs={"units_per_hour": 10**30}),
        ask_offer(9, price_per_hour=MAX_AMOUNT),
        ask_offer(9, price_per_hour=1),
        ask_offer(9, price_per_hour=1, units_per_hour=MAX_UNITS),
        ask_offer(9, price_per_hour=MAX_AMOUNT, units_per_hour=MAX_UNITS, max_stake=MAX_AMOUNT),
        ask_offer(9, units_per_hour=1),
        ask_offer(9, {"memory_mb": 10**30, "tier": 10**30}),
    ],
)
@pytest.mark.parametrize("tick", [1, 10**12, 10**30])
def test_an_order_with_an_odd_number_harms_nobody(odd: BidOffer | AskOffer, tick: int) -> None:
    result = checked(book(*BIDS, *ASKS, odd, free=BOUNDLESS), tick=tick)
    for match in result.matches:
        assert 1 <= match.price <= match.bid.limit
        assert match.price * match.ask.units_per_hour >= match.ask.price_per_hour * match.bid.units
    if tick == 1:
        got = {match.bid.id for match in result.matches}
        # The odd one may outbid one of the two, as anybody may who can pay more.
        assert {bid.id for bid in BIDS} <= got or (odd.id in got and len(got) == 2)


def test_a_limit_beyond_the_range_counts_as_the_range() -> None:
    slow, fast = ask_offer(1), ask_offer(2, units_per_hour=2 * 49_152, provider=PARTIES[4])
    limit = (MAX_VALUE + 1) * 1000 // 49_152
    at_most = bid_offer(1, limit=limit)
    assert limit * 49_152 // 1000 <= MAX_VALUE < limit * 2 * 49_152 // 1000
    for much in (limit, limit + 50, MAX_AMOUNT):
        bid = replace(at_most, limit=much)
        for ask in (slow, fast):
            (match,) = checked(book(bid, ask, free=BOUNDLESS)).matches
            assert (match.ask, match.price) == (ask, ask.price(3000, 1000))  # the least price, whatever its limit
    # Against another it pays what that one would have: counted as the range, too.
    rival = bid_offer(2, limit=MAX_AMOUNT, client=PARTIES[1])
    (match,) = checked(book(replace(at_most, limit=limit + 50), rival, slow, free=BOUNDLESS)).matches
    assert match.price == slow.price(MAX_VALUE, 1000) <= limit + 50


@pytest.mark.parametrize("busy", [None, PARTIES[3]])
def test_a_limit_beyond_the_range_trades_beside_a_busy_machine(busy: str | None) -> None:
    """Two machines of 0.6 TFLOP/s are idle; a token has six decimals, and a checkpoint may cost one."""
    machine = {"units_per_hour": 2_000_000_000, "price_per_hour": 800_000}
    asks = [ask_offer(n, provider=PARTIES[n], **machine) for n in (1, 2, 3)]
    bid = bid_offer(1, limit=1_000_000)
    market = book(bid, *asks, free=BOUNDLESS)
    result = checked(replace(market, active={busy: 1} if busy else {}))
    (match,) = result.matches
    assert match.price == 1 and match.ask.provider != busy


@given(markets().map(rich), st.integers(1, 10**9))
def test_to_offer_still_more_than_the_range_changes_nothing(market: Book, more: int) -> None:
    far = replace(market, bids=tuple(replace(bid, limit=bid.limit << 56) for bid in market.bids))
    farther = replace(far, bids=tuple(replace(bid, limit=bid.limit * more) for bid in far.bids))
    free = dict.fromkeys(market.free, 2**200)
    first, second = (checked(replace(one, free=free), b"seed") for one in (far, farther))
    assert [(one.bid.id, one.ask.id, one.price) for one in first.matches] == [
        (one.bid.id, one.ask.id, one.price) for one in second.matches
    ]
    assert (first.prices, first.reasons) == (second.prices, second.reasons)


@given(markets().map(rich), st.integers(20, 45))
def test_books_around_the_range_are_matched_right(market: Book, bits: int) -> None:
    asks = tuple(replace(ask, price_per_hour=ask.price_per_hour << bits // 2) for ask in market.asks)
    bids = tuple(replace(bid, limit=bid.limit << bits) for bid in market.bids)
    for match in checked(Book(bids, asks, dict.fromkeys(market.free, 2**200))).matches:
        assert match.price * match.ask.units_per_hour >= match.ask.price_per_hour * match.bid.units
        assert 1 <= match.price <= match.bid.limit


def test_an_ask_of_more_than_the_range_can_not_be_sold_and_says_so() -> None:
    beyond, bid = ask_offer(1, price_per_hour=MAX_VALUE + 1), bid_offer(1, limit=MAX_AMOUNT)
    assert checked(book(bid, beyond, free=BOUNDLESS)).reasons == {bid.id: Reason.RANGE}
    assert obstacle(bid, beyond, 1) is Reason.RANGE
    most = ask_offer(1, price_per_hour=MAX_VALUE)
    assert checked(book(bid, most, free=BOUNDLESS)).matches and obstacle(bid, most, 1) is None


def test_many_orders_close_to_the_most_are_matched_right() -> None:
    """Sums of them are near to 2^50; the solver counts to 2^61."""
    top = MAX_VALUE * 1000 // 49_152
    bids = [bid_offer(n, limit=top - 7 * (n % 50), client=f"client{n}", rest=1) for n in range(300)]
    asks = [
        ask_offer(n, price_per_hour=MAX_VALUE - 150 * n, provider=f"provider{n}", units_per_hour=49_152 << n % 2)
        for n in range(300)
    ]
    parties = [*(bid.client for bid in bids), *(ask.provider for ask in asks)]
    result = checked(Book(tuple(bids), tuple(asks), dict.fromkeys(parties, 2**100)))
    assert len(result.matches) > 100
    worth = [
        min(one.bid.limit * one.trade_class.units_per_hour // one.bid.units, MAX_VALUE) - one.ask.price_per_hour
        for one in result.matches
    ]
    assert result.surplus == sum(worth)


@given(
    limit=st.integers(1, MAX_AMOUNT),
    units=st.integers(1, MAX_UNITS),
    price=st.integers(1, MAX_AMOUNT),
    speed=st.integers(1, MAX_UNITS),
    tick=st.sampled_from([1, 10**12]),
)
def test_one_pair_of_any_numbers(limit: int, units: int, price: int, speed: int, tick: int) -> None:
    bid, ask = bid_offer(1, limit=limit, units=units), ask_offer(1, price_per_hour=price, units_per_hour=speed)
    result = checked(book(bid, ask, free=BOUNDLESS), tick=tick)
    low = int(f"{speed:b}"[:6].ljust(speed.bit_length(), "0"), 2)
    most, least = limit * low // (units * tick), -(-price // tick)
    if result.matches:
        assert least <= most and least <= MAX_VALUE
        assert result.matches[0].price * speed >= price * units and result.matches[0].price <= limit
    else:
        assert result.reasons == {bid.id: Reason.RANGE if least > MAX_VALUE else Reason.PRICE}
        assert least > MAX_VALUE or most < least


def test_too_many_orders_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    market = book(*BIDS, *ASKS)
    monkeypatch.setattr(flow, "MAX_NODES", 4)
    with pytest.raises(UserError, match="5 orders and classes of one lot size"):
        clear(market)
    monkeypatch.setattr(flow, "MAX_NODES", 5)
    assert clear(market).matches


@pytest.mark.parametrize("name", ["units", "units_per_hour", "price_per_hour"])
def test_an_order_that_nothing_can_be_divided_by_is_refused(name: str) -> None:
    make = bid_offer if name == "units" else ask_offer
    with pytest.raises(UserError, match=f"{name} of order 0x0+7 is 0"):
        make(7, **{name: 0})


@pytest.mark.parametrize("price", [-1, 0, MAX_VALUE + 2, 2**63, 2**200])
def test_a_price_that_can_not_be_is_a_lie(price: int) -> None:
    market = book(bid_offer(1), ask_offer(1), free=RICH)
    honest = clear(market)
    (of,) = honest.prices
    assert list(lies(market, {of: price}, claims(honest)))
