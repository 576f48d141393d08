"""Checks an epoch's result in one pass, without solving anything. It shares no code with what it checks.

Prices and matches prove each other: if at the prices given every bid has what it would choose, every slot that is sold
costs no more than its price, and every slot that is not sold costs no less, then no other matching of these orders has
a greater surplus (linear programming duality), and no two parties would both rather trade with each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from market.matching.book import Book, TradeClass
from market.matching.verifier.choices import choices
from market.matching.verifier.supply import MOST_VALUE, Kind, Stock, funded


@dataclass(frozen=True, slots=True)
class ClaimedMatch:
    """One match, as a market tells of it."""

    bid: str
    ask: str
    place: int
    price: int  # per checkpoint


def lies(book: Book, prices: Mapping[TradeClass, int], matches: Sequence[ClaimedMatch], tick: int = 1) -> Iterator[str]:
    """A sentence on each thing that is wrong; `prices` in ticks per hour."""
    balance = dict(book.free)
    crowds = funded(book.bids, balance)
    stock = Stock(book, crowds, balance, prices)
    bids = {bid.id: bid for crowd in crowds.values() for bid in crowd}
    bought: dict[str, Kind] = {}
    sold = [False] * len(stock.asks)
    for match in matches:
        bid, slot = bids.get(match.bid), stock.slot(match.ask, match.place)
        if bid is None or slot is None:
            which = f"bid {match.bid}" if bid is None else f"ask {match.ask} at place {match.place}"
            yield f"{which} was matched, but is not in this epoch, or its party can't lock what it takes"
        elif match.bid in bought or sold[slot]:
            yield f"bid {match.bid} or ask {match.ask} was matched twice"
        else:
            sold[slot] = True
            bought[match.bid] = kind = stock.kinds[slot]
            price = max(1, -(-(kind.price or 0) * tick * bid.units // stock.asks[slot].units_per_hour))
            if match.price != price:
                yield f"bid {match.bid} pays ask {match.ask} {match.price} a checkpoint; its class's price is {price}"
    for ask, kind, is_sold in zip(stock.asks, stock.kinds, sold, strict=True):
        per_hour, takes = kind.price, ask.price_per_hour
        if per_hour is None:
            yield f"there is no price for the class of ask {ask.id}, or none from 0 to {MOST_VALUE + 1} ticks an hour"
        elif is_sold and per_hour * tick < takes:
            yield f"ask {ask.id} was sold at {per_hour} ticks an hour, but takes {takes} token units"
        elif not is_sold and (per_hour - 1) * tick >= takes:
            yield f"ask {ask.id} takes {takes} an hour, and was not sold though its class costs {per_hour * tick}"
    for size, crowd in crowds.items():
        yield from choices(crowd, stock.of_size(size), bought, tick)
