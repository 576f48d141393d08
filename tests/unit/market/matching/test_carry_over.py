"""One epoch after another: only what is new is solved, and it makes no difference."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from market.matching import AskOffer, BidOffer, Book, Reason, Result, clear, touched
from market.matching.verifier import lies
from tests.support.small_books import (
    LOT,
    PARTIES,
    RICH,
    RULES,
    ask_offer,
    bid_offer,
    book,
    checked,
    claims,
    markets,
    rich,
)


def after(market: Book, result: Result, opened: bool = True) -> Book:
    """The book when the leases of an epoch have been opened. Or none of them was, and its orders are left out."""
    bids, asks = {one.bid.id for one in result.matches}, {one.ask.id for one in result.matches}
    free, active = dict(market.free), dict(market.active)
    for match in result.matches if opened else ():
        free[match.bid.client] -= match.lock
        free[match.ask.provider] -= match.bid.stake
        active[match.ask.provider] = active.get(match.ask.provider, 0) + 1
    return Book(
        tuple(bid for bid in market.bids if bid.id not in bids),
        tuple(ask for ask in market.asks if opened or ask.id not in asks),
        free,
        active,
    )


@given(markets().map(rich), st.booleans())
def test_what_an_epoch_leaves_trades_with_nobody_and_is_not_touched(market: Book, opened: bool) -> None:
    first = checked(market, b"one")
    left = after(market, first, opened)
    again = clear(left, b"two", before=first.resting)
    assert not again.touched and not touched(left, first.resting)
    assert not again.matches and not clear(left, b"two").matches
    assert again.reasons.keys() == {bid.id for bid in left.bids}


@st.composite
def epochs(draw: st.DrawFn) -> list[Book]:
    """What may change between epochs, but for the matches: orders come and go, balances move, deadlines come nearer."""
    whole = draw(markets(8))
    left = draw(st.lists(st.sampled_from([None, None, 900, 5000]), min_size=8, max_size=8))
    found = []
    for n in range(draw(st.integers(2, 5))):
        there = draw(st.lists(st.booleans(), min_size=16, max_size=16))
        bids = [
            replace(bid, left=None if left[at] is None else left[at] - 200 * n) for at, bid in enumerate(whole.bids)
        ]
        free = dict(whole.free) | draw(st.dictionaries(st.sampled_from(PARTIES), st.sampled_from([0, 400, 10**6])))
        found.append(
            Book(
                tuple(bid for at, bid in enumerate(bids) if there[at]),
                tuple(ask for at, ask in enumerate(whole.asks) if there[8 + at]),
                free,
                whole.active,
            )
        )
    return found


@given(epochs(), st.booleans())
def test_an_epoch_that_solves_what_is_touched_is_the_one_that_solves_all(books: list[Book], opened: bool) -> None:
    resting, gone = None, set()
    for n, market in enumerate(books):
        seed = b"%d" % n
        market = replace(market, bids=tuple(bid for bid in market.bids if bid.id not in gone))
        result = clear(market, seed, before=resting)
        assert result.matches == clear(market, seed).matches
        assert list(lies(market, result.prices, claims(result))) == []
        assert result.touched == touched(market, resting)
        assert {one.bid.id for one in result.matches} | set(result.reasons) == {bid.id for bid in market.bids}
        if opened:
            gone |= {one.bid.id for one in result.matches}
        resting = result.resting


def test_only_what_is_new_touches_its_size() -> None:
    bids = [bid_offer(1, limit=61), bid_offer(2, {"rules": RULES[1]}, limit=61, client=PARTIES[1])]
    asks = [ask_offer(1), ask_offer(2, {"rules": RULES[1]}, provider=PARTIES[4])]
    market = book(*bids, *asks)
    first = clear(market)
    assert first.touched == touched(market) == {(RULES[0], 0), (RULES[1], 0)}
    assert set(first.resting) == first.touched and not first.matches

    def sizes(*orders: BidOffer | AskOffer, free: dict[str, int] | None = None) -> set[str]:
        return {rules for rules, _ in touched(book(*orders, free=free), first.resting)}

    assert sizes(*bids, *asks) == set()
    assert sizes(*bids, *asks[1:]) == set()
    assert sizes(*bids, *asks, bid_offer(3, limit=1)) == {RULES[0]}
    assert sizes(*bids, *asks, ask_offer(3, {"rules": RULES[1]}, provider=PARTIES[3])) == {RULES[1]}
    assert sizes(replace(bids[0], rest=3), bids[1], *asks) == {RULES[0]}  # it has had a lease
    assert sizes(replace(bids[0], avoid=frozenset(PARTIES[5:])), bids[1], *asks) == {RULES[0]}
    assert sizes(*bids, asks[0], replace(asks[1], max_active=2)) == {RULES[1]}
    assert sizes(*bids, *asks, free=RICH | {PARTIES[4]: 60}) == {RULES[1]}  # a lower stake is another class
    assert sizes(*bids, bid_offer(3, {"gpus": 1}), *asks) == set()  # nobody sells what it wants
    # What was matched does not rest: here its lease was not opened, and the bid is gone, so that its slot is free.
    matched = clear(book(bid_offer(3, limit=200), bid_offer(4), asks[0]))
    assert matched.reasons == {bid_offer(4).id: Reason.OUTBID}
    assert touched(book(bid_offer(4), asks[0]), matched.resting) == {(RULES[0], 0)}
    carried = clear(book(*bids, *asks, bid_offer(3, limit=1)), before=first.resting)
    assert carried.touched == {(RULES[0], 0)}
    assert carried.prices == first.prices
    assert carried.reasons == first.reasons | {bid_offer(3).id: Reason.PRICE}


def test_a_provider_that_is_avoided_comes_into_reach_when_the_others_leave() -> None:
    shunned, other = ask_offer(1), ask_offer(2, provider=PARTIES[4], price_per_hour=4000)
    waiting = bid_offer(1, avoid=frozenset({PARTIES[5]}))
    winner = bid_offer(2, client=PARTIES[1], limit=200, needs={"regions": frozenset({"eu"})})
    market = book(waiting, winner, shunned, replace(other, lot=replace(LOT, region="eu")))
    first = clear(market)
    assert [(one.bid.id, one.ask.id) for one in first.matches] == [(winner.id, other.id)]
    left = book(waiting, shunned)
    assert touched(left, first.resting) == {(RULES[0], 0)}
    assert [one.ask for one in clear(left, before=first.resting).matches] == [shunned]
