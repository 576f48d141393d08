"""Connections of the market's HTTP server: how many there may be, how long they may take, how much a request's head may
have. uvicorn limits none of it, and a stranger needs no key for any.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from contracts.api.problems import Code, Problem
from contracts.strict_json import write_json
from market.api.rate_limits import network_of

MAX_URL = 8_192  # bytes
MAX_HEADERS = 100  # lines
MAX_HEAD = 32_768  # bytes of request line and headers
MAX_PIPELINED = 16  # requests that wait for the one before on a connection
MAX_PIECES, LEAST_PIECE = 4_096, 64  # chunks of a body; with more of them they have so many bytes on average
BLOBS = b"/v1/blobs/"  # whose bodies may be as long as a blob takes

LOOK_SECONDS = 1.0  # between two looks at all connections
HEAD_SECONDS = 10.0  # for a request's head, from its first byte; and for the first request of a connection
BODY_SECONDS = 60.0  # for a whole body, but of a blob
IDLE_SECONDS = 20.0  # in which something of a body must come
LINGER_SECONDS = 5.0  # in which the rest of a body may come whose request has been answered
MAX_REST = 262_144  # bytes of it that are taken in
UNREAD_SECONDS = 120.0  # in which a client must take in some of its answer


# What a connection is used for: those with a lower number make room for new ones first.
HALF_A_HEAD, BETWEEN_REQUESTS, STALLED_BODY, IN_USE = range(4)

_LATER = "Try again in a moment."


@dataclass
class Connections:
    """All that this process has now. For the event loop's thread only."""

    most: int
    most_of_address: int
    _open: dict["BoundedProtocol", None] = field(default_factory=dict)  # the oldest first
    _by_network: Counter[str] = field(default_factory=Counter)
    _looking: asyncio.TimerHandle | None = None

    def enter(self, new: "BoundedProtocol") -> bool:
        """Whether there is room for it; if need be, in place of one that asks for nothing."""
        is_full = len(self._open) >= self.most
        if is_full or self._by_network[new.network] >= self.most_of_address:
            least = self._least_used(None if is_full else new.network)
            if least is None:
                return False
            self.leave(least)
            least.hang_up()
        self._open[new] = None
        self._by_network[new.network] += 1
        if self._looking is None:
            self._looking = new.loop.call_later(LOOK_SECONDS, self._look, new.loop)
        return True

    def leave(self, old: "BoundedProtocol") -> None:
        if old in self._open:
            del self._open[old]
            self._by_network[old.network] -= 1
            if not self._by_network[old.network]:
                del self._by_network[old.network]

    def _least_used(self, network: str | None) -> "BoundedProtocol | None":
        """The oldest of those that can best be done without; None if all are in use. `network`: only of this one."""
        found, lowest = None, IN_USE
        for one in self._open:
            if network in (None, one.network) and (use := one.use) < lowest:
                found, lowest = one, use
                if lowest == HALF_A_HEAD:
                    break  # there are many, if somebody makes them on purpose
        return found

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        for one in list(self._open):
            if one.is_late(now):
                one.hang_up()
        self._looking = loop.call_later(LOOK_SECONDS, self._look, loop) if self._open else None


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's, with limits."""

    def __init__(self, connections: Connections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.network = ""
        self._connections = connections
        self._in_head = self._in_body = False  # of the request that comes just now
        self._head_bytes = self._pieces = self._in_pieces = 0  # of a body: pieces, and bytes in them
        self._problem: Problem | None = None  # with what came
        self._began = self._heard = time.monotonic()  # the request; the last bytes
        self._answered: float | None = None  # when the request was, whose body still comes
        self._rest = 0  # bytes of that
        self._unread: float | None = None  # since when the client takes nothing in

    # ------------------------------------------------------------- life of a connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.network = network_of(self.client[0]) if self.client else ""
        if not self._connections.enter(self):
            self._refuse(
                Problem(503, Code.TOO_MANY_REQUESTS, "this market has too many connections", _LATER, retry_after=1)
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.leave(self)
        super().connection_lost(exc)

    def hang_up(self) -> None:
        self.transport.abort()

    @property
    def use(self) -> int:
        if self._in_body:
            return STALLED_BODY if time.monotonic() - self._heard > LINGER_SECONDS else IN_USE
        if self.cycle is not None and not self.cycle.response_complete:
            return IN_USE
        return HALF_A_HEAD if self._in_head or self.cycle is None else BETWEEN_REQUESTS

    def is_late(self, now: float) -> bool:
        """Whether the client takes longer than anybody needs."""
        if self._unread is not None and now - self._unread > UNREAD_SECONDS:
            return True
        if self._in_body:
            if self._answered is not None:
                return now - self._answered > LINGER_SECONDS
            if self.flow.read_paused:  # it is we who do not listen
                return False
            is_blob = self.scope["raw_path"].startswith(BLOBS)
            return now - self._heard > IDLE_SECONDS or (not is_blob and now - self._began > BODY_SECONDS)
        return (self._in_head or self.cycle is None) and now - self._began > HEAD_SECONDS

    # ------------------------------------------------------------- what comes

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._heard = time.monotonic()
        if self._answered is not None:
            self._rest += len(data)
            if self._rest > MAX_REST:
                self.flow.pause_reading()
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._refuse(_head_too_large())

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._problem or Problem(400, Code.VALIDATION_FAILED, "this is not HTTP/1.1"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._pieces = self._in_pieces = 0
        self._began, self._answered = time.monotonic(), None

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL:
            self._stop(Problem(414, Code.VALIDATION_FAILED, f"the URL has more than {MAX_URL} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._stop(_head_too_large())

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            self._stop(_head_too_large())
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(
                Problem(429, Code.TOO_MANY_REQUESTS, f"more than {MAX_PIPELINED} requests wait", _LATER, retry_after=1)
            )
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pieces += 1
        self._in_pieces += len(body)
        if self._pieces > MAX_PIECES and self._in_pieces < self._pieces * LEAST_PIECE:
            self._stop(
                Problem(400, Code.VALIDATION_FAILED, f"the body comes in pieces of less than {LEAST_PIECE} bytes")
            )
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _stop(self, problem: Problem) -> None:
        """From a callback of the parser, which ends with it."""
        self._problem = problem
        raise problem

    def _refuse(self, problem: Problem) -> None:
        """Answer, unless another answer is under way here, and hang up."""
        waits = self._in_body and not self.pipeline and not self.cycle.response_started
        if waits:  # its route has no more to say
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.cycle is None or self.cycle.response_complete or waits:
            body = write_json(problem.body()).encode()
            head = b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n" % len(body)
            if "retry_after" in problem.extra:
                head += b"retry-after: %d\r\n" % problem.extra["retry_after"]
            self.transport.write(STATUS_LINE[problem.status] + head + b"\r\n" + body)
        self.transport.close()

    # ------------------------------------------------------------- what goes

    def on_response_complete(self) -> None:
        if self._in_body and self.cycle.response_complete:
            self._answered, self._rest = time.monotonic(), 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._unread = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread = None
        super().resume_writing()


def _head_too_large() -> Problem:
    return Problem(
        431, Code.VALIDATION_FAILED, f"the request's head has more than {MAX_HEADERS} lines or {MAX_HEAD} bytes"
    )
