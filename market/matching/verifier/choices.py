"""Whether each bid of one size has what it would choose at the prices given."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.job.provider_wants import USUAL_VOIDS, Wants
from market.matching.book import BidOffer, Lot, Needs
from market.matching.verifier.supply import MOST_VALUE, Kind

Numbers = NDArray[Any]  # of 64 bits, or Python's own where these are too few
Flags = NDArray[np.bool_]

HOUR = 3600  # seconds


def choices(bids: Sequence[BidOffer], kinds: Iterable[Kind], bought: Mapping[str, Kind], tick: int) -> Iterator[str]:
    """A sentence on each bid that would rather have something else than what it `bought`, or than nothing."""
    shop = _Shop(kinds, bids, tick)
    mine = np.array([shop.number(bought.get(bid.id)) for bid in bids])
    best = np.zeros(len(bids), np.int64)
    fits = np.zeros(len(bids), np.bool_)
    for shelf, numbers in shop.shelves(bids).items():
        alike, there = np.array(numbers), _unpacked(shelf, len(shop.kinds))
        best[alike] = shop.best(alike, there.nonzero()[0])
        fits[alike] = np.append(there, False)[mine[alike]]
    bought_fits = fits.nonzero()[0]
    pay = np.zeros(len(bids), np.int64)
    pay[bought_fits] = shop.pay(bought_fits, mine[bought_fits])
    gain = np.zeros(len(bids), np.int64)
    gain[fits] = pay[fits] - shop.price[mine[fits]]
    has = np.array([bid.id in bought for bid in bids])
    for at in np.where(has, ~fits | (gain < 0) | (gain < best), best > 0).nonzero()[0].tolist():
        bid = bids[at]
        if not has[at]:
            yield f"bid {bid.id} was not matched, though at these prices it would gain {best[at]} ticks an hour"
        elif not fits[at]:
            yield f"bid {bid.id} was matched with a machine that it does not fit"
        elif gain[at] < 0:
            yield f"bid {bid.id} pays {-gain[at]} ticks an hour more than its limit"
        else:
            yield f"bid {bid.id} would rather have another class, and gain {best[at]} ticks an hour, not {gain[at]}"


class _Shop:
    """The classes of one size that have a price, slowest first. A shelf is what some bids may choose from, as bits."""

    def __init__(self, kinds: Iterable[Kind], bids: Sequence[BidOffer], tick: int) -> None:
        self.kinds = sorted(
            (one for one in kinds if one.price is not None), key=lambda one: one.trade_class.units_per_hour
        )
        for number, kind in enumerate(self.kinds):
            kind.number = number
        self.speeds = [kind.trade_class.units_per_hour for kind in self.kinds]
        limits, units = [bid.limit for bid in bids], [bid.units * tick for bid in bids]
        small = max(limits) * max(self.speeds, default=1) < 2**62 and max(units) < 2**62
        exact: Any = np.int64 if small else np.object_
        self.limit, self.units = np.array(limits, exact), np.array(units, exact)
        self.speed = np.array(self.speeds, exact)
        self.price = np.array([kind.price for kind in self.kinds], np.int64)
        self.least = np.array([-(-kind.least // tick) for kind in self.kinds], np.object_)
        self.memory = _Ranks(kind.trade_class.lot.memory_mb for kind in self.kinds)
        self.tier = _Ranks(kind.trade_class.lot.tier for kind in self.kinds)
        self.stake = _Ranks(kind.trade_class.stake for kind in self.kinds)
        self.sort = _Sorts(_sort(kind.trade_class.lot) for kind in self.kinds)
        self.lists = _Sorts(_lists(kind.trade_class.lot.wants) for kind in self.kinds)
        self.work = _Sorts((kind.trade_class.min_work, kind.trade_class.max_checkpoints) for kind in self.kinds)
        self.provider: dict[str, list[int]] = {}  # classes that are told apart by it
        for number, kind in enumerate(self.kinds):
            if kind.trade_class.provider:
                self.provider.setdefault(kind.trade_class.provider, []).append(number)
        picky = [
            bool(kind.trade_class.provider or kind.trade_class.min_work)
            or _lists(kind.trade_class.lot.wants) != _lists(Wants())
            for kind in self.kinds
        ]
        self.special = np.array(picky, np.bool_)
        self.suiting: dict[object, Flags] = {}  # which sorts are for a job
        self.welcoming: dict[object, Flags] = {}  # which lists are for a client and a recipe

    def number(self, kind: Kind | None) -> int:
        """-1 if it is not in this shop."""
        if kind is None or not 0 <= kind.number < len(self.kinds) or self.kinds[kind.number] is not kind:
            return -1
        return kind.number

    def pay(self, bids: Numbers, kinds: Numbers) -> Numbers:
        paid: Numbers = np.minimum(self.limit[bids] * self.speed[kinds] // self.units[bids], MOST_VALUE)
        return paid

    def best(self, bids: Numbers, kinds: Numbers) -> Numbers:
        """The most that each bid would gain of these classes, ticks an hour; 0 if that is nothing."""
        if not len(kinds):
            return np.zeros(len(bids), np.int64)
        speeds, first = self.speed[kinds], np.ones(len(kinds), np.bool_)  # of each speed
        first[1:] = speeds[1:] != speeds[:-1]
        starts = first.nonzero()[0]
        pay = self.pay(bids[:, None], kinds[starts])
        gain = pay - np.minimum.reduceat(self.price[kinds], starts)
        return np.maximum(gain.max(axis=1), 0).astype(np.int64)

    def shelves(self, bids: Sequence[BidOffer]) -> dict[bytes, list[int]]:
        """The bids by their shelves."""
        by_needs: dict[int, tuple[Needs, dict[tuple[int, int], list[int]]]] = {}
        for number, bid in enumerate(bids):
            _, alike = by_needs.setdefault(id(bid.needs), (bid.needs, {}))
            slower = bisect_left(self.speeds, _speed(bid))  # so many are
            alike.setdefault((slower, self.stake.place(bid.stake)), []).append(number)
        found: dict[bytes, list[int]] = {}
        for needs, alike in by_needs.values():
            suiting = self._suiting(needs)
            for (slower, stake), numbers in alike.items():
                fits = suiting & (self.stake.column >= stake)
                fits[:slower] = False
                singly = numbers
                if not (fits & self.special).any():
                    apart = [bool(bids[number].providers) or _shady(bids[number]) for number in numbers]
                    singly = [number for number, is_apart in zip(numbers, apart, strict=True) if is_apart]
                    others = [number for number, is_apart in zip(numbers, apart, strict=True) if not is_apart]
                    if others:
                        found.setdefault(np.packbits(fits).tobytes(), []).extend(others)
                for number in singly:
                    shelf = np.packbits(self._without_refusing(bids[number], number, fits)).tobytes()
                    found.setdefault(shelf, []).append(number)
        return found

    def _suiting(self, needs: Needs) -> Flags:
        vram = needs.vram_mb if needs.gpus else 0
        asked = needs.environment, needs.hosts, needs.devices, vram, needs.regions, needs.numerics
        if asked not in self.suiting:
            self.suiting[asked] = self.sort.flags(
                needs.environment in environments
                and vram <= vram_mb
                and (device in needs.devices or not needs.devices)
                and (region in needs.regions or not needs.regions)
                and (numerics in needs.numerics or not needs.numerics)
                and hosts.issuperset(needs.hosts)
                for environments, hosts, device, vram_mb, region, numerics in self.sort.all
            )
        found: Flags = self.sort.column(self.suiting[asked]) & (
            self.memory.column >= self.memory.place(needs.memory_mb)
        )
        return found & (self.tier.column >= self.tier.place(needs.tier))

    def _without_refusing(self, bid: BidOffer, number: int, fits: Flags) -> Flags:
        """Without providers that would not take the bid, gave it back, or are not those that its client names; those
        that it avoids, only if it can't pay any other.
        """
        who = bid.client, bid.recipe, bid.standing
        welcome = self.welcoming.get(who)
        if welcome is None:
            welcome = self.welcoming[who] = self.lists.flags(
                bid.client not in no_clients
                and (bid.client in clients or not clients)
                and bid.recipe not in no_recipes
                and (bid.recipe in recipes or not recipes)
                and bid.standing.voids <= most_voids
                and (takes_new or not bid.standing.new)
                for clients, no_clients, recipes, no_recipes, most_voids, takes_new in self.lists.all
            )
        enough = self.work.flags(not work or bid.units * min(bid.rest, most) >= work for work, most in self.work.all)
        takes: Flags = fits & self.lists.column(welcome) & self.work.column(enough)
        takes[self._of(bid.given_back_by | bid.not_providers)] = False
        if bid.providers:
            named = np.zeros(len(self.kinds), np.bool_)
            named[self._of(bid.providers)] = True
            takes &= named
        if not bid.avoid:
            return takes
        others = takes.copy()
        others[self._of(bid.avoid)] = False
        left = np.flatnonzero(others)
        pay = self.pay(np.array([number]), left)
        return others if (pay >= self.least[left]).any() else takes

    def _of(self, providers: Iterable[str]) -> list[int]:
        """The classes of these."""
        return [number for provider in providers for number in self.provider.get(provider, ())]


class _Ranks:
    """A column of numbers of any size, as places among its values."""

    def __init__(self, values: Iterable[int]) -> None:
        column = list(values)
        self._values = sorted(set(column))
        rank = {value: place for place, value in enumerate(self._values)}
        self.column = np.array([rank[value] for value in column], np.int64)

    def place(self, value: int) -> int:
        """The rank from which on they are as much."""
        return bisect_left(self._values, value)


class _Sorts:
    """A column in which few values differ."""

    def __init__(self, values: Iterable[tuple[Any, ...]]) -> None:
        number: dict[tuple[Any, ...], int] = {}
        self._number = np.array([number.setdefault(one, len(number)) for one in values], np.int64)
        self.all = list(number)

    @staticmethod
    def flags(marks: Iterable[bool]) -> Flags:
        """One for each of `all`."""
        return np.array([*marks], np.bool_)

    def column(self, flags: Flags) -> Flags:
        return flags[self._number]


def _sort(lot: Lot) -> tuple[Any, ...]:
    return lot.environments, lot.hosts, lot.device, lot.vram_mb, lot.region, lot.numerics


def _lists(wants: Wants) -> tuple[Any, ...]:
    lists = wants.allow_clients, wants.deny_clients, wants.allow_recipes, wants.deny_recipes
    return *lists, wants.client_voids_at_most, wants.new_clients


def _shady(bid: BidOffer) -> bool:
    """Whether providers refuse its client who have said nothing."""
    return bid.standing.voids > USUAL_VOIDS


def _speed(bid: BidOffer) -> int:
    """Work units per hour that the bid insists on."""
    wanted = bid.needs.units_per_hour
    if bid.timeout:
        wanted = max(wanted, -(-bid.units * HOUR // bid.timeout))
    if bid.left is not None:
        wanted = max(wanted, -(-bid.units * bid.rest * HOUR // max(bid.left, 1)))
    return wanted


def _unpacked(shelf: bytes, count: int) -> Flags:
    return np.unpackbits(np.frombuffer(shelf, np.uint8), count=count).astype(np.bool_)
