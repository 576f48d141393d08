"""Who may trade: each order's share of its party's balance, stake and leases is set aside before the auction."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import TypeVar

from market.matching.book import AskOffer, BidOffer, Book, Size

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
    taken: Sequence[Slot]  # of asks that can't open a lease with all their stake now, though a bid of their size waits


def reserve(book: Book) -> Reserved:
    """A client's bids share one balance: those that pay most for a unit of work come first, each with all that it may
    cost. A provider's asks share one balance and one count of leases: the cheapest per unit of work come first, each
    with its highest stake, or what is left; those for which no bid waits set nothing aside. Between equals the hash of
    the id decides, and no seed: what is offered is known before there is one.
    """
    free = dict(book.free)
    bids: list[BidOffer] = []
    unfunded: list[BidOffer] = []
    least: dict[Size, int] = {}  # stake that a bid wants
    for client, mine in _by_party(book.bids, lambda bid: bid.client, _dearest_first):
        for bid in mine:
            most = (bid.limit + bid.fee) * bid.rest
            if free.get(client, 0) < most:
                unfunded.append(bid)
                continue
            free[client] -= most
            bids.append(bid)
            size = bid.needs.pool
            least[size] = min(bid.stake, least.get(size, bid.stake))
    slots: list[Slot] = []
    taken: list[Slot] = []
    for provider, offered in _by_party(book.asks, lambda ask: ask.provider, _cheapest_first):
        active, balance, place = book.active.get(provider, 0), free.get(provider, 0), 0
        for ask in offered:
            enough = least.get(ask.lot.pool)
            if enough is None:
                continue
            for n in range(SLOTS):
                stake = min(ask.max_stake, balance)
                no_lease = active + place >= ask.max_active or stake < enough
                if n == 0 and (no_lease or stake < ask.max_stake):
                    taken.append(Slot(ask, ask.max_stake, place))
                if no_lease:
                    break
                slots.append(Slot(ask, stake, place))
                balance -= stake
                place += 1
    return Reserved(bids, slots, unfunded, taken)


def _dearest_first(bid: BidOffer) -> tuple[int, bytes]:
    return -(bid.limit << ORDER_BITS) // bid.units, _rank(bid.id)


def _cheapest_first(ask: AskOffer) -> tuple[int, bytes]:
    return (ask.price_per_hour << ORDER_BITS) // ask.units_per_hour, _rank(ask.id)


def _rank(id: str) -> bytes:
    return sha256(id.encode()).digest()


def _by_party(
    orders: Iterable[Order], party: Callable[[Order], str], rank: Callable[[Order], tuple[int, bytes]]
) -> Iterable[tuple[str, list[Order]]]:
    for owner, own in groupby(sorted(orders, key=party), party):
        mine = list(own)
        if len(mine) > 1:
            mine.sort(key=rank)
        yield owner, mine
