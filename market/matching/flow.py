"""One size as a network, and its optimal flow.

    bid --(minus what it pays for an hour at this speed)--> group of classes of one speed --> class --(cost)--> sink

Bids that may trade in the same classes share groups, so there are about as many arcs as bids times speeds, and not
bids times asks. Who does not trade has an arc of its own to the sink, at no cost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import min_cost_flow

from contracts.errors import UserError
from market.matching.arcs import Arcs, arcs
from market.matching.book import BidOffer, Match, Prices, Reason, TradeClass
from market.matching.classes import MAX_VALUE, cost
from market.matching.fitting import Fitting, Ints
from market.matching.lot_sizes import Offered
from market.matching.prices import FAR, Trades, prices
from market.matching.reserve import Slot

MAX_NODES = 1 << 21  # the solver counts to the product of this and MAX_VALUE


@dataclass(frozen=True)
class Outcome:
    matches: Sequence[Match]
    prices: Prices
    reasons: dict[str, Reason]  # by bid
    surplus: int  # ticks per hour


@dataclass(frozen=True)
class _Supply:
    """Classes by number, slowest first, and their slots in one row: class by class, the cheapest first."""

    classes: Sequence[TradeClass]
    slots: Sequence[Slot]
    costs: Ints  # of each slot, ticks per hour; MAX_VALUE + 1 where it is more; FAR after the last
    slot_class: Ints  # of each slot
    starts: Ints  # of each class, the place of its first slot
    counts: Ints  # of each class, its slots

    def fitting(self, tick: int) -> Fitting:
        none_sold = np.zeros(len(self.classes), np.int64)
        return Fitting(self.classes, self.cheapest(none_sold).tolist(), tick)

    def dearest(self, sold: Ints) -> Ints:
        """Of each class's slots that are sold; 0 where none is."""
        return np.where(sold > 0, self.costs[self.starts + sold - 1], 0)

    def cheapest(self, sold: Ints) -> Ints:
        """Of each class's slots that are left; FAR where none is."""
        return np.where(sold < self.counts, self.costs[self.starts + sold], FAR)


def solve(offer: Offered, tie: Callable[[str], bytes], tick: int) -> Outcome:
    """`tie` puts ids into an order that no party can choose: it decides between equals."""
    bids = sorted(offer.bids, key=lambda bid: tie(bid.id))
    supply = _supply(offer.slots, tie, tick)
    fitting = supply.fitting(tick)
    into = arcs(bids, fitting)
    sizes = [len(group) for group in fitting.groups]
    member_group = np.repeat(np.arange(len(sizes)), sizes)
    member_class = np.concatenate([np.zeros(0, np.int64), *fitting.groups])
    chosen, class_of_bid = _flow(len(bids), into, member_group, member_class, supply)
    value = np.zeros(len(bids), np.int64)
    value[into.bid[chosen]] = into.value[chosen]

    sold = np.bincount(class_of_bid[class_of_bid >= 0], minlength=len(supply.classes))
    trades = Trades(
        member_group=member_group,
        member_class=member_class,
        arc_bid=into.bid,
        arc_group=into.group,
        arc_value=into.value,
        bid_class=class_of_bid,
        bid_value=value,
        dearest_sold=supply.dearest(sold),
        cheapest_left=supply.cheapest(sold),
        groups=len(sizes),
    )
    price = prices(trades)
    _match_equals(trades, price, sold, supply)

    matches = []
    buyers = np.argsort(class_of_bid, kind="stable")[np.count_nonzero(class_of_bid < 0) :].tolist()
    at = 0
    for number in np.flatnonzero(sold).tolist():
        start, count = int(supply.starts[number]), int(sold[number])
        # Within a class all slots that are sold are alike: the order of ties decides who gets which.
        to_sell = sorted(supply.slots[start : start + count], key=lambda slot: (tie(slot.ask.id), slot.place))
        per_hour = int(price[number]) * tick
        for buyer, slot in zip(buyers[at : at + count], to_sell, strict=True):
            bid = bids[buyer]
            matches.append(
                Match(bid, slot.ask, slot.ask.price(per_hour, bid.units), supply.classes[number], slot.place)
            )
        at += count
    is_sold = np.arange(len(supply.slots)) < (supply.starts + sold)[supply.slot_class]
    return Outcome(
        matches,
        dict(zip(supply.classes, price.tolist(), strict=True)),
        {bids[n].id: into.refused.get(bids[n].id, Reason.OUTBID) for n in np.flatnonzero(class_of_bid < 0).tolist()},
        surplus=int(value[class_of_bid >= 0].sum()) - int(supply.costs[:-1][is_sold].sum()),
    )


def obstacles(bids: Sequence[BidOffer], slots: Mapping[TradeClass, Sequence[Slot]], tick: int) -> dict[str, Reason]:
    """By id: how far the best of some slots comes for a bid, if none of them is one that it could pay."""
    return arcs(bids, _supply(slots, str.encode, tick).fitting(tick)).refused if slots else {}


def _supply(members: Mapping[TradeClass, Sequence[Slot]], tie: Callable[[str], bytes], tick: int) -> _Supply:
    def rank(slot: Slot) -> tuple[int, bytes, int]:
        return slot.ask.price_per_hour, tie(slot.ask.id), slot.place

    rows = [(one, sorted(slots, key=rank)) for one, slots in members.items()]
    # A class's cheapest slot is in no other, so this is the same for any order of the orders.
    rows.sort(key=lambda row: (row[0].units_per_hour, *rank(row[1][0])))
    slots = [slot for _, own in rows for slot in own]
    counts = np.array([len(own) for _, own in rows], np.int64)
    return _Supply(
        [one for one, _ in rows],
        slots,
        costs=np.array([*(min(cost(slot.ask, tick), MAX_VALUE + 1) for slot in slots), FAR], np.int64),
        slot_class=np.repeat(np.arange(len(rows)), counts),
        starts=np.cumsum(counts) - counts,
        counts=counts,
    )


def _flow(
    bids: int, into: Arcs, member_group: Ints, member_class: Ints, supply: _Supply
) -> tuple[NDArray[np.intp], Ints]:
    """Numbers of the arcs from bids that are used, and each bid's class, or -1."""
    class_of_bid = np.full(bids, -1)
    if not len(into.bid):
        return np.zeros(0, np.intp), class_of_bid
    trading, from_bid = np.unique(into.bid, return_inverse=True)
    groups = int(member_group[-1]) + 1
    at_group, at_class = len(trading), len(trading) + groups
    sink = at_class + len(supply.classes)
    if sink >= MAX_NODES:
        raise UserError(
            f"{sink + 1} orders and classes of one lot size are more than one auction can count with ({MAX_NODES})",
            "Let orders expire sooner, or run another market for a part of them.",
        )
    best_of_group = np.zeros(groups, np.int64)
    np.maximum.at(best_of_group, into.group, into.value)
    best = np.zeros(len(supply.classes), np.int64)  # value in each class; dearer slots can't be sold
    np.maximum.at(best, member_class, best_of_group[member_group])
    can_be_sold = supply.costs[:-1] <= best[supply.slot_class]
    sells, price = supply.slot_class[can_be_sold], supply.costs[:-1][can_be_sold]
    first = np.flatnonzero(np.append(True, (sells[1:] != sells[:-1]) | (price[1:] != price[:-1])))
    equal = np.diff(np.append(first, len(sells)))  # slots of one class and price share an arc
    some, idle = np.ones(len(into.bid), np.int64), np.ones(len(trading), np.int64)

    flow = min_cost_flow.SimpleMinCostFlow()
    flow.add_arcs_with_capacity_and_unit_cost(from_bid, at_group + into.group, some, -into.value)
    flow.add_arcs_with_capacity_and_unit_cost(np.arange(len(trading)), idle * sink, idle, idle * 0)
    flow.add_arcs_with_capacity_and_unit_cost(
        at_group + member_group, at_class + member_class, np.full(len(member_group), len(trading)), member_group * 0
    )
    flow.add_arcs_with_capacity_and_unit_cost(at_class + sells[first], np.full(len(first), sink), equal, price[first])
    flow.set_nodes_supplies(np.append(np.arange(len(trading)), sink), np.append(idle, -len(trading)))
    status = flow.solve()
    if status != flow.OPTIMAL:
        raise RuntimeError(f"the solver ended with {status}")
    flows = flow.flows(np.arange(flow.num_arcs()))
    chosen = np.flatnonzero(flows[: len(into.bid)])
    began = len(into.bid) + len(trading)
    spread = np.repeat(member_class, flows[began : began + len(member_class)])  # classes, as groups send to them
    by_group = chosen[np.argsort(into.group[chosen], kind="stable")]
    class_of_bid[into.bid[by_group]] = spread
    return chosen, class_of_bid


def _match_equals(trades: Trades, price: Ints, sold: Ints, supply: _Supply) -> None:
    """Bids that can pay just what an ask takes add nothing to the surplus, but both would rather trade."""
    open = supply.cheapest(sold) == price  # classes with a slot to sell at just the price
    cheapest = np.full(trades.groups, FAR)
    still = open[trades.member_class]
    np.minimum.at(cheapest, trades.member_group[still], price[trades.member_class[still]])
    idle = (trades.bid_class[trades.arc_bid] < 0) & (trades.arc_value == cheapest[trades.arc_group])
    starts = np.searchsorted(trades.member_group, np.arange(trades.groups + 1))
    for arc in np.flatnonzero(idle).tolist():
        bid, group, value = (int(column[arc]) for column in (trades.arc_bid, trades.arc_group, trades.arc_value))
        if trades.bid_class[bid] >= 0:
            continue
        for number in trades.member_class[starts[group] : starts[group + 1]].tolist():
            if open[number] and price[number] == value:
                trades.bid_class[bid] = number
                trades.bid_value[bid] = value
                sold[number] += 1
                left = supply.starts[number] + sold[number]
                open[number] = sold[number] < supply.counts[number] and supply.costs[left] == price[number]
                break
