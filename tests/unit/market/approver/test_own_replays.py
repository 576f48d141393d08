"""Replays on the approver's own machine: one at a time, and a slow one is no reason to wait."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eth_account import Account
from nacl.public import PrivateKey

from contracts.audits.cases import Replayed
from contracts.settings import load_settings
from market.approver.auditing import own_replays
from market.approver.auditing.own_replays import OwnReplays
from tests.support.whole_market import wait_for


def claim(tip: str) -> Any:
    return SimpleNamespace(claim=SimpleNamespace(tip=tip, n=1), job="0x")


def test_what_waits_behind_a_slow_one_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_replays, "QUEUE_SECONDS", 0.5)
    begun, over = threading.Event(), threading.Event()

    class Slow(OwnReplays):
        def _replay(self, claim: Any, seconds: float) -> Replayed:
            begun.set()
            over.wait(60)
            return Replayed("equal")

    own = Slow(load_settings(), "http://market.test", Account.create(), PrivateKey.generate(), tmp_path)
    assert own.answer(claim("slow"), 60) is None
    assert begun.wait(30)
    assert own.answer(claim("next"), 60) is None
    wait_for("others", lambda: own.answer(claim("next"), 60) == Replayed("stalled"))
    assert own.answer(claim("slow"), 60) is None  # it runs
    over.set()
    wait_for("its end", lambda: own.answer(claim("slow"), 60) == Replayed("equal"))
    own.close()
