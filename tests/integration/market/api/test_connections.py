"""What strangers do with connections: many, endless, half, slow. Beside each, others are answered."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn

from market.api import connections
from market.api.connections import MAX_HEAD, MAX_PIPELINED, MAX_URL, BoundedProtocol, Connections
from tests.support.whole_market import wait_for

HEAD = b"POST /echo HTTP/1.1\r\nhost: a\r\n"


async def echo(slow: threading.Event, scope: Any, receive: Any, send: Any) -> None:
    """Answers /refused at once, /slow when it is told to, and all else when its body is there."""
    more = scope["path"] != "/refused"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    while scope["path"] == "/slow" and not slow.is_set():  # noqa: ASYNC110 (another thread sets it)
        await asyncio.sleep(0.01)
    body = b"x" * (4 << 20) if scope["path"] == "/large" else b"ok"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Served:
    def __init__(self, port: int, held: Connections, slow: threading.Event) -> None:
        self.port, self.held, self.slow = port, held, slow

    def connect(self, first: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(first)
        return connection

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        finally:
            connection.close()


@contextmanager
def serving(most: int = 50, most_of_address: int = 40) -> Iterator[Served]:
    held, slow = Connections(most, most_of_address), threading.Event()
    server = uvicorn.Server(
        uvicorn.Config(
            partial(echo, slow),
            http=partial(BoundedProtocol, held),
            interface="asgi3",
            ws="none",
            log_config=None,
            lifespan="off",  # type: ignore[arg-type]
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for("the server", lambda: server.started)
            yield Served(listening.getsockname()[1], held, slow)
        finally:
            slow.set()
            server.should_exit = server.force_exit = True
            thread.join(300)


def rest(connection: socket.socket) -> bytes:
    """All that still comes, until the other side hangs up."""
    found = b""
    try:
        while data := connection.recv(1 << 16):
            found += data
    except ConnectionError:
        pass
    return found


def pour(connection: socket.socket, piece: bytes, times: int) -> bytes:
    """The answer to more than anybody takes in."""
    try:
        for _ in range(times):
            connection.sendall(piece)
    except ConnectionError:
        pass
    return rest(connection)


@pytest.mark.parametrize(
    ("first", "piece", "status"),
    [
        (b"GET /?", b"x" * 65_536, 414),
        (b"GET /?" + b"x" * MAX_URL + b" HTTP/1.1\r\n\r\n", b"", 414),
        (b"GET / HTTP/1.1\r\nx: ", b"y" * 65_536, 431),
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 200, 431),
        (b"GET / HTTP/1.1\r\n" + b"x: %s\r\n" % (b"y" * 10_000) * 4 + b"\r\n", b"", 431),
        (b"NONSENSE\r\n\r\n", b"", 400),
    ],
)
def test_a_head_that_is_too_large(first: bytes, piece: bytes, status: int) -> None:
    with serving() as served, served.connect(first) as connection:
        head, _, body = pour(connection, piece, 100 if piece else 0).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert json.loads(body)["status"] == status
        assert served.answers()


def test_what_an_honest_head_has() -> None:
    with serving() as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        headers = {f"x-{number}": "y" * 200 for number in range(60)}
        connection.request("GET", "/?" + "x" * (MAX_URL - 10), headers=headers)
        assert connection.getresponse().status == 200
        connection.close()
    assert 60 * 210 + MAX_URL < MAX_HEAD


def test_requests_that_come_all_at_once() -> None:
    with serving() as served, served.connect() as connection:
        found = pour(connection, b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n" * 1_000, 10)
        assert found.count(b"HTTP/1.1 200") <= 1 + MAX_PIPELINED
        assert served.answers()


def test_many_half_requests_make_room_for_others() -> None:
    with serving(most=20, most_of_address=10) as served, ExitStack() as held:
        for _ in range(200):
            held.enter_context(served.connect(b"GET / HTTP/1.1\r\nx: y"))
            assert len(served.held._open) <= 10
        assert served.answers()


def test_those_who_wait_for_an_answer_are_not_sent_away() -> None:
    with serving(most=20, most_of_address=3) as served, ExitStack() as held:
        waiting = [held.enter_context(served.connect(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")) for _ in range(3)]
        wait_for("all in use", lambda: all(one.use == connections.IN_USE for one in list(served.held._open)))
        with served.connect() as refused:
            answer = rest(refused)
            assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1\r\n" in answer
        served.slow.set()
        for one in waiting:
            assert one.recv(100).startswith(b"HTTP/1.1 200 ")
        wait_for("an answer", served.answers)  # in place of one that has its answer


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET / HTTP/1.1\r\nx: y",
        HEAD + b"content-length: 1000\r\n\r\nsome",
        HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n",
        b"POST /refused HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nsome",
    ],
)
def test_what_does_not_go_on_is_hung_up_on(first: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_SECONDS", "IDLE_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(connections, name, 1.0)
    with serving() as served, served.connect(first) as connection:
        assert rest(connection).startswith(b"HTTP/1.1 200 ") is (b"refused" in first)
        assert served.answers()


def test_a_body_that_drips_ends_and_a_blob_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 2.0)
    chunked = b" HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    with (
        serving() as served,
        served.connect(b"POST /echo" + chunked) as dripping,
        served.connect(b"PUT /v1/blobs/0x12" + chunked) as blob,
    ):
        for _ in range(12):
            threading.Event().wait(0.5)
            blob.sendall(b"4\r\nsome\r\n")
            try:
                dripping.sendall(b"4\r\nsome\r\n")
            except ConnectionError:
                break
        else:
            pytest.fail("it may drip for ever")
        threading.Event().wait(1)
        blob.sendall(b"4\r\nsome\r\n0\r\n\r\n")
        assert blob.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_body_in_crumbs() -> None:
    with serving() as served, served.connect(HEAD + b"transfer-encoding: chunked\r\n\r\n") as connection:
        assert pour(connection, b"1\r\nx\r\n" * 10_000, 100).startswith(b"HTTP/1.1 400 ")


def test_an_answer_that_nobody_takes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 1.0)
    with serving() as served, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        wait_for("it is connected", lambda: len(served.held._open) == 1)
        wait_for("it is hung up on", lambda: not served.held._open)
        assert served.answers()
