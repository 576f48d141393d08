"""One lot size under one rule-set as a network, and its optimal flow.

    bid --(minus what it pays for an hour at this speed)--> group of classes of one speed --> class --(cost)--> sink

Bids that may trade in the same classes share groups, so there are about as many arcs as bids times speeds, and not
bids times asks. Who does not trade has an arc of its own to the sink, at no cost.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import min_cost_flow

from contracts.errors import UserError
from market.matching.book import BidOffer, Lot, Reason, TradeClass
from market.matching.classes import class_of, cost, hourly, rounded
from market.matching.fitting import Fitting
from market.matching.prices import FAR, Ints, Trades, prices
from market.matching.reserve import Slot

MAX_VALUE = 1 << 40  # ticks per hour
MAX_NODES = 1 << 21  # the solver counts to the product of the two


@dataclass(frozen=True)
class Outcome:
    """Of one net; classes by number."""

    classes: Sequence[TradeClass]
    prices: Sequence[int]  # ticks per hour
    matches: Sequence[tuple[BidOffer, int, Slot]]
    outbid: Sequence[BidOffer]  # that could pay the cheapest ask of a class that they fit
    low: Sequence[BidOffer]  # that could not; but they fit
    refused: dict[str, Reason]  # bids that fit no class, or can't be counted with
    surplus: int  # ticks per hour


def solve(
    bids: Sequence[BidOffer],
    slots: Sequence[Slot],
    avoided: Collection[str],
    tie: Callable[[str], bytes],
    tick: int,
) -> Outcome:
    """Bids and slots must come in an order that no party can choose: it decides between equals.

    `avoided`: providers that some bid would rather not have; their machines are classes of their own.
    """
    classes, members = _classes(slots, avoided)
    for of in members:
        of.sort(key=lambda slot: (slot.ask.price_per_hour, tie(slot.ask.id), slot.place))
    costs = [[cost(slot.ask, tick) for slot in of] for of in members]
    fitting = Fitting(classes, [of[0] for of in costs], tick)
    arcs = _arcs(bids, fitting)
    chosen, class_of_bid = _flow(len(bids), fitting.groups, costs, arcs)
    value = np.zeros(len(bids), np.int64)
    value[arcs.bid[chosen]] = arcs.value[chosen]

    sold = np.bincount(class_of_bid[class_of_bid >= 0], minlength=len(classes))
    trades = Trades(
        member_group=np.array([n for n, of in enumerate(fitting.groups) for _ in of], np.int64),
        member_class=np.array([c for of in fitting.groups for c in of], np.int64),
        arc_bid=arcs.bid,
        arc_group=arcs.group,
        arc_value=arcs.value,
        bid_class=class_of_bid,
        bid_value=value,
        dearest_sold=np.array([of[n - 1] if n else 0 for of, n in zip(costs, sold, strict=True)], np.int64),
        cheapest_left=np.array([of[n] if n < len(of) else FAR for of, n in zip(costs, sold, strict=True)], np.int64),
        groups=len(fitting.groups),
    )
    price = prices(trades)
    _match_equals(trades, price, sold, costs)

    matches = []
    bought: dict[int, list[int]] = {}
    for number in np.flatnonzero(class_of_bid >= 0).tolist():
        bought.setdefault(int(class_of_bid[number]), []).append(number)
    surplus = 0
    for name, numbers in sorted(bought.items()):
        # Within a class all slots that are sold are alike: the order of ties decides who gets which.
        to_sell = sorted(members[name][: len(numbers)], key=lambda slot: (tie(slot.ask.id), slot.place))
        matches += [(bids[number], name, slot) for number, slot in zip(numbers, to_sell, strict=True)]
        surplus += int(value[numbers].sum()) - sum(costs[name][: len(numbers)])
    left = set(np.flatnonzero(class_of_bid < 0).tolist())
    could_pay = set(arcs.bid.tolist()) & left
    return Outcome(
        classes,
        price.tolist(),
        matches,
        outbid=[bids[n] for n in sorted(could_pay)],
        low=[bids[n] for n in sorted(left - could_pay - arcs.refused.keys())],
        refused={bids[n].id: reason for n, reason in arcs.refused.items()},
        surplus=surplus,
    )


def _classes(slots: Sequence[Slot], avoided: Collection[str]) -> tuple[list[TradeClass], list[list[Slot]]]:
    lots: dict[int, Lot] = {}  # by the identity of an ask's, since most share one
    same: dict[Lot, Lot] = {}
    members: dict[tuple[int, TradeClass], list[Slot]] = {}
    for slot in slots:
        if (lot := lots.get(id(slot.ask.lot))) is None:
            lot = rounded(slot.ask.lot)
            lot = lots[id(slot.ask.lot)] = same.setdefault(lot, lot)
        of = class_of(slot.ask, lot, slot.stake, slot.ask.provider in avoided)
        members.setdefault((id(lot), of), []).append(slot)
    return [of for _, of in members], list(members.values())


@dataclass(frozen=True)
class _Arcs:
    """From bids to groups; those on which no ask is cheap enough are left out."""

    bid: Ints
    group: Ints
    value: Ints
    refused: dict[int, Reason]


def _arcs(bids: Sequence[BidOffer], fitting: Fitting) -> _Arcs:
    refused: dict[int, Reason] = {}
    alike: dict[int, list[int]] = {}  # bids by the classes that they fit
    for number, bid in enumerate(bids):
        alike.setdefault(fitting.set_of(bid), []).append(number)
    parts: list[tuple[Ints, Ints, Ints]] = []
    for of, same in alike.items():
        if not of:
            refused.update((n, fitting.why_not(bids[n])) for n in same)
            continue
        options = fitting.options(of)
        speeds = [units_per_hour for units_per_hour, _ in options]
        countable = [n for n in same if hourly(bids[n], speeds[-1], fitting.tick) <= MAX_VALUE]
        refused.update(dict.fromkeys(set(same).difference(countable), Reason.RANGE))
        most = max((bids[n].limit * speeds[-1] + bids[n].units * fitting.tick for n in countable), default=0)
        exact = np.int64 if most < 1 << 63 else object  # Python's integers where the machine's are too small
        limit = np.array([bids[n].limit for n in countable], exact)
        units = np.array([bids[n].units * fitting.tick for n in countable], exact)
        value = (limit[:, None] * np.array(speeds, exact) // units[:, None]).astype(np.int64)
        least = np.array([min(fitting.cheapest[n] for n in fitting.groups[group]) for _, group in options])
        row, column = np.nonzero(value >= least)
        into = np.array([group for _, group in options], np.int64)
        parts.append((np.array(countable, np.int64)[row], into[column], value[row, column]))
    none = np.zeros(0, np.int64)
    of_bid, of_group, of_value = (
        (np.concatenate([none, *of]) for of in zip(*parts, strict=True)) if parts else (none,) * 3
    )
    # By bid: which of equal solutions the solver finds depends on the order of arcs.
    order = np.argsort(of_bid, kind="stable")
    return _Arcs(of_bid[order], of_group[order], of_value[order], refused)


def _flow(
    bids: int, groups: Sequence[tuple[int, ...]], costs: Sequence[Sequence[int]], arcs: _Arcs
) -> tuple[NDArray[np.intp], Ints]:
    """Numbers of the arcs from bids that are used, and each bid's class, or -1."""
    class_of_bid = np.full(bids, -1)
    if not len(arcs.bid):
        return np.zeros(0, np.intp), class_of_bid
    trading, from_bid = np.unique(arcs.bid, return_inverse=True)
    at_group, at_class = len(trading), len(trading) + len(groups)
    sink = at_class + len(costs)
    if sink >= MAX_NODES:
        raise UserError(
            f"{sink + 1} orders and classes of one lot size are more than one auction can count with ({MAX_NODES})",
            "Let orders expire sooner, or run another market for a part of them.",
        )
    best = np.zeros(len(costs), np.int64)  # value in each class; dearer slots can't be sold
    best_of_group = np.zeros(len(groups), np.int64)
    np.maximum.at(best_of_group, arcs.group, arcs.value)
    for value, group in zip(best_of_group.tolist(), groups, strict=True):
        best[list(group)] = np.maximum(best[list(group)], value)
    sold_at = [
        (at_class + n, len(list(equal)), price)
        for n, of in enumerate(costs)
        for price, equal in groupby(of[: bisect_right(of, best[n])])
    ]
    within = [(at_group + n, at_class + of) for n, group in enumerate(groups) for of in group]
    inner, outer = np.array(within, np.int64), np.array(sold_at, np.int64)
    some, idle = np.ones(len(arcs.bid), np.int64), np.ones(len(trading), np.int64)

    flow = min_cost_flow.SimpleMinCostFlow()
    flow.add_arcs_with_capacity_and_unit_cost(from_bid, at_group + arcs.group, some, -arcs.value)
    flow.add_arcs_with_capacity_and_unit_cost(np.arange(len(trading)), idle * sink, idle, idle * 0)
    flow.add_arcs_with_capacity_and_unit_cost(
        inner[:, 0], inner[:, 1], np.full(len(inner), len(trading)), np.zeros(len(inner), np.int64)
    )
    flow.add_arcs_with_capacity_and_unit_cost(outer[:, 0], np.full(len(outer), sink), outer[:, 1], outer[:, 2])
    flow.set_nodes_supplies(np.append(np.arange(len(trading)), sink), np.append(idle, -len(trading)))
    status = flow.solve()
    if status != flow.OPTIMAL:
        raise RuntimeError(f"the solver ended with {status}")
    flows = flow.flows(np.arange(flow.num_arcs()))
    chosen = np.flatnonzero(flows[: len(arcs.bid)])
    began = len(arcs.bid) + len(trading)
    spread = np.repeat(inner[:, 1] - at_class, flows[began : began + len(inner)])  # classes, as groups send to them
    by_group = chosen[np.argsort(arcs.group[chosen], kind="stable")]
    class_of_bid[arcs.bid[by_group]] = spread
    return chosen, class_of_bid


def _match_equals(trades: Trades, price: Ints, sold: Ints, costs: Sequence[Sequence[int]]) -> None:
    """Bids that can pay just what an ask takes add nothing to the surplus, but both would rather trade."""
    cheapest = np.full(trades.groups, FAR)
    np.minimum.at(cheapest, trades.member_group, price[trades.member_class])
    idle = (trades.bid_class[trades.arc_bid] < 0) & (trades.arc_value == cheapest[trades.arc_group])
    for arc in np.flatnonzero(idle).tolist():
        bid, group, value = (int(of[arc]) for of in (trades.arc_bid, trades.arc_group, trades.arc_value))
        if trades.bid_class[bid] >= 0:
            continue
        for of in trades.member_class[trades.member_group == group].tolist():
            if price[of] == value and sold[of] < len(costs[of]) and costs[of][sold[of]] == value:
                trades.bid_class[bid] = of
                trades.bid_value[bid] = value
                sold[of] += 1
                break
