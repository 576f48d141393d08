"""Who may trade: each order's share of its party's balance, stake and leases is set aside before the auction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from market.matching.book import AskOffer, BidOffer, Book

SLOTS = 100  # leases that one Ask may open in one epoch
ORDER_BITS = 64

Order = TypeVar("Order", AskOffer, BidOffer)


@dataclass(frozen=True, slots=True)
class Slot:
    """One lease that an Ask can open, with the stake that its provider can lock for it."""

    ask: AskOffer
    stake: int
    place: int  # of this provider's slots; it holds if at most `place` of the others are opened before


@dataclass(frozen=True, slots=True)
class Reserved:
    bids: Sequence[BidOffer]
    slots: Sequence[Slot]
    unfunded: Sequence[BidOffer]
    taken: Sequence[AskOffer]  # asks without a slot


def reserve(book: Book) -> Reserved:
    """A client's bids share one balance: those that pay most for a unit of work come first, each with all that it may
    cost. A provider's asks share one balance and one count of leases: the cheapest per unit of work come first, each
    with its highest stake, or what is left. Between equals the hash of the id decides, and no seed: what is offered
    is known before there is one.
    """
    free = dict(book.free)
    bids: list[BidOffer] = []
    unfunded: list[BidOffer] = []
    for _, mine in _by_party(book.bids, lambda bid: bid.client):
        for bid in sorted(mine, key=lambda bid: (-(bid.limit << ORDER_BITS) // bid.units, _rank(bid.id))):
            most = (bid.limit + bid.fee) * bid.rest
            if free.get(bid.client, 0) >= most:
                free[bid.client] -= most
                bids.append(bid)
            else:
                unfunded.append(bid)
    slots: list[Slot] = []
    taken: list[AskOffer] = []
    least = min((bid.stake for bid in bids), default=0)
    for provider, offered in _by_party(book.asks, lambda ask: ask.provider):
        active, balance, place = book.active.get(provider, 0), free.get(provider, 0), 0
        for ask in sorted(
            offered, key=lambda ask: ((ask.price_per_hour << ORDER_BITS) // ask.units_per_hour, _rank(ask.id))
        ):
            for n in range(SLOTS):
                stake = min(ask.max_stake, balance)
                if active + place >= ask.max_active or stake < least:
                    if n == 0:
                        taken.append(ask)
                    break
                slots.append(Slot(ask, stake, place))
                balance -= stake
                place += 1
    return Reserved(bids, slots, unfunded, taken)


def _rank(id: str) -> bytes:
    return sha256(id.encode()).digest()


def _by_party(orders: Iterable[Order], party: Callable[[Order], str]) -> Iterable[tuple[str, list[Order]]]:
    found: dict[str, list[Order]] = {}
    for order in orders:
        found.setdefault(party(order), []).append(order)
    return found.items()
