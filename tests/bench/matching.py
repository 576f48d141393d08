"""The auction on books of real GPU models (tests/books.py): how good, how fast, how large.

surplus_ratio      its surplus over an optimum of the same integers, found from all pairs by another solver; must be 1
bucket_loss        share of the surplus at the machines' own speeds that rounding them to classes gives away
surplus_over_fifo  its surplus over that of first come, cheapest first
speedup_vs_pairwise  a plain loop over all offers, oldest bid first, over the auction: time
solve_seconds      of one epoch, all lot sizes, prices included; processor time
verify_over_solve  the verifier's time over it
permutation        1 if the orders backwards give the same matches and prices
peak_mb            memory of a process that makes the book and clears it, at 100k orders a side
"""

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from market.matching import Book, Result, clear
from market.matching.verifier import Claimed, lies
from tests.bench import Figure, report
from tests.bench._pairs import first_come_cheapest, optimum, pairwise, written_out
from tests.books import random_book

SEED, BOOK = b"seed", 7
PEAK = """
from market.matching import clear
from tests.books import random_book
clear(random_book({n}, {n}, {book}), b"seed")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
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
            pairwise(book)
            yield f"speedup_vs_pairwise_{name}", (time.process_time() - began) / solve, "times"
    code = PEAK.format(n=100_000, book=BOOK)
    peak = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    yield "peak_mb_100k", int(peak) / 1024, "MB"


def verified(book: Book, result: Result) -> float:
    """Seconds of processor time. Raises RuntimeError if the verifier objects."""
    told = [Claimed(one.bid.id, one.ask.id, one.place, one.price) for one in result.matches]
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
