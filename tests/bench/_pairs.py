"""What `matching` compares the auction with: all pairs of a book written out, and three other ways to match them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from market.matching import AskOffer, BidOffer, Book

SIZE = {1: 1, 2: 2, 4: 4, 8: 8}


def leading(value: int, bits: int) -> int:
    digits = f"{value:b}"
    return int(digits[:bits].ljust(len(digits), "0"), 2)


@dataclass(frozen=True)
class Pairs:
    """All pairs of one lot size and rule-set that fit and gain: bid's number, ask's number, gain in ticks per hour."""

    bid: NDArray[np.int64]
    ask: NDArray[np.int64]
    gain: NDArray[np.int64]


def written_out(book: Book, true_speed: bool = False) -> list[Pairs]:
    """The pairs' gains at the classes' speeds and stakes, or at the machines' own."""
    found = []
    for rules in sorted({ask.lot.rules for ask in book.asks}):
        for size in SIZE:
            bids = [n for n, bid in enumerate(book.bids) if (bid.needs.rules, bid.needs.gpus) == (rules, size)]
            asks = [n for n, ask in enumerate(book.asks) if (ask.lot.rules, ask.lot.gpus) == (rules, size)]
            found.append(_pairs(book, bids, asks, true_speed))
    return found


def _pairs(book: Book, bids: list[int], asks: list[int], true_speed: bool) -> Pairs:
    offers = [book.asks[n] for n in asks]
    speed = np.array([ask.units_per_hour if true_speed else leading(ask.units_per_hour, 6) for ask in offers], np.int64)
    memory = np.array([leading(ask.lot.memory_mb, 4) for ask in offers], np.int64)
    vram = np.array([ask.lot.vram_mb for ask in offers], np.int64)
    tier = np.array([ask.lot.tier for ask in offers], np.int64)
    price = np.array([ask.price_per_hour for ask in offers], np.int64)
    stake = np.array([ask.max_stake for ask in offers], np.int64)
    device = np.array([ask.lot.device for ask in offers])
    region = np.array([ask.lot.region for ask in offers])
    rows, columns, gains = [], [], []
    for number in bids:
        bid = book.bids[number]
        needs = bid.needs
        fits = (memory >= needs.memory_mb) & (vram >= needs.vram_mb) & (tier >= needs.tier) & (stake >= bid.stake)
        fits &= speed * (bid.timeout or 0) >= bid.units * 3600
        if needs.devices:
            fits &= np.isin(device, sorted(needs.devices))
        if needs.regions:
            fits &= np.isin(region, sorted(needs.regions))
        gain = bid.limit * speed // bid.units - price
        chosen = np.flatnonzero(fits & (gain > 0))
        rows.append(np.full(len(chosen), number))
        columns.append(np.array(asks, np.int64)[chosen])
        gains.append(gain[chosen])
    none = np.zeros(0, np.int64)
    return Pairs(*(np.concatenate([none, *of]) for of in (rows, columns, gains)))


def optimum(pairs: Pairs) -> int:
    """The greatest sum of gains, by scipy's sparse assignment (a shortest augmenting path, no flow)."""
    if not len(pairs.bid):
        return 0
    bids, row = np.unique(pairs.bid, return_inverse=True)
    asks, column = np.unique(pairs.ask, return_inverse=True)
    # Each bid has a place of its own, in which it gains nothing. Weights must not be 0, so all are moved by one.
    top = int(pairs.gain.max()) + 1
    weight = np.concatenate([top - pairs.gain, np.full(len(bids), top)]).astype(np.float64)
    rows = np.concatenate([row, np.arange(len(bids))])
    columns = np.concatenate([column, len(asks) + np.arange(len(bids))])
    chosen = min_weight_full_bipartite_matching(csr_array((weight, (rows, columns))))
    matrix = csr_array((pairs.gain, (row, column)), shape=(len(bids), len(asks) + len(bids)))
    return int(matrix[chosen[0], chosen[1]].sum())


def first_come_cheapest(pairs: Pairs, price: NDArray[np.int64]) -> int:
    """Bids in their order, each to the cheapest ask that fits and is left. The sum of gains."""
    order = np.lexsort((price[pairs.ask], pairs.bid))
    taken: set[int] = set()
    done, total = -1, 0
    for bid, ask, gain in zip(
        pairs.bid[order].tolist(), pairs.ask[order].tolist(), pairs.gain[order].tolist(), strict=True
    ):
        if bid != done and ask not in taken:
            taken.add(ask)
            done, total = bid, total + gain
    return total


def pairwise(book: Book, bids: int) -> int:
    """A plain loop, as this market had it before the auction: the oldest bid first, over all offers, to the cheapest.

    It heeds all that the auction heeds, and finds for who is left how far its best offer came, check by check. Only the
    first `bids` are matched; each takes about as long. Returns the number of matches.
    """
    free, active = dict(book.free), dict(book.active)
    matches = 0
    for bid in book.bids[:bids]:
        best: AskOffer | None = None
        furthest = -1
        for ask in book.asks:
            passed = _checks_passed(bid, ask, free, active)
            furthest = max(furthest, passed)
            if passed == CHECKS and (best is None or ask.price_per_hour < best.price_per_hour):
                best = ask
        if best is not None:
            matches += 1
            active[best.provider] = active.get(best.provider, 0) + 1
            free[best.provider] -= bid.stake
    return matches


CHECKS = 14


def _checks_passed(bid: BidOffer, ask: AskOffer, free: dict[str, int], active: dict[str, int]) -> int:
    """How many checks the pair passes before the first that it fails."""
    needs, lot = bid.needs, ask.lot
    checks = (
        lambda: lot.rules == needs.rules,
        lambda: lot.gpus == needs.gpus,
        lambda: needs.environment in lot.environments,
        lambda: not needs.devices or lot.device in needs.devices,
        lambda: lot.vram_mb >= needs.vram_mb,
        lambda: lot.memory_mb >= needs.memory_mb,
        lambda: not needs.regions or lot.region in needs.regions,
        lambda: lot.tier >= needs.tier,
        lambda: needs.hosts <= lot.hosts,
        lambda: ask.max_stake >= bid.stake,
        lambda: ask.units_per_hour >= max(bid.lowest_speed, bid.deadline_speed),
        lambda: ask.price_per_hour * bid.units <= bid.limit * ask.units_per_hour,
        lambda: lot.wants.objection(bid.client, bid.recipe, ask.price(ask.price_per_hour, bid.units)) is None,
        lambda: active.get(ask.provider, 0) < ask.max_active and free.get(ask.provider, 0) >= bid.stake,
    )
    for passed, check in enumerate(checks):
        if not check():
            return passed
    return CHECKS
