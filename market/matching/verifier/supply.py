"""Who may trade: the bids that are paid for, and what asks can open, by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from operator import attrgetter

from market.matching.book import AskOffer, BidOffer, Book, Lot, TradeClass

Size = tuple[str, int]  # a rule-set, and GPUs of a lot

MOST_SLOTS = 100  # of an ask
MOST_VALUE = 2**40  # ticks per hour: a bid that would pay more counts as this
TRADES_AS = (0, 1, 2, 4, 4, 8, 8, 8, 8)  # lot size for the GPUs that a job wants
SOLD_AS = (0, 1, 2, 2, 4, 4, 4, 4, 8)  # lot size of the GPUs that an ask has


@dataclass(eq=False, slots=True)
class Kind:
    """A class. Each is one object, so that looking one up does not compare lots."""

    trade_class: TradeClass
    price: int | None  # ticks per hour; None if there is none that can be
    least: int  # token units per hour, of the cheapest ask
    number: int = -1  # among those of its size with a price, slowest first


def funded(bids: Sequence[BidOffer], balance: dict[str, int]) -> dict[Size, list[BidOffer]]:
    """By size. Of one client's bids, the one with the highest price for its work has the first call on the balance."""
    found: dict[Size, list[BidOffer]] = {}
    for client, own in groupby(sorted(bids, key=attrgetter("client")), attrgetter("client")):
        mine = list(own)
        if len(mine) > 1:
            mine.sort(key=lambda bid: (-bid.limit * 2**64 // bid.units, _order(bid.id)))
        for bid in mine:
            cost = (bid.limit + bid.fee) * bid.rest
            if cost <= balance.get(client, 0):
                balance[client] -= cost
                found.setdefault((bid.needs.rules, TRADES_AS[bid.needs.gpus]), []).append(bid)
    return found


def _order(id: str) -> bytes:
    return sha256(id.encode()).digest()


class Stock:
    """The slots of all sizes in which a bid waits, in columns: those of one ask stand together, in order of places."""

    def __init__(
        self,
        book: Book,
        crowds: Mapping[Size, Sequence[BidOffer]],
        balance: Mapping[str, int],
        prices: Mapping[TradeClass, int],
    ) -> None:
        self.asks: list[AskOffer] = []
        self.places: list[int] = []
        self.kinds: list[Kind] = []
        self._first: dict[str, int] = {}  # ask id -> its first slot
        self._prices = prices
        self._known: dict[tuple[object, ...], Kind] = {}
        self._lots: dict[int, int] = {}  # by the identity of an ask's lot: number of what a class knows of it
        self._sorts: dict[tuple[object, ...], int] = {}
        self._rounded: dict[int, int] = {}  # stakes
        least = {size: min(bid.stake for bid in crowd) for size, crowd in crowds.items()}
        avoided = {
            (size, provider)
            for size, crowd in crowds.items()
            for bid in crowd
            for provider in (*bid.avoid, *bid.given_back_by, *bid.providers, *bid.not_providers)
        }
        for provider, own in groupby(sorted(book.asks, key=attrgetter("provider")), attrgetter("provider")):
            mine = list(own)
            if len(mine) > 1:
                mine.sort(key=lambda ask: (ask.price_per_hour * 2**64 // ask.units_per_hour, _order(ask.id)))
            leases, left, place = book.active.get(provider, 0), balance.get(provider, 0), 0
            for ask in mine:
                size = (ask.lot.rules, SOLD_AS[ask.lot.gpus])
                enough = least.get(size)
                if enough is None:
                    continue
                shunned = provider if (size, provider) in avoided else ""
                for _ in range(MOST_SLOTS):
                    stake = min(left, ask.max_stake)
                    if stake < enough or leases + place >= ask.max_active:
                        break
                    self._first.setdefault(ask.id, len(self.asks))
                    self.asks.append(ask)
                    self.places.append(place)
                    self.kinds.append(self._kind(ask, stake, shunned))
                    left -= stake
                    place += 1

    def slot(self, ask: str, place: int) -> int | None:
        """Its number."""
        if (first := self._first.get(ask)) is None:
            return None
        number = first + place - self.places[first]
        return number if first <= number < len(self.asks) and self.asks[number].id == ask else None

    def of_size(self, size: Size) -> list[Kind]:
        return [
            kind
            for kind in self._known.values()
            if (kind.trade_class.lot.rules, SOLD_AS[kind.trade_class.lot.gpus]) == size
        ]

    def _kind(self, ask: AskOffer, stake: int, shunned: str) -> Kind:
        lot = ask.lot
        if (sort := self._lots.get(id(lot))) is None:
            sort = self._lots[id(lot)] = self._sorts.setdefault(_sort(lot), len(self._sorts))
        if (rounded := self._rounded.get(stake)) is None:
            digits = str(stake)
            rounded = self._rounded[stake] = int(digits[:2] + "0" * (len(digits) - 2))
        work = 0
        if lot.wants.min_pay:
            work = -(-lot.wants.min_pay * ask.units_per_hour // ask.price_per_hour)
            low = _leading(work, 4)
            work = low if low == work else low + 2 ** (work.bit_length() - 4)
        bounds = (_leading(ask.units_per_hour, 6), rounded, work, ask.max_checkpoints if work else 0, shunned)
        kind = self._known.get((sort, *bounds))
        if kind is None:
            trade_class = TradeClass(_with_leading_memory(lot), *bounds)
            price = self._prices.get(trade_class)
            if price is not None and not 0 <= price <= MOST_VALUE + 1:
                price = None
            kind = self._known[sort, *bounds] = Kind(trade_class, price, ask.price_per_hour)
        kind.least = min(kind.least, ask.price_per_hour)
        return kind


def _sort(lot: Lot) -> tuple[object, ...]:
    """What two lots of a class have in common."""
    wants = lot.wants
    lists = wants.allow_clients, wants.deny_clients, wants.allow_recipes, wants.deny_recipes, wants.min_pay
    clients = wants.client_voids_at_most, wants.new_clients
    memory = _leading(lot.memory_mb, 4)
    return (
        lot.rules,
        lot.environments,
        lot.hosts,
        lot.device,
        lot.gpus,
        lot.vram_mb,
        memory,
        lot.region,
        lot.tier,
        lists,
        clients,
        lot.numerics,
    )


def _with_leading_memory(lot: Lot) -> Lot:
    return Lot(
        lot.rules, lot.environments, lot.device, lot.gpus, lot.vram_mb, _leading(lot.memory_mb, 4), lot.region,
        lot.tier, lot.hosts, lot.wants, lot.numerics,
    )  # fmt: skip


def _leading(value: int, bits: int) -> int:
    rest = value.bit_length() - bits
    return value if rest <= 0 else (value >> rest) << rest
