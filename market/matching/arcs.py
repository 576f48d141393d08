"""What each bid would pay in each group of classes that it fits: the arcs of the network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from market.matching.book import BidOffer, Reason
from market.matching.classes import MAX_VALUE
from market.matching.fitting import Fitting, Ints, numbers


@dataclass(frozen=True)
class Arcs:
    """Those on which no ask is cheap enough are left out. By bid: which of equal solutions is found depends on it."""

    bid: Ints
    group: Ints
    value: Ints  # ticks per hour
    refused: dict[str, Reason]  # by id: why bids have no arc


def arcs(bids: Sequence[BidOffer], fitting: Fitting) -> Arcs:
    refused: dict[str, Reason] = {}
    alike: dict[int, list[int]] = {}  # bids by the classes that they fit
    for number, bid in enumerate(bids):
        alike.setdefault(fitting.set_of(bid), []).append(number)
    refused.update((bids[n].id, fitting.why_not(bids[n])) for n in alike.pop(0, ()))

    speed_of = [one.units_per_hour for one in fitting.classes]
    most = max((bid.limit for bid in bids), default=0) * max(speed_of)
    most = max(most, max((bid.units for bid in bids), default=0) * fitting.tick)
    exact = np.int64 if most < 1 << 63 else object  # Python's integers where the machine's are too small
    speed = np.array(speed_of, exact)
    limit = np.array([bid.limit for bid in bids], exact)
    units = np.array([bid.units * fitting.tick for bid in bids], exact)
    cheapest = np.array(fitting.cheapest, np.int64)
    parts: list[tuple[Ints, Ints, Ints]] = []
    for class_set, same in alike.items():
        classes = numbers(class_set)
        speeds = speed[classes]
        ends = np.append(np.flatnonzero(speeds[1:] != speeds[:-1]) + 1, len(classes))
        starts = np.append(0, ends[:-1])
        of_bid = np.array(same, np.int64)
        value = limit[of_bid][:, None] * speeds[starts] // units[of_bid][:, None]
        value = np.minimum(value, MAX_VALUE).astype(np.int64)
        pays = value >= np.minimum.reduceat(cheapest[classes], starts)
        too_dear = Reason.RANGE if cheapest[classes].min() > MAX_VALUE else Reason.PRICE
        refused.update((bids[n].id, too_dear) for n in of_bid[~pays.any(axis=1)].tolist())
        row, column = np.nonzero(pays)
        parts.append((of_bid[row], fitting.grouped(classes, ends)[column], value[row, column]))
    none = np.zeros(0, np.int64)
    columns = [np.concatenate([none, *column]) for column in zip(*parts, strict=True)] if parts else [none] * 3
    order = np.argsort(columns[0], kind="stable")
    return Arcs(columns[0][order], columns[1][order], columns[2][order], refused)
