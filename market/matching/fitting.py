"""Which classes each bid may trade in, and why it may not.

A set of classes is an integer here: bit n for class n. For each bound there is the set of classes that keep it, and a
bid's classes are what its bounds have in common: about ten ANDs a bid, however many classes there are.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.job.provider_wants import Standing
from market.matching.book import EVERYTHING, BidOffer, Lot, Needs, Reason, TradeClass
from market.matching.classes import LOT_BOUNDS, hourly, pays, welcome

Ints = NDArray[np.int64]


def numbers(class_set: int) -> Ints:
    """The classes in a set, in their order."""
    packed = np.frombuffer(class_set.to_bytes((class_set.bit_length() + 7) // 8, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(packed, bitorder="little"))


class Suiting:
    """Lots of one size, and which of them suit a job whatever their price and speed."""

    def __init__(self, lots: Sequence[Lot]) -> None:
        self.all = (1 << len(lots)) - 1
        self._offered = [_by_value(map(bound.offered, lots)) for bound in LOT_BOUNDS]
        self._kept: list[dict[Any, int]] = [{} for _ in LOT_BOUNDS]
        self._by_needs: dict[int, tuple[Needs, int]] = {}  # by identity: bids share them

    def fitting(self, needs: Needs) -> int:
        """The lots that suit."""
        if (known := self._by_needs.get(id(needs))) is None:
            found = self.all
            for number in range(len(LOT_BOUNDS)):
                found &= self.keeping(number, needs)
            known = self._by_needs[id(needs)] = (needs, found)
        return known[1]

    def why_not(self, needs: Needs) -> Reason | None:
        """The bound that leaves a job without a lot, once those before have been kept; None if it has one."""
        found = self.all
        for number, bound in enumerate(LOT_BOUNDS):
            found &= self.keeping(number, needs)
            if not found:
                return bound.reason
        return None

    def keeping(self, number: int, needs: Needs) -> int:
        """The lots that keep one of LOT_BOUNDS."""
        bound, kept = LOT_BOUNDS[number], self._kept[number]
        asked = bound.asked(needs)
        if asked not in kept:
            kept[asked] = _union(lots for has, lots in self._offered[number].items() if bound.keeps(has, asked))
        return kept[asked]


class Fitting:
    """Classes of one size, slowest first, and groups of them: of one speed, and alike to some bid."""

    def __init__(self, classes: Sequence[TradeClass], cheapest: Sequence[int], tick: int) -> None:
        """`cheapest`: the lowest cost in each class, ticks per hour."""
        self.classes = classes
        self.cheapest = cheapest
        self.tick = tick
        self.groups: list[Ints] = []
        self._suiting = Suiting([one.lot for one in classes])
        self._by_provider = _by_value(one.provider for one in classes)
        self._by_wants = _by_value(one.lot.wants for one in classes)
        self._by_work = _by_value((one.min_work, one.max_checkpoints) for one in classes)
        self._special = self._suiting.all & ~(self._by_provider.get("", 0) & self._by_wants.get(EVERYTHING, 0))
        self._unwelcome: dict[
            tuple[str, str, Standing], int
        ] = {}  # by client, recipe, standing: classes that refuse them
        self._by_speed = _AtLeast([one.units_per_hour for one in classes])
        self._by_stake = _AtLeast([one.stake for one in classes])
        self._group: dict[bytes, int] = {}

    def set_of(self, bid: BidOffer) -> int:
        """The classes that the bid may trade in, whatever they cost."""
        speed = max(bid.lowest_speed, bid.deadline_speed)
        found = self._suiting.fitting(bid.needs) & self._by_speed.kept(speed) & self._by_stake.kept(bid.stake)
        if bid.providers:
            found &= self._of(bid.providers)
        usual = bid.standing.voids <= EVERYTHING.client_voids_at_most
        return found if usual and not found & self._special else self._without_unwanted(bid, found)

    def grouped(self, classes: Ints, ends: Ints) -> Ints:
        """The groups of `classes` that end before the places `ends` in it: their numbers in `groups`."""
        found, began = [], 0
        for end in ends.tolist():
            members = classes[began:end]
            name = members.tobytes()
            if (group := self._group.get(name)) is None:
                group = self._group[name] = len(self.groups)
                self.groups.append(members.copy())
            found.append(group)
            began = end
        return np.array(found, np.int64)

    def why_not(self, bid: BidOffer) -> Reason:
        """The bound that leaves a bid without a class, once its other bounds before have been kept."""
        if (reason := self._suiting.why_not(bid.needs)) is not None:
            return reason
        found = self._suiting.fitting(bid.needs)
        for kept, unkept in (
            (self._by_stake.kept(bid.stake), Reason.STAKE),
            (self._by_speed.kept(bid.lowest_speed), Reason.SPEED),
            (self._by_speed.kept(bid.deadline_speed), Reason.DEADLINE),
        ):
            found &= kept
            if not found:
                return unkept
        found = self._wanted(bid, found)
        if not found:
            return Reason.WANTED
        if bid.providers:
            found &= self._of(bid.providers)
        return Reason.UNITS if found & ~self._of(bid.not_providers) else Reason.PROVIDERS

    def _without_unwanted(self, bid: BidOffer, found: int) -> int:
        """Without providers that do not want the lease or can't have it, and those that let the job down, if it can pay
        others.
        """
        found = self._wanted(bid, found) & ~self._of(bid.refused)
        others = found & ~self._of(bid.avoid)
        if others != found and any(self._affordable(bid, n) for n in numbers(others).tolist()):
            return others
        return found

    def _wanted(self, bid: BidOffer, found: int) -> int:
        """Without providers that do not want the lease."""
        who = bid.client, bid.recipe, bid.standing
        if (unwelcome := self._unwelcome.get(who)) is None:
            unwelcome = self._unwelcome[who] = _union(
                them for wants, them in self._by_wants.items() if not welcome(wants, *who)
            )
        found &= ~unwelcome
        return found & ~_union(them for (work, most), them in self._by_work.items() if not pays(bid, work, most))

    def _of(self, providers: Iterable[str]) -> int:
        """The classes of providers that some bid tells apart."""
        return _union(self._by_provider.get(provider, 0) for provider in providers)

    def _affordable(self, bid: BidOffer, number: int) -> bool:
        return self.cheapest[number] <= hourly(bid, self.classes[number].units_per_hour, self.tick)


class _AtLeast:
    """The classes that offer as much of something."""

    def __init__(self, offered: Sequence[int]) -> None:
        by_value = sorted(_by_value(offered).items())
        self._values = [value for value, _ in by_value]
        self._kept = [them for _, them in by_value] + [0]
        for n in reversed(range(len(self._values))):
            self._kept[n] |= self._kept[n + 1]

    def kept(self, asked: int) -> int:
        return self._kept[bisect_left(self._values, asked)]


def _by_value(offered: Iterable[Any]) -> dict[Any, int]:
    found: dict[Any, list[int]] = {}
    for number, value in enumerate(offered):
        found.setdefault(value, []).append(number)
    return {value: _union(1 << n for n in numbers) for value, numbers in found.items()}


def _union(class_sets: Iterable[int]) -> int:
    found = 0
    for one in class_sets:
        found |= one
    return found
