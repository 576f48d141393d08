"""Two market processes on one database get the same request at once: one of them answers it."""

import threading
from types import SimpleNamespace
from typing import Any

from contracts.api.problems import Problem
from market.api import idempotency
from market.store.db import Database


def test_one_of_two_processes_goes_on(db: Database) -> None:
    other = Database(db.engine.url.render_as_string(hide_password=False))
    results: list[str] = []
    together = threading.Barrier(2)

    def begin(database: Database) -> None:
        market: Any = SimpleNamespace(db=database)
        together.wait()
        try:
            idempotency._begin(market, "key", "/v1/bids", "0x12")
            results.append("goes on")
        except Problem as problem:
            results.append(problem.code)

    threads = [threading.Thread(target=begin, args=(one,)) for one in (db, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert sorted(results) == ["goes on", "request_in_progress"]
