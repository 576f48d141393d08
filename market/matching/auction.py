"""The auction: an optimal assignment of lots to bids, and one price for each class of them that nobody objects to."""

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256

from market.matching.book import AskOffer, Book, Match, Reason, Rest, Resting, Result, Size, TradeClass
from market.matching.carry_over import is_touched, key, left_over
from market.matching.flow import obstacles, solve
from market.matching.lot_sizes import Offered, offered
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
    matches: list[Match] = []
    prices: dict[TradeClass, int] = {}
    touched: set[Size] = set()
    resting: dict[Size, Rest] = {}
    surplus = 0
    for size, offer in sorted(offered(reserved).items(), key=lambda one: one[0]):
        known = before.get(size)
        if known is not None:
            resting[size] = known
        if not offer.slots:
            left = dict.fromkeys((bid.id for bid in offer.bids), _without_slots(size, book.asks))
        elif known is not None and not is_touched(offer, known):
            prices |= {name: known.prices[name] for name in offer.slots}
            left = _reasons_now(offer, known, tick)
        else:
            outcome = solve(offer, tie, tick)
            left = outcome.reasons
            matches += outcome.matches
            prices |= outcome.prices
            surplus += outcome.surplus
            touched.add(size)
            resting.pop(size, None)
            if (rest := left_over(offer, outcome.matches, outcome.prices, left)) is not None:
                resting[size] = rest
        reasons |= left | _of_taken(offer, left, tick)
    # A provider's slot holds if no more of its others are opened before it than `place` says.
    matches.sort(key=lambda match: (match.place, tie(match.bid.id)))
    return Result(tuple(matches), prices, reasons, surplus, frozenset(touched), resting)


def _without_slots(size: Size, asks: Iterable[AskOffer]) -> Reason:
    """Why bids get nothing of a size of which there is nothing."""
    rules = {ask.lot.rules for ask in asks}
    return Reason.NO_ASKS if not rules else Reason.LOT if size[0] in rules else Reason.RULES


def _reasons_now(offer: Offered, known: Rest, tick: int) -> dict[str, Reason]:
    """Why the bids of a size that is not touched get nothing: others may have left it, and deadlines come nearer."""
    slots = {name: Counter(slot.ask.id for slot in members) for name, members in offer.slots.items()}
    same = slots == {name: had for name, had in known.slots.items() if had}
    stale = [bid for bid in offer.bids if not same or bid.left is not None]
    return {bid.id: known.bids[key(bid)] for bid in offer.bids} | obstacles(stale, offer.slots, tick)


def _of_taken(offer: Offered, left: Mapping[str, Reason], tick: int) -> dict[str, Reason]:
    """The reasons of bids to which a machine that is taken comes nearer than all that are not."""
    waiting = [bid for bid in offer.bids if bid.id in left and left[bid.id].rank < Reason.CAPACITY.rank]
    if not waiting or not offer.taken:
        return {}
    refused = obstacles(waiting, offer.taken, tick)
    found = {bid.id: refused.get(bid.id, Reason.CAPACITY) for bid in waiting}
    return {id: reason for id, reason in found.items() if reason.rank > left[id].rank}
