"""The auction: an optimal assignment of lots to bids, and one price for each class of them that nobody objects to."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import TypeVar

from market.matching.book import AskOffer, Book, Match, Reason, Result, TradeClass
from market.matching.classes import suits
from market.matching.net import Outcome, solve
from market.matching.reserve import reserve

T = TypeVar("T")

Size = tuple[str, int]  # a rule-set, and GPUs of a lot: its orders trade with no others


def clear(book: Book, seed: bytes = b"", tick: int = 1) -> Result:
    """Match an epoch's orders.

    The same for any order in which they come. `seed` decides between equals; `tick`, in token units, is what prices
    per hour are multiples of. Raises UserError if there are more orders than integers can count with.
    """
    ties: dict[str, bytes] = {}

    def tie(id: str) -> bytes:
        if (known := ties.get(id)) is None:
            known = ties[id] = sha256(seed + id.encode()).digest()
        return known

    reserved = reserve(book)
    reasons = {bid.id: Reason.BALANCE for bid in reserved.unfunded}
    bids = sorted(reserved.bids, key=lambda bid: tie(bid.id))
    in_order = sorted(reserved.slots, key=lambda slot: (tie(slot.ask.id), slot.place))

    slots = _by_size(in_order, lambda slot: (slot.ask.lot.rules, slot.ask.lot.size))
    taken = _by_size(reserved.taken, lambda ask: (ask.lot.rules, ask.lot.size))
    avoided = {provider for bid in book.bids for provider in bid.avoid}
    matches: list[Match] = []
    prices: dict[TradeClass, int] = {}
    surplus = 0
    for size, waiting in sorted(_by_size(bids, lambda bid: (bid.needs.rules, bid.needs.size)).items()):
        refused = dict.fromkeys((bid.id for bid in waiting), _nothing_of(size, book.asks))
        if size in slots:
            outcome = solve(waiting, slots[size], avoided, tie, tick)
            matches += _matches(outcome, tick)
            prices.update(zip(outcome.classes, outcome.prices, strict=True))
            surplus += outcome.surplus
            reasons.update((bid.id, Reason.OUTBID) for bid in outcome.outbid)
            reasons.update((bid.id, Reason.PRICE) for bid in outcome.low)
            refused = outcome.refused
        gone = {ask.lot for ask in taken.get(size, ())}
        would_do = {bid.id for bid in waiting if bid.id in refused and any(suits(bid.needs, lot) for lot in gone)}
        reasons |= refused | dict.fromkeys(would_do, Reason.CAPACITY)
    # A provider's slot holds if no more of its others are opened before it than `place` says.
    matches.sort(key=lambda match: (match.place, tie(match.bid.id)))
    return Result(tuple(matches), prices, reasons, surplus)


def _by_size(orders: Iterable[T], size: Callable[[T], Size]) -> dict[Size, list[T]]:
    found: dict[Size, list[T]] = {}
    for order in orders:
        found.setdefault(size(order), []).append(order)
    return found


def _nothing_of(size: Size, asks: Sequence[AskOffer]) -> Reason:
    """Why there is nothing of a size on offer."""
    if not asks:
        return Reason.NO_ASKS
    return Reason.LOT if any(ask.lot.rules == size[0] for ask in asks) else Reason.RULES


def _matches(outcome: Outcome, tick: int) -> Iterable[Match]:
    for bid, of, slot in outcome.matches:
        price = slot.ask.price(outcome.prices[of] * tick, bid.units)
        yield Match(bid, slot.ask, price, outcome.classes[of], slot.place)
