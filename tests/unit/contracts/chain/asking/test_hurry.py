"""A silent node is asked for strangers by few, and then by nobody for a while."""

import threading

import pytest

from contracts.chain.asking import hurry
from contracts.chain.asking.hurry import Gate, current_gate, hurried


def test_after_no_answer_it_is_left_alone_and_then_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("contracts.chain.asking.hurry.time", type("clock", (), {"monotonic": lambda: clock[0]}))
    gate = Gate()
    assert gate.enter() is None
    gate.leave(answered=True)
    assert gate.enter() is None
    gate.leave(answered=False)
    assert gate.enter() == "it gave no answer a moment ago"
    clock[0] += hurry.REST_SECONDS
    assert gate.enter() is None
    assert gate.enter() is not None  # one finds out for all
    gate.leave(answered=True)
    assert gate.enter() is None


def test_no_more_at_once_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hurry, "WAIT_SECONDS", 0.01)
    gate = Gate()
    assert [gate.enter() for _ in range(hurry.AT_ONCE)] == [None] * hurry.AT_ONCE
    assert gate.enter() == f"{hurry.AT_ONCE} questions are waiting for its answers"
    gate.leave(answered=True)
    assert gate.enter() is None


def test_only_what_strangers_want_goes_through_it() -> None:
    gate, seen = Gate(), []
    with hurried(gate):
        assert current_gate() is gate
        thread = threading.Thread(target=lambda: seen.append(current_gate()))  # as the indexer's
        thread.start()
        thread.join()
    assert current_gate() is None
    assert seen == [None]
