"""Jobs that name providers, or machines by the class of their bits: honoured at any price, and provably so."""

import pytest

from market.matching import AskOffer, BidOffer, Reason, clear
from market.matching.verifier import ClaimedMatch, lies
from tests.support.small_books import PARTIES, ask_offer, bid_offer, book, checked

CHEAP = ask_offer(1, provider=PARTIES[2], price_per_hour=1000)
DEAR = ask_offer(2, {"numerics": "avx2"}, provider=PARTIES[3], price_per_hour=2000)
ONLY = [
    bid_offer(1, providers=frozenset({PARTIES[3]})),
    bid_offer(1, not_providers=frozenset({PARTIES[2]})),
    bid_offer(1, {"numerics": frozenset({"avx2", "avx512"})}),
]


def gets(bid: BidOffer, *asks: AskOffer) -> str | None:
    matches = checked(book(bid, *asks)).matches
    return matches[0].ask.id if matches else None


@pytest.mark.parametrize("bid", ONLY)
def test_the_dearer_one_if_only_that_is_wanted(bid: BidOffer) -> None:
    assert gets(bid_offer(1), CHEAP, DEAR) == CHEAP.id
    assert gets(bid, CHEAP, DEAR) == DEAR.id
    assert gets(bid, CHEAP) is None  # rather none than another


def test_beside_a_bid_that_takes_anyone() -> None:
    anyone = bid_offer(2, client=PARTIES[1])
    for bid in ONLY:
        result = checked(book(bid, anyone, CHEAP, DEAR))
        assert {match.bid.id: match.ask.id for match in result.matches} == {bid.id: DEAR.id, anyone.id: CHEAP.id}


@pytest.mark.parametrize("bid", ONLY)
def test_the_verifier_finds_a_match_that_was_not_wanted(bid: BidOffer) -> None:
    market = book(bid, CHEAP, DEAR)
    result = clear(market, b"", 1)
    (match,) = result.matches
    forged = [ClaimedMatch(bid.id, CHEAP.id, 0, match.price)]
    found = list(lies(market, result.prices, forged, 1))
    assert any(f"bid {bid.id} was matched with a machine that it does not fit" in lie for lie in found)


def test_why_it_waits() -> None:
    named = bid_offer(1, providers=frozenset({PARTIES[4]}))
    assert checked(book(named, CHEAP)).reasons == {named.id: Reason.PROVIDERS}
    assert checked(book(ONLY[2], CHEAP)).reasons == {ONLY[2].id: Reason.NUMERICS}
