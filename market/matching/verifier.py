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


@dataclass(frozen=True, slots=True)
class _Slot:
    ask: AskOffer
    place: int
    kind: TradeClass


def lies(
    book: Book, prices: Mapping[TradeClass, int], matches: Sequence[Claimed], seed: bytes = b"", tick: int = 1
) -> Iterator[str]:
    """A sentence on each thing that is wrong; `prices` in ticks per hour."""
    balance = dict(book.free)
    bids = _funded(book.bids, balance, seed)
    least_stake = min((bid.stake for bid in bids.values()), default=0)
    slots = _slots(book, balance, least_stake, seed)
    by_name = {(slot.ask.id, slot.place): slot for slot in slots}
    bought: dict[str, TradeClass] = {}
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
            per_hour = prices.get(found.kind, 0) * tick
            price = max(1, -(-per_hour * bid.units // found.ask.units_per_hour))
            if match.price != price:
                yield f"bid {match.bid} pays ask {match.ask} {match.price} a checkpoint; its class's price is {price}"
    wanted = {(bid.needs.rules, TRADES_AS[bid.needs.gpus]) for bid in bids.values()}
    for slot in slots:
        if slot.kind not in prices and (slot.ask.lot.rules, SOLD_AS[slot.ask.lot.gpus]) in wanted:
            yield f"there is no price for the class of ask {slot.ask.id}"
    yield from _asks_object(slots, sold, prices, tick)
    yield from _bids_object(bids, slots, bought, prices, tick)


# ------------------------------------------------------------------ who may trade


def _coin(seed: bytes, id: str) -> bytes:
    return sha256(seed + id.encode()).digest()


def _funded(bids: Sequence[BidOffer], balance: dict[str, int], seed: bytes) -> dict[str, BidOffer]:
    """By id. Of one client's bids, the one with the highest price for its work has the first call on the balance."""
    by_client: dict[str, list[BidOffer]] = {}
    for bid in bids:
        by_client.setdefault(bid.client, []).append(bid)
    found = {}
    for client, mine in by_client.items():
        if len(mine) > 1:
            mine.sort(key=lambda bid: (-bid.limit * 2**64 // bid.units, _coin(seed, bid.id)))
        for bid in mine:
            cost = (bid.limit + bid.fee) * bid.rest
            if cost <= balance.get(client, 0):
                balance[client] -= cost
                found[bid.id] = bid
    return found


def _slots(book: Book, balance: dict[str, int], least_stake: int, seed: bytes) -> list[_Slot]:
    avoided = {provider for bid in book.bids for provider in bid.avoid}
    by_provider: dict[str, list[AskOffer]] = {}
    for ask in book.asks:
        by_provider.setdefault(ask.provider, []).append(ask)
    found = []
    lots: dict[int, Lot] = {}
    for provider, mine in by_provider.items():
        if len(mine) > 1:
            mine.sort(key=lambda ask: (ask.price_per_hour * 2**64 // ask.units_per_hour, _coin(seed, ask.id)))
        leases, first, place = book.active.get(provider, 0), balance.get(provider, 0), 0
        for ask in mine:
            for _ in range(MOST_SLOTS):
                stake = min(first, ask.max_stake)
                if stake < least_stake or leases + place >= ask.max_active:
                    break
                lot = lots.get(id(ask.lot))
                if lot is None:
                    lot = lots[id(ask.lot)] = _with_memory(ask.lot)
                found.append(_Slot(ask, place, _kind(ask, lot, stake, provider if provider in avoided else "")))
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


def _kind(ask: AskOffer, lot: Lot, stake: int, provider: str) -> TradeClass:
    digits = str(stake)
    work = 0
    if lot.wants.min_pay:
        work = -(-lot.wants.min_pay * ask.units_per_hour // ask.price_per_hour)
        low = _leading(work, 4)
        work = low if low == work else low + 2 ** (work.bit_length() - 4)
    return TradeClass(
        lot,
        _leading(ask.units_per_hour, 6),
        int(digits[:2] + "0" * (len(digits) - 2)),
        work,
        ask.max_checkpoints if work else 0,
        provider,
    )


# ------------------------------------------------------------------ what they would rather have


def _asks_object(
    slots: Sequence[_Slot], sold: Collection[tuple[str, int]], prices: Mapping[TradeClass, int], tick: int
) -> Iterator[str]:
    for slot in slots:
        price = prices.get(slot.kind)
        takes = slot.ask.price_per_hour
        if (slot.ask.id, slot.place) in sold:
            if price is None or price * tick < takes:
                yield f"ask {slot.ask.id} was sold at {price} ticks an hour, but takes {takes} token units"
        elif price is not None and (price - 1) * tick >= takes:
            yield f"ask {slot.ask.id} takes {takes} an hour, and was not sold though its class costs {price * tick}"


def _bids_object(
    bids: Mapping[str, BidOffer],
    slots: Sequence[_Slot],
    bought: Mapping[str, TradeClass],
    prices: Mapping[TradeClass, int],
    tick: int,
) -> Iterator[str]:
    """Each bid has what it would choose at these prices."""
    shop = _Shop(slots, prices, tick)
    shelves: dict[bytes, tuple[_Shelf, list[BidOffer]]] = {}
    for bid in bids.values():
        shelf = shop.shelf(bid)
        shelves.setdefault(shelf.name, (shelf, []))[1].append(bid)
    for shelf, alike in shelves.values():
        for bid, best in zip(alike, shelf.gains(alike, tick), strict=True):
            mine = bought.get(bid.id)
            if mine is None:
                if best > 0:
                    yield f"bid {bid.id} was not matched, though at these prices it would gain {best} ticks an hour"
            elif mine not in prices or shop.number[mine] not in shelf.kinds:
                yield f"bid {bid.id} was matched with a machine that it does not fit"
            else:
                gain = bid.limit * mine.units_per_hour // (bid.units * tick) - prices[mine]
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
        best = (pay - self.prices).max(axis=1)
        best[pay[:, -1] > MOST_VALUE] = 0
        found: list[int] = np.maximum(best, 0).tolist()
        return found


class _Shop:
    """All classes of the epoch that have a price, slowest first."""

    def __init__(self, slots: Sequence[_Slot], prices: Mapping[TradeClass, int], tick: int) -> None:
        self.tick = tick
        self.least: dict[TradeClass, int] = {}  # cost, token units per hour
        for slot in slots:
            self.least[slot.kind] = min(slot.ask.price_per_hour, self.least.get(slot.kind, slot.ask.price_per_hour))
        self.kinds = sorted((kind for kind in self.least if kind in prices), key=lambda kind: kind.units_per_hour)
        self.number = {kind: number for number, kind in enumerate(self.kinds)}
        self.speed = _column(kind.units_per_hour for kind in self.kinds)
        self.price = _column(prices[kind] for kind in self.kinds)
        self.memory = _column(kind.lot.memory_mb for kind in self.kinds)
        self.tier = _column(kind.lot.tier for kind in self.kinds)
        stakes = sorted({kind.stake for kind in self.kinds})
        self.stakes = stakes
        self.stake = _column(bisect_left(stakes, kind.stake) for kind in self.kinds)  # as its place in `stakes`
        self.special = np.array([bool(kind.provider) or _picky(kind) for kind in self.kinds], np.bool_)
        self.sorts: dict[tuple[str, int], dict[_Sort, int]] = {}  # of machines, and their numbers
        self.sort = _column(self._number(kind.lot) for kind in self.kinds)
        self.suiting: dict[int, tuple[Needs, Flags]] = {}
        self.shelves: dict[object, tuple[_Shelf, bool]] = {}

    def _number(self, lot: Lot) -> int:
        same_size = self.sorts.setdefault((lot.rules, SOLD_AS[lot.gpus]), {})
        sort = _Sort(lot.environments, lot.hosts, lot.device, lot.vram_mb, lot.region)
        return same_size.setdefault(sort, sum(map(len, self.sorts.values())))

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
        kinds = [number for number in sorted(shelf.kinds) if _taken_by(self.kinds[number], bid)]
        others = [number for number in kinds if self.kinds[number].provider not in bid.avoid]
        if any(self._pays(bid, self.kinds[number]) for number in others):
            kinds = others
        return self._of(np.array(kinds, np.int64))

    def _pays(self, bid: BidOffer, kind: TradeClass) -> bool:
        return bid.limit * kind.units_per_hour // (bid.units * self.tick) >= -(-self.least[kind] // self.tick)

    def _suiting(self, needs: Needs) -> Flags:
        same_size = self.sorts.get((needs.rules, TRADES_AS[needs.gpus]), {})
        numbers = [number for sort, number in same_size.items() if _suits(needs, sort)]
        found: Flags = np.isin(self.sort, numbers) & (self.memory >= needs.memory_mb) & (self.tier >= needs.tier)
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
