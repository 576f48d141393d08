"""Watching for another agent of the same key: what its thread leaves when it ends."""

import pytest

from contracts.api.client import MarketClient
from worker.agent.copies import CopyWatch


def test_its_client_is_closed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    market = MarketClient("http://127.0.0.1:1", attempts=1)
    watch = CopyWatch(market, None, None, None, 0.2, lambda: None)  # type: ignore[arg-type]
    monkeypatch.setattr(watch, "_look", watch.close)
    watch.start()
    watch.join(30)
    with pytest.raises(RuntimeError, match="closed"):
        market.info()
