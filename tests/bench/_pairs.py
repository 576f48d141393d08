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


def pairwise(book: Book) -> int:
    """A plain loop, as peers have it: the oldest bid first, over all offers, to the cheapest that fits. Matches."""
    left: list[AskOffer | None] = list(book.asks)
    matches = 0
    for bid in book.bids:
        best = None
        for number, ask in enumerate(left):
            if ask is not None and _fits(bid, ask) and (best is None or ask.price_per_hour < best[0]):
                best = (ask.price_per_hour, number)
        if best is not None:
            left[best[1]] = None
            matches += 1
    return matches


def _fits(bid: BidOffer, ask: AskOffer) -> bool:
    needs, lot = bid.needs, ask.lot
    return (
        lot.rules == needs.rules
        and lot.gpus == needs.gpus
        and (not needs.devices or lot.device in needs.devices)
        and lot.vram_mb >= needs.vram_mb
        and lot.memory_mb >= needs.memory_mb
        and (not needs.regions or lot.region in needs.regions)
        and lot.tier >= needs.tier
        and ask.max_stake >= bid.stake
        and ask.price_per_hour * bid.units <= bid.limit * ask.units_per_hour
    )
