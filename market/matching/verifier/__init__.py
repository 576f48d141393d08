"""Checks an epoch's result in one pass, without solving anything. It shares no code with what it checks.

Prices and matches prove each other: if at the prices given every bid has what it would choose, every slot that is sold
costs no more than its price, and every slot that is not sold costs no less, then no other matching of these orders has
a greater surplus (linear programming duality), and no two parties would both rather trade with each other.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from market.matching.book import AskOffer, BidOffer, Book, Lot, Needs, TradeClass

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
_Size = tuple[str, int]  # a rule-set, and GPUs of a lot

HOUR = 3600  # seconds
MOST_SLOTS = 100  # of an ask
MOST_VALUE = 2**40  # ticks per hour
TRADES_AS = (0, 1, 2, 4, 4, 8, 8, 8, 8)  # lot size for the GPUs that a job wants
SOLD_AS = (0, 1, 2, 2, 4, 4, 4, 4, 8)  # lot size of the GPUs that an ask has


@dataclass(frozen=True, slots=True)
class Claimed:
    """One match, as a market tells of it."""

    bid: str
    ask: str
    place: int
    price: int  # per checkpoint


@dataclass(eq=False, slots=True)
class _Kind:
    """A class. Each is one object, so that looking one up does not compare lots."""

    of: TradeClass
    price: int | None  # ticks per hour
    least: int  # token units per hour, of the cheapest ask
    number: int = -1  # among those with a price, slowest first


@dataclass(frozen=True, slots=True)
class _Slot:
    ask: AskOffer
    place: int
    kind: _Kind


def lies(book: Book, prices: Mapping[TradeClass, int], matches: Sequence[Claimed], tick: int = 1) -> Iterator[str]:
    """A sentence on each thing that is wrong; `prices` in ticks per hour."""
    balance = dict(book.free)
    bids = _funded(book.bids, balance)
    slots = _slots(book, bids.values(), prices, balance)
    by_name = {(slot.ask.id, slot.place): slot for slot in slots}
    bought: dict[str, _Kind] = {}
    sold: set[tuple[str, int]] = set()
    for match in matches:
        name = (match.ask, match.place)
        bid, found = bids.get(match.bid), by_name.get(name)
        if bid is None or found is None:
            which = f"bid {match.bid}" if bid is None else f"ask {match.ask} at place {match.place}"
            yield f"{which} was matched, but is not in this epoch, or its party can't lock what it takes"
        elif match.bid in bought or name in sold:
            yield f"bid {match.bid} or ask {match.ask} was matched twice"
        else:
            bought[match.bid] = found.kind
            sold.add(name)
            per_hour = (found.kind.price or 0) * tick
            price = max(1, -(-per_hour * bid.units // found.ask.units_per_hour))
            if match.price != price:
                yield f"bid {match.bid} pays ask {match.ask} {match.price} a checkpoint; its class's price is {price}"
    for slot in slots:
        if slot.kind.price is None:
            yield f"there is no price for the class of ask {slot.ask.id}"
    yield from _asks_object(slots, sold, tick)
    yield from _bids_object(bids, list({slot.kind: None for slot in slots}), bought, tick)


# ------------------------------------------------------------------ who may trade


def _order(id: str) -> bytes:
    return sha256(id.encode()).digest()


def _funded(bids: Sequence[BidOffer], balance: dict[str, int]) -> dict[str, BidOffer]:
    """By id. Of one client's bids, the one with the highest price for its work has the first call on the balance."""
    by_client: dict[str, list[BidOffer]] = {}
    for bid in bids:
        by_client.setdefault(bid.client, []).append(bid)
    found = {}
    for client, mine in by_client.items():
        if len(mine) > 1:
            mine.sort(key=lambda bid: (-bid.limit * 2**64 // bid.units, _order(bid.id)))
        for bid in mine:
            cost = (bid.limit + bid.fee) * bid.rest
            if cost <= balance.get(client, 0):
                balance[client] -= cost
                found[bid.id] = bid
    return found


def _slots(
    book: Book, bids: Collection[BidOffer], prices: Mapping[TradeClass, int], balance: dict[str, int]
) -> list[_Slot]:
    """Of sizes in which a bid waits."""
    least: dict[_Size, int] = {}  # stake that a bid wants
    avoided: set[tuple[_Size, str]] = set()
    for bid in bids:
        size = (bid.needs.rules, TRADES_AS[bid.needs.gpus])
        least[size] = min(bid.stake, least.get(size, bid.stake))
        avoided.update((size, provider) for provider in bid.avoid)
    by_provider: dict[str, list[AskOffer]] = {}
    for ask in book.asks:
        by_provider.setdefault(ask.provider, []).append(ask)
    found = []
    lots: dict[int, Lot] = {}
    same: dict[Lot, Lot] = {}
    kinds: dict[tuple[object, ...], _Kind] = {}
    for provider, mine in by_provider.items():
        if len(mine) > 1:
            mine.sort(key=lambda ask: (ask.price_per_hour * 2**64 // ask.units_per_hour, _order(ask.id)))
        leases, first, place = book.active.get(provider, 0), balance.get(provider, 0), 0
        for ask in mine:
            size = (ask.lot.rules, SOLD_AS[ask.lot.gpus])
            if size not in least:
                continue
            for _ in range(MOST_SLOTS):
                stake = min(first, ask.max_stake)
                if stake < least[size] or leases + place >= ask.max_active:
                    break
                lot = lots.get(id(ask.lot))
                if lot is None:
                    lot = _with_memory(ask.lot)
                    lot = lots[id(ask.lot)] = same.setdefault(lot, lot)
                bounds = _bounds(ask, stake)
                shunned = provider if (size, provider) in avoided else ""
                kind = kinds.get((id(lot), bounds, shunned))
                if kind is None:
                    of = TradeClass(lot, *bounds, shunned)
                    kind = kinds[id(lot), bounds, shunned] = _Kind(of, prices.get(of), ask.price_per_hour)
                kind.least = min(kind.least, ask.price_per_hour)
                found.append(_Slot(ask, place, kind))
                first -= stake
                place += 1
    return found


def _leading(value: int, bits: int) -> int:
    rest = value.bit_length() - bits
    return value if rest <= 0 else (value >> rest) << rest


def _with_memory(lot: Lot) -> Lot:
    return Lot(
        lot.rules, lot.environments, lot.device, lot.gpus, lot.vram_mb, _leading(lot.memory_mb, 4), lot.region,
        lot.tier, lot.hosts, lot.wants,
    )  # fmt: skip


def _bounds(ask: AskOffer, stake: int) -> tuple[int, int, int, int]:
    """Speed, stake, least work and checkpoints of a class."""
    digits = str(stake)
    work = 0
    if ask.lot.wants.min_pay:
        work = -(-ask.lot.wants.min_pay * ask.units_per_hour // ask.price_per_hour)
        low = _leading(work, 4)
        work = low if low == work else low + 2 ** (work.bit_length() - 4)
    stake = int(digits[:2] + "0" * (len(digits) - 2))
    return _leading(ask.units_per_hour, 6), stake, work, ask.max_checkpoints if work else 0


# ------------------------------------------------------------------ what they would rather have


def _asks_object(slots: Sequence[_Slot], sold: Collection[tuple[str, int]], tick: int) -> Iterator[str]:
    for slot in slots:
        price, takes = slot.kind.price, slot.ask.price_per_hour
        if (slot.ask.id, slot.place) in sold:
            if price is None or price * tick < takes:
                yield f"ask {slot.ask.id} was sold at {price} ticks an hour, but takes {takes} token units"
        elif price is not None and (price - 1) * tick >= takes:
            yield f"ask {slot.ask.id} takes {takes} an hour, and was not sold though its class costs {price * tick}"


def _bids_object(
    bids: Mapping[str, BidOffer], kinds: Sequence[_Kind], bought: Mapping[str, _Kind], tick: int
) -> Iterator[str]:
    """Each bid has what it would choose at these prices."""
    stock: dict[_Size, list[_Kind]] = {}
    for kind in kinds:
        stock.setdefault((kind.of.lot.rules, SOLD_AS[kind.of.lot.gpus]), []).append(kind)
    crowd: dict[_Size, list[BidOffer]] = {}
    for bid in bids.values():
        crowd.setdefault((bid.needs.rules, TRADES_AS[bid.needs.gpus]), []).append(bid)
    for size, there in crowd.items():
        shop = _Shop(stock.get(size, []), tick)
        shelves: dict[bytes, tuple[_Shelf, list[BidOffer]]] = {}
        for bid in there:
            shelf = shop.shelf(bid)
            shelves.setdefault(shelf.name, (shelf, []))[1].append(bid)
        for shelf, alike in shelves.values():
            for bid, best in zip(alike, shelf.gains(alike, tick), strict=True):
                mine = bought.get(bid.id)
                if mine is None:
                    if best > 0:
                        yield f"bid {bid.id} was not matched, though at these prices it would gain {best} ticks an hour"
                elif mine.price is None or not shop.has(mine, shelf):
                    yield f"bid {bid.id} was matched with a machine that it does not fit"
                else:
                    gain = bid.limit * mine.of.units_per_hour // (bid.units * tick) - mine.price
                    if gain < 0:
                        yield f"bid {bid.id} pays {-gain} ticks an hour more than its limit"
                    elif gain < best:
                        yield f"bid {bid.id} would rather have another class, and gain {best} ticks an hour, not {gain}"


class _Shelf:
    """What some bids may choose from: at each speed the lowest price."""

    def __init__(self, name: bytes, kinds: Numbers, speeds: Numbers, prices: Numbers) -> None:
        self.name = name
        self.kinds = set(kinds.tolist())
        self.speeds, starts = np.unique(speeds, return_index=True)
        self.prices = np.minimum.reduceat(prices, starts) if len(prices) else prices

    def gains(self, bids: Sequence[BidOffer], tick: int) -> Sequence[int]:
        """The most that each would gain, ticks an hour; 0 if that is nothing."""
        if not len(self.speeds):
            return [0] * len(bids)
        fastest = int(self.speeds[-1])
        small = all(bid.limit * fastest < 2**62 and bid.units * tick < 2**62 for bid in bids)
        kind = np.int64 if small else np.object_
        pay = np.array([bid.limit for bid in bids], kind)[:, None] * self.speeds.astype(kind)
        pay //= np.array([bid.units * tick for bid in bids], kind)[:, None]
        best = np.where(pay > MOST_VALUE, 0, pay - self.prices).max(axis=1)
        found: list[int] = np.maximum(best, 0).tolist()
        return found


class _Shop:
    """The classes of one rule-set and lot size that have a price, slowest first."""

    def __init__(self, kinds: Sequence[_Kind], tick: int) -> None:
        self.tick = tick
        self.kinds = sorted((one for one in kinds if one.price is not None), key=lambda one: one.of.units_per_hour)
        for number, kind in enumerate(self.kinds):
            kind.number = number
        self.speed = _column(kind.of.units_per_hour for kind in self.kinds)
        self.price = _column(kind.price or 0 for kind in self.kinds)
        self.memory = _column(kind.of.lot.memory_mb for kind in self.kinds)
        self.tier = _column(kind.of.lot.tier for kind in self.kinds)
        self.stakes = sorted({kind.of.stake for kind in self.kinds})
        self.stake = _column(bisect_left(self.stakes, kind.of.stake) for kind in self.kinds)  # its place in `stakes`
        self.special = np.array([bool(kind.of.provider) or _picky(kind.of) for kind in self.kinds], np.bool_)
        self.sorts: dict[_Sort, int] = {}  # of machines, and their numbers
        self.sort = _column(self._number(kind.of.lot) for kind in self.kinds)
        self.suiting: dict[int, tuple[Needs, Flags]] = {}
        self.shelves: dict[object, tuple[_Shelf, bool]] = {}

    def _number(self, lot: Lot) -> int:
        sort = _Sort(lot.environments, lot.hosts, lot.device, lot.vram_mb, lot.region)
        return self.sorts.setdefault(sort, len(self.sorts))

    def has(self, kind: _Kind, shelf: _Shelf) -> bool:
        return kind.number in shelf.kinds and self.kinds[kind.number] is kind

    def shelf(self, bid: BidOffer) -> _Shelf:
        speed, stake = _speed(bid), bisect_left(self.stakes, bid.stake)
        suiting = self.suiting.get(id(bid.needs))
        if suiting is None:
            suiting = self.suiting[id(bid.needs)] = (bid.needs, self._suiting(bid.needs))
        slow = int(np.searchsorted(self.speed, speed))  # so many are slower
        key = (id(bid.needs), slow, stake)
        if key not in self.shelves:
            fits = suiting[1] & (self.stake >= stake)
            fits[:slow] = False
            self.shelves[key] = (self._of(np.flatnonzero(fits)), bool((fits & self.special).any()))
        shelf, special = self.shelves[key]
        return self._special(bid, shelf) if special else shelf

    def _of(self, kinds: Numbers) -> _Shelf:
        return _Shelf(kinds.tobytes(), kinds, self.speed[kinds], self.price[kinds])

    def _special(self, bid: BidOffer, shelf: _Shelf) -> _Shelf:
        """For bids that meet providers who look at who comes, or whom they look at."""
        kinds = [number for number in sorted(shelf.kinds) if _taken_by(self.kinds[number].of, bid)]
        others = [number for number in kinds if self.kinds[number].of.provider not in bid.avoid]
        if any(self._pays(bid, self.kinds[number]) for number in others):
            kinds = others
        return self._of(np.array(kinds, np.int64))

    def _pays(self, bid: BidOffer, kind: _Kind) -> bool:
        return bid.limit * kind.of.units_per_hour // (bid.units * self.tick) >= -(-kind.least // self.tick)

    def _suiting(self, needs: Needs) -> Flags:
        suits = np.array([_suits(needs, sort) for sort in self.sorts], np.bool_)
        if not len(suits):
            return suits
        found: Flags = suits[self.sort] & (self.memory >= needs.memory_mb) & (self.tier >= needs.tier)
        return found


def _column(of: Iterable[int]) -> Numbers:
    return np.fromiter(of, np.int64)


class _Sort(NamedTuple):
    environments: frozenset[str]
    hosts: frozenset[str]
    device: str
    vram_mb: int
    region: str


def _suits(needs: Needs, sort: _Sort) -> bool:
    return (
        needs.environment in sort.environments
        and (needs.gpus == 0 or needs.vram_mb <= sort.vram_mb)
        and (sort.device in needs.devices or not needs.devices)
        and (sort.region in needs.regions or not needs.regions)
        and sort.hosts.issuperset(needs.hosts)
    )


def _speed(bid: BidOffer) -> int:
    """Work units per hour that the bid insists on."""
    wanted = bid.needs.units_per_hour
    if bid.timeout:
        wanted = max(wanted, -(-bid.units * HOUR // bid.timeout))
    if bid.left is not None:
        wanted = max(wanted, -(-bid.units * bid.rest * HOUR // max(bid.left, 1)))
    return wanted


def _picky(kind: TradeClass) -> bool:
    wants = kind.lot.wants
    lists = (wants.allow_clients, wants.deny_clients, wants.allow_recipes, wants.deny_recipes)
    return bool(wants.min_pay) or any(lists)


def _taken_by(kind: TradeClass, bid: BidOffer) -> bool:
    wants = kind.lot.wants
    return (
        bid.client not in wants.deny_clients
        and (bid.client in wants.allow_clients or not wants.allow_clients)
        and bid.recipe not in wants.deny_recipes
        and (bid.recipe in wants.allow_recipes or not wants.allow_recipes)
        and (not kind.min_work or bid.units * min(bid.rest, kind.max_checkpoints) >= kind.min_work)
    )
