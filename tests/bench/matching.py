"""The auction on books of real GPU models (tests/support/gpu_books.py): how good, how fast, how large.

surplus_ratio      its surplus over an optimum of the same integers, found from all pairs by another solver; must be 1
bucket_loss        share of the surplus at the machines' own speeds that rounding them to classes gives away
surplus_over_fifo  its surplus over that of first come, cheapest first
speedup_vs_pairwise  a plain loop over all offers, oldest bid first, over the auction: time (of a tenth of the bids)
solve_seconds      of one epoch, all lot sizes, prices included; processor time
verify_over_solve  the verifier's time over it
permutation        1 if the orders backwards give the same matches and prices
touched_over_full  the next epoch's time, when what was not matched rests and 100 orders in one lot size are new
touched_over_again   that time over what it takes to solve all of the next epoch; the matches are the same
nothing_new        seconds to find that an epoch has nothing to solve
peak_mb            memory of a process that makes the book, clears it and verifies it, at 100k orders a side
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from market.matching import Book, Result, clear, touched
from market.matching.verifier import ClaimedMatch, lies
from tests.bench import Figure, report
from tests.bench._pairs import first_come_cheapest, optimum, pairwise, written_out
from tests.support.gpu_books import RULES, random_book

SEED, BOOK = b"seed", 7
PEAK = """
import re
from tests.bench.matching import BOOK, SEED, clear, random_book, verified
book = random_book(100_000, 100_000, BOOK)
verified(book, clear(book, SEED))
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])  # getrusage's is the parent's, if higher
"""


def main(json: bool) -> None:
    report(measure(), json)


def measure() -> Iterator[Figure]:
    for name, orders in (("1k", 1_000), ("10k", 10_000), ("100k", 100_000)):
        book = random_book(orders, orders, BOOK)
        began = time.process_time()
        result = clear(book, SEED)
        solve = time.process_time() - began
        yield f"solve_seconds_{name}", solve, "s"
        yield f"matches_{name}", len(result.matches), "leases"
        yield f"verify_over_solve_{name}", verified(book, result) / solve, "times"
        backwards = clear(Book(book.bids[::-1], book.asks[::-1], book.free), SEED)
        yield f"permutation_{name}", int(backwards == result), "1 if equal"
        if orders <= 10_000:
            pairs = written_out(book)
            yield f"surplus_ratio_{name}", result.surplus / sum(map(optimum, pairs)), "times"
            yield f"bucket_loss_{name}", bucket_loss(book, result), "share"
            price = np.array([ask.price_per_hour for ask in book.asks])
            fifo = sum(first_come_cheapest(of, price) for of in pairs)
            yield f"surplus_over_fifo_{name}", result.surplus / fifo, "times"
        if orders == 10_000:
            began = time.process_time()
            pairwise(book, orders // 10)
            yield f"speedup_vs_pairwise_{name}", 10 * (time.process_time() - began) / solve, "times"
        if orders == 100_000:
            yield from next_epoch(book, result, name, solve)
    peak = subprocess.run([sys.executable, "-c", PEAK], stdout=subprocess.PIPE, text=True, check=True).stdout
    yield "peak_mb_100k", int(peak) / 1024, "MB"


def next_epoch(book: Book, result: Result, name: str, solve: float) -> Iterator[Figure]:
    """What `result` leaves of a book, and 50 new bids and asks for machines with two GPUs."""
    matched = {one.bid.id for one in result.matches} | {one.ask.id for one in result.matches}
    left = replace(
        book,
        bids=tuple(bid for bid in book.bids if bid.id not in matched),
        asks=tuple(ask for ask in book.asks if ask.id not in matched),
    )
    began = time.process_time()
    if touched(left, result.resting):
        raise RuntimeError("what is left is touched, though nothing is new")
    yield f"nothing_new_seconds_{name}", time.process_time() - began, "s"
    more = random_book(1000, 1000, BOOK + 1)
    bids = [bid for bid in more.bids if bid.needs.pool == (RULES[0], 2)][:50]
    asks = [ask for ask in more.asks if ask.lot.pool == (RULES[0], 2)][:50]
    following = Book(
        (*left.bids, *(replace(bid, id=f"new {bid.id}", client=f"new {bid.client}") for bid in bids)),
        (*left.asks, *(replace(ask, id=f"new {ask.id}", provider=f"new {ask.provider}") for ask in asks)),
        {
            **book.free,
            **{bid.client: 1 << 90 for bid in bids},
            **{f"new {ask.provider}": ask.max_stake for ask in asks},
        },
    )
    began = time.process_time()
    part = clear(following, SEED, before=result.resting)
    took = time.process_time() - began
    began = time.process_time()
    whole = clear(following, SEED)
    again = time.process_time() - began
    if part.matches != whole.matches or len(part.touched) != 1:
        raise RuntimeError(
            f"{len(part.touched)} sizes solved gave {len(part.matches)} leases, all {len(whole.matches)}"
        )
    yield f"touched_over_again_{name}", took / again, "times"
    yield f"touched_over_full_{name}", took / solve, "times"


def verified(book: Book, result: Result) -> float:
    """Seconds of processor time. Raises RuntimeError if the verifier objects."""
    told = [ClaimedMatch(one.bid.id, one.ask.id, one.place, one.price) for one in result.matches]
    began = time.process_time()
    found = list(lies(book, result.prices, told))
    took = time.process_time() - began
    if found:
        raise RuntimeError(f"{len(found)} objections, such as: {found[0]}")
    return took


def bucket_loss(book: Book, result: Result) -> float:
    best = sum(optimum(pairs) for pairs in written_out(book, true_speed=True))
    ours = sum(
        one.bid.limit * one.ask.units_per_hour // one.bid.units - one.ask.price_per_hour for one in result.matches
    )
    return 1 - ours / best
