"""What a new Bid would get: the auction, with it as one more."""

from collections.abc import Sequence
from dataclasses import replace

from market.matching.auction import clear
from market.matching.book import AskOffer, BidOffer, Book, Match, Reason

PLENTY = 1 << 200


def rehearse(
    book: Book, bid: BidOffer, matching: Sequence[AskOffer], tick: int = 1
) -> tuple[Match | None, Reason | None]:
    """What `bid` gets beside the book's, and why it gets nothing. If all of the `matching` asks are busy: what it would
    get of them once they are free, and that reason. Its client's balance is no bound: that may be raised.
    """
    result = clear(replace(book, bids=(bid, *book.bids), free={**book.free, bid.client: PLENTY}), tick=tick)
    reason = result.reasons.get(bid.id)
    if reason in (None, Reason.OUTBID, Reason.PRICE):
        return _match_of(bid, result.matches), reason
    rich = dict.fromkeys([bid.client, *(ask.provider for ask in matching)], PLENTY)
    later = clear(Book((bid,), tuple(matching), rich), tick=tick)
    return _match_of(bid, later.matches), reason


def _match_of(bid: BidOffer, matches: Sequence[Match]) -> Match | None:
    return next((match for match in matches if match.bid.id == bid.id), None)
