"""Ends a connection from another thread: when the worker is to stop, or when the other side takes too long.

A server that sends a byte now and then, endless headers, or `100 Continue` for ever keeps each single read within its
timeout. So somebody else looks at the clock, and shuts the socket down under whoever reads.
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from contracts.errors import UserError

HEAD_SECONDS = 30.0  # for name, connections, redirects and the answer's head, all together
WINDOW_SECONDS = 30.0  # in each of which the body must bring its least
LEAST_SPEED = 4096  # bytes a second
LOOK_SECONDS = 0.1

T = TypeVar("T")


class Interrupted(UserError):
    """The worker was told to stop meanwhile."""


class ConnectionGuard:
    """Watches one download while it is entered."""

    def __init__(self, url: str, stopped: Callable[[], bool]) -> None:
        self._url, self._stopped = url, stopped
        self._late = time.monotonic() + HEAD_SECONDS
        self._received: int | None = None  # bytes in this window; None before the body
        self._why = ""  # it was ended
        self._socket: socket.socket | None = None
        self._lock, self._over = threading.Lock(), threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="download guard", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._lock:
            self._drop()

    def check(self) -> None:
        """Raises Interrupted if the worker is to stop, OSError if this took too long."""
        if self._stopped():
            raise Interrupted(f"the fetching of {self._url} was interrupted")
        if self._why:
            raise OSError(self._why)

    def wait_for(self, act: Callable[[], T]) -> T:
        """What `act` returns or raises; nobody waits for it longer than for anything else. It may write no files."""
        results: list[T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                results.append(act())
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="download start", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            self.check()
        for error in errors:
            raise error
        return results[0]

    def hold(self, connected: socket.socket) -> None:
        """From now on this is the connection. A descriptor of its own: TLS moves the socket's to another object."""
        with self._lock:
            self._drop()
            self._socket = connected.dup()
        self.check()

    def body_begins(self) -> None:
        self.check()
        self._received, self._late = 0, time.monotonic() + WINDOW_SECONDS

    def received(self, count: int) -> None:
        """Bytes of the file itself: what stands around them is no progress."""
        self._received = (self._received or 0) + count
        self.check()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._why = self._why or self._too_slow()
            if self._why or self._stopped():
                with self._lock, suppress(OSError):
                    if self._socket is not None:
                        self._socket.shutdown(socket.SHUT_RDWR)

    def _too_slow(self) -> str:
        if time.monotonic() < self._late:
            return ""
        if self._received is None:
            return f"no answer within {HEAD_SECONDS:.0f} s"
        if self._received < LEAST_SPEED * WINDOW_SECONDS:
            return f"{self._received} bytes in {WINDOW_SECONDS:.0f} s, which is too slow"
        self._received, self._late = 0, time.monotonic() + WINDOW_SECONDS
        return ""

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
