"""A node that is asked because strangers want something: shortly, by few at once, and not while it is silent."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

AT_ONCE = 16  # questions
SECONDS = 3.0  # for an answer
WAIT_SECONDS = 1.0  # until others have theirs
REST_SECONDS = 5.0  # in which a node that gave none is left alone


class Gate:
    """What one process may ask of one node for strangers. Threads share it."""

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._silent_until: float | None = None  # monotonic; None: it answers

    def enter(self) -> str | None:
        """Why it may not be asked now; None if it may: then `leave` must follow."""
        if not self._may_try():
            return "it gave no answer a moment ago"
        if not self._room.acquire(timeout=WAIT_SECONDS):
            return f"{AT_ONCE} questions are waiting for its answers"
        return None

    def leave(self, answered: bool) -> None:
        self._room.release()
        with self._lock:
            self._silent_until = None if answered else time.monotonic() + REST_SECONDS

    def _may_try(self) -> bool:
        """Of a silent node one finds out, after each rest, whether it answers again."""
        with self._lock:
            now = time.monotonic()
            if self._silent_until is None:
                return True
            if now < self._silent_until:
                return False
            self._silent_until = now + REST_SECONDS
            return True


_gate: ContextVar[Gate | None] = ContextVar("gate", default=None)


def current_gate() -> Gate | None:
    return _gate.get()


@contextmanager
def hurried(gate: Gate) -> Iterator[None]:
    """What is asked in here, and in threads that this context is copied to, goes through the gate."""
    before = _gate.set(gate)
    try:
        yield
    finally:
        _gate.reset(before)
