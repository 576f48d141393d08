"""Walrasian prices of an optimal matching: one integer for each class.

At such prices nobody would rather have another class, or none. They are the solutions of difference constraints
(low <= p_c <= high; p_d >= p_c + w), so the least and the greatest of them come from longest and shortest paths.

A class that trades has the least. A bid that wins then pays what others would have, had it not come, whatever its own
limit: no client gains by naming less than the job is worth to it (Leonard 1983; Demange, Gale and Sotomayor 1986).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
FAR = 1 << 61


@dataclass(frozen=True)
class Trades:
    """An optimal matching, by numbers. Amounts are ticks per hour."""

    member_group: Ints  # (group, class) pairs: which classes are in which group
    member_class: Ints
    arc_bid: Ints  # what bids would pay in each of their groups
    arc_group: Ints
    arc_value: Ints
    bid_class: Ints  # of each bid; -1: not matched
    bid_value: Ints  # what it would pay there
    dearest_sold: Ints  # of each class; 0 if none is sold
    cheapest_left: Ints  # of each class; FAR if all are sold
    groups: int


def prices(trades: Trades) -> Ints:
    """One a class. Raises ValueError if the matching is not optimal.

    Where nothing is sold it is the greatest, the cheapest ask: no bid is above it, of those without arcs either.
    """
    low, high = price_bounds(trades)
    is_sold = np.bincount(trades.bid_class[trades.bid_class >= 0], minlength=len(low)) > 0
    return np.where(is_sold, low, high)


def price_bounds(trades: Trades) -> tuple[Ints, Ints]:
    """The least and the greatest prices of all that support the matching."""
    matched = trades.bid_class[trades.arc_bid] >= 0
    wanted_by_others = np.full(trades.groups, -FAR)
    np.maximum.at(wanted_by_others, trades.arc_group[~matched], trades.arc_value[~matched])
    from_class, to_group, weight = _edges(trades, matched)

    least_value = np.full(len(trades.dearest_sold), FAR)
    has = trades.bid_class >= 0
    np.minimum.at(least_value, trades.bid_class[has], trades.bid_value[has])

    low = trades.dearest_sold.copy()
    for _ in range(len(low) + 2):
        group = wanted_by_others.copy()
        np.maximum.at(group, to_group, low[from_class] + weight)
        raised = low.copy()
        np.maximum.at(raised, trades.member_class, group[trades.member_group])
        if np.array_equal(raised, low):
            break
        low = raised
    high = np.minimum(trades.cheapest_left, least_value)
    for _ in range(len(high) + 2):
        group = np.full(trades.groups, FAR)
        np.minimum.at(group, trades.member_group, high[trades.member_class])
        lowered = high.copy()
        np.minimum.at(lowered, from_class, group[to_group] - weight)
        if np.array_equal(lowered, high):
            break
        high = lowered
    if np.any(low > high):
        raise ValueError("no prices support these matches: they are not optimal")
    return low, high


def _edges(trades: Trades, matched: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """(class, group, by how much the group's classes must at least be dearer): the largest of each pair."""
    bid = trades.arc_bid[matched]
    key = trades.bid_class[bid] * trades.groups + trades.arc_group[matched]
    gain = trades.arc_value[matched] - trades.bid_value[bid]
    unique, place = np.unique(key, return_inverse=True)
    weight = np.full(len(unique), -FAR)
    np.maximum.at(weight, place, gain)
    return unique // trades.groups, unique % trades.groups, weight
