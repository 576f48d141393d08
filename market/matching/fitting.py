"""Which classes each bid may trade in, and why it may not.

A set of classes is an integer here: bit n for class n. For each bound there is the set of classes that keep it, and a
bid's classes are what its bounds have in common: about ten ANDs a bid, however many classes there are.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from contracts.wants import Wants
from market.matching.book import BidOffer, Needs, Reason, TradeClass
from market.matching.classes import LOT_BOUNDS, hourly, wanted

Options = Sequence[tuple[int, int]]  # (units per hour, group), slowest first


def numbers(of: int) -> list[int]:
    """The classes in a set."""
    packed = np.frombuffer(of.to_bytes((of.bit_length() + 7) // 8, "little"), np.uint8)
    found: list[int] = np.flatnonzero(np.unpackbits(packed, bitorder="little")).tolist()
    return found


class Fitting:
    """Classes of one lot size, and groups of them: those of one speed between which a bid sees no difference."""

    def __init__(self, classes: Sequence[TradeClass], cheapest: Sequence[int], tick: int) -> None:
        """`cheapest`: the lowest cost in each class, ticks per hour."""
        self.classes = classes
        self.cheapest = cheapest
        self.tick = tick
        self.groups: list[tuple[int, ...]] = []
        everything = Wants()
        self._special = _set(n for n, of in enumerate(classes) if of.provider or of.lot.wants != everything)
        self._kept: list[dict[Any, int]] = [{} for _ in LOT_BOUNDS]
        self._by_needs: dict[int, tuple[Needs, int]] = {}
        self._by_speed = _AtLeast([of.units_per_hour for of in classes])
        self._by_stake = _AtLeast([of.stake for of in classes])
        self._options: dict[int, Options] = {}
        self._group: dict[tuple[int, ...], int] = {}

    def set_of(self, bid: BidOffer) -> int:
        """The classes that the bid may trade in, whatever they cost."""
        known = self._by_needs.get(id(bid.needs))
        if known is None:
            known = self._by_needs[id(bid.needs)] = (bid.needs, self._suiting(bid.needs))
        speed = max(bid.lowest_speed, bid.deadline_speed)
        found = known[1] & self._by_speed.kept(speed) & self._by_stake.kept(bid.stake)
        return found if not found & self._special else self._without_unwanted(bid, found)

    def options(self, of: int) -> Options:
        """A set of classes as a group for each speed."""
        if (known := self._options.get(of)) is None:
            by_speed: dict[int, list[int]] = {}
            for number in numbers(of):
                by_speed.setdefault(self.classes[number].units_per_hour, []).append(number)
            known = self._options[of] = [
                (speed, self._grouped(tuple(same))) for speed, same in sorted(by_speed.items())
            ]
        return known

    def why_not(self, bid: BidOffer) -> Reason:
        """The bound that leaves a bid without a class, once its other bounds before have been kept."""
        found = (1 << len(self.classes)) - 1
        for number, bound in enumerate(LOT_BOUNDS):
            found &= self._keeping(number, bid.needs)
            if not found:
                return bound.reason
        for kept, reason in (
            (self._by_stake.kept(bid.stake), Reason.STAKE),
            (self._by_speed.kept(bid.lowest_speed), Reason.SPEED),
            (self._by_speed.kept(bid.deadline_speed), Reason.DEADLINE),
        ):
            found &= kept
            if not found:
                return reason
        return Reason.WANTED

    def _suiting(self, needs: Needs) -> int:
        found = (1 << len(self.classes)) - 1
        for number in range(len(LOT_BOUNDS)):
            found &= self._keeping(number, needs)
        return found

    def _keeping(self, number: int, needs: Needs) -> int:
        """The classes that keep one of LOT_BOUNDS."""
        bound, kept = LOT_BOUNDS[number], self._kept[number]
        asked = bound.asked(needs)
        if asked not in kept:
            kept[asked] = _set(n for n, of in enumerate(self.classes) if bound.keeps(bound.offered(of.lot), asked))
        return kept[asked]

    def _without_unwanted(self, bid: BidOffer, found: int) -> int:
        """Without providers that do not want the lease, and those that let the job down, if it can pay others."""
        of_concern = numbers(found & self._special)
        found &= ~_set(n for n in of_concern if not wanted(bid, self.classes[n]))
        others = found & ~_set(n for n in of_concern if self.classes[n].provider in bid.avoid)
        if others != found and any(self._affordable(bid, n) for n in numbers(others)):
            return others
        return found

    def _affordable(self, bid: BidOffer, number: int) -> bool:
        return hourly(bid, self.classes[number].units_per_hour, self.tick) >= self.cheapest[number]

    def _grouped(self, of: tuple[int, ...]) -> int:
        if of not in self._group:
            self._group[of] = len(self.groups)
            self.groups.append(of)
        return self._group[of]


class _AtLeast:
    """The classes that offer as much of something."""

    def __init__(self, offered: Sequence[int]) -> None:
        self._values = sorted(set(offered))
        rank = {value: n for n, value in enumerate(self._values)}
        self._kept = [0] * (len(self._values) + 1)
        for number, value in enumerate(offered):
            self._kept[rank[value]] |= 1 << number
        for n in reversed(range(len(self._values))):
            self._kept[n] |= self._kept[n + 1]

    def kept(self, asked: int) -> int:
        return self._kept[bisect_left(self._values, asked)]


def _set(of: Iterator[int] | Collection[int]) -> int:
    found = 0
    for number in of:
        found |= 1 << number
    return found
