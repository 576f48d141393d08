"""The auction: an optimal assignment of lots to bids, and one price for each class of them that nobody objects to."""

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256

from market.matching.book import AskOffer, BidOffer, Book, Lot, Match, Reason, Rest, Resting, Result, Size, TradeClass
from market.matching.carry_over import is_touched, key, left_over
from market.matching.classes import rounded
from market.matching.fitting import Suiting
from market.matching.flow import solve
from market.matching.lot_sizes import offered
from market.matching.reserve import reserve


def clear(book: Book, seed: bytes = b"", tick: int = 1, before: Resting | None = None) -> Result:
    """Match an epoch's orders.

    The same for any order in which they come. `seed` decides between equals; `tick`, in token units, is what prices
    per hour are multiples of. `before` is the `resting` of the last epoch's Result, at the same tick: the matches are
    the same with it as without, but only the sizes that `touched` names are solved. Raises UserError if there are more
    orders than integers can count with.
    """

    def tie(id: str) -> bytes:
        return sha256(seed + id.encode()).digest()

    before = before or {}
    reserved = reserve(book)
    reasons = {bid.id: Reason.BALANCE for bid in reserved.unfunded}
    taken: dict[Size, set[Lot]] = {}
    for ask in reserved.taken:
        taken.setdefault(ask.lot.pool, set()).add(rounded(ask.lot))
    matches: list[Match] = []
    prices: dict[TradeClass, int] = {}
    touched: set[Size] = set()
    resting: dict[Size, Rest] = {}
    surplus = 0
    for size, offer in sorted(offered(reserved).items(), key=lambda one: one[0]):
        known, gone = before.get(size), taken.get(size, ())
        if known is not None:
            resting[size] = known
        if not offer.slots:
            reasons |= _without_slots(size, offer.bids, book.asks, gone)
        elif known is not None and not is_touched(offer, known):
            prices |= {name: known.prices[name] for name in offer.slots}
            reasons |= {bid.id: known.bids[key(bid)] for bid in offer.bids}
        else:
            outcome = solve(offer, tie, tick)
            left = outcome.reasons | dict(_unless_taken(outcome.refused, offer.bids, gone))
            matches += outcome.matches
            prices |= outcome.prices
            reasons |= left
            surplus += outcome.surplus
            touched.add(size)
            resting.pop(size, None)
            if (rest := left_over(offer, outcome.matches, outcome.prices, left)) is not None:
                resting[size] = rest
    # A provider's slot holds if no more of its others are opened before it than `place` says.
    matches.sort(key=lambda match: (match.place, tie(match.bid.id)))
    return Result(tuple(matches), prices, reasons, surplus, frozenset(touched), resting)


def _without_slots(
    size: Size, bids: Iterable[BidOffer], asks: Iterable[AskOffer], gone: Collection[Lot]
) -> dict[str, Reason]:
    """Why bids get nothing of a size of which all is taken, or of which there is nothing."""
    if gone:
        lots = Suiting(list(gone))
        return {bid.id: lots.why_not(bid.needs) or Reason.CAPACITY for bid in bids}
    rules = {ask.lot.rules for ask in asks}
    nothing = Reason.NO_ASKS if not rules else Reason.LOT if size[0] in rules else Reason.RULES
    return {bid.id: nothing for bid in bids}


def _unless_taken(
    reasons: Mapping[str, Reason], bids: Iterable[BidOffer], gone: Collection[Lot]
) -> Mapping[str, Reason]:
    """Or else that the machines which would do are taken."""
    if not gone or not reasons:
        return reasons
    lots = Suiting(list(gone))
    return {
        bid.id: Reason.CAPACITY if lots.fitting(bid.needs) else reasons[bid.id] for bid in bids if bid.id in reasons
    }
