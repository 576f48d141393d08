"""Files from the web: from allowed hosts and public addresses only, whole, and what the job says."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from contracts.api.client import Unreachable
from contracts.errors import UserError
from contracts.job.spec import FileRef
from worker.downloading import connection_guard, downloads
from worker.downloading.connection_guard import Interrupted
from worker.downloading.downloads import Cache, checked_address

DATA = bytes(range(256)) * 4096  # 1 MB
HERE = ("127.0.0.1",)


class Server(http.server.ThreadingHTTPServer):
    """Answers as `answer(handler, number of the request)` does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.answers: list[Any] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("range")))
        answers = self.server.answers
        (answers.pop(0) if answers else whole)(self)

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, data: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


def whole(handler: Handler) -> None:
    span = handler.headers.get("range")
    if span is None:
        return handler.reply(200, DATA)
    first = int(span.removeprefix("bytes=").removesuffix("-"))
    return handler.reply(206, DATA[first:], content_range=f"bytes {first}-{len(DATA) - 1}/{len(DATA)}")


def cut(handler: Handler) -> None:
    handler.reply(200, DATA[:300_000], length=len(DATA))


def redirect(to: str) -> Any:
    return lambda handler: handler.reply(302, location=to)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", (0.0, 0.0))
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


def ref_to(url: str, data: bytes = DATA, **changes: Any) -> FileRef:
    return FileRef.model_validate(
        {"sha256": "0x" + hashlib.sha256(data).hexdigest(), "size": len(data), "url": url, **changes}
    )


def cache(folder: Path, hosts: tuple[str, ...] = HERE, max_bytes: int = 1 << 30) -> Cache:
    return Cache(folder / "cache", hosts, max_bytes)


def test_a_file_is_fetched_once_for_all_leases(server: Server, tmp_path: Path) -> None:
    for lease in ("a", "b"):
        cache(tmp_path).get(ref_to(server.url + "/data?x=1"), tmp_path / lease / "deep" / "data")
        assert (tmp_path / lease / "deep" / "data").read_bytes() == DATA
    assert server.asked == [("/data?x=1", None)]


def test_it_goes_on_where_the_connection_broke(server: Server, tmp_path: Path) -> None:
    server.answers = [cut, lambda handler: handler.reply(503)]
    cache(tmp_path).get(ref_to(server.url + "/d"), tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == DATA
    assert server.asked == [("/d", None), ("/d", "bytes=300000-"), ("/d", "bytes=300000-")]


def test_leases_that_want_it_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        begun.set()
        go_on.wait(300)
        whole(handler)

    server.answers = [slow]
    with ThreadPoolExecutor(2) as pool:
        get = [pool.submit(cache(tmp_path).get, ref_to(server.url + "/d"), tmp_path / "a")]
        assert begun.wait(300)
        # There is no room for another file, but what is being fetched is not thrown away for it.
        small = b"small"
        server.answers = [lambda handler: handler.reply(200, small)]
        cache(tmp_path, max_bytes=1).get(ref_to(server.url + "/s", small), tmp_path / "s")
        get.append(pool.submit(cache(tmp_path).get, ref_to(server.url + "/d"), tmp_path / "b"))
        with pytest.raises(Interrupted):
            cache(tmp_path).get(ref_to(server.url + "/d"), tmp_path / "c", lambda: True)
        go_on.set()
        for one in get:
            one.result(10)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == DATA
    assert server.asked == [("/d", None), ("/s", None)]


def test_another_job_with_the_same_hash_can_not_begin_the_file(server: Server, tmp_path: Path) -> None:
    server.answers = [lambda handler: handler.reply(200, b"poison", len(DATA)), *[lambda handler: handler.reply(404)]]
    with pytest.raises(UserError, match="answered 404"):
        cache(tmp_path).get(ref_to(server.url + "/evil"), tmp_path / "d")
    cache(tmp_path).get(ref_to(server.url + "/good"), tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == DATA


def test_a_server_that_knows_no_ranges(server: Server, tmp_path: Path) -> None:
    server.answers = [cut, lambda handler: handler.reply(200, DATA)]
    cache(tmp_path).get(ref_to(server.url), tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == DATA


def test_it_gives_up(server: Server, tmp_path: Path) -> None:
    server.answers = [lambda handler: handler.reply(503)] * 99
    with pytest.raises(UserError, match="can't be fetched: it answered 503"):
        cache(tmp_path).get(ref_to(server.url), tmp_path / "d")
    assert len(server.asked) == downloads.ATTEMPTS


@pytest.mark.parametrize("status", downloads.BUSY)
def test_a_host_in_trouble_is_no_fault_of_the_job(server: Server, tmp_path: Path, status: int) -> None:
    """Training waits for what is Unreachable; any other UserError would count as the job's failure."""
    server.answers = [lambda handler: handler.reply(status)] * downloads.ATTEMPTS
    with pytest.raises(Unreachable, match=f"answered {status}"):
        cache(tmp_path).get(ref_to(server.url), tmp_path / "d")
    cache(tmp_path).get(ref_to(server.url), tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == DATA


def test_neither_is_a_network_in_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", (0.0, 0.0))
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(Unreachable, match="refused"):
        cache(tmp_path).get(ref_to(f"http://127.0.0.1:{port}"), tmp_path / "d")

    def no_name(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(Unreachable, match="Temporary failure"):
        cache(tmp_path, ("files.example",)).get(ref_to("https://files.example/d"), tmp_path / "d")


@pytest.mark.parametrize("answer", [404, 403, 410, "short", "longer", "other"])
def test_what_is_not_the_jobs_file_is(server: Server, tmp_path: Path, answer: int | str) -> None:
    data = {"short": DATA[:-1], "longer": DATA + b"0", "other": DATA[::-1]}
    reply = (answer, b"") if isinstance(answer, int) else (200, data[answer])
    server.answers = [lambda handler: handler.reply(*reply)] * downloads.ATTEMPTS
    with pytest.raises(UserError) as caught:
        cache(tmp_path).get(ref_to(server.url), tmp_path / "d")
    assert not isinstance(caught.value, Unreachable) and len(server.asked) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sha256": "0x" + "11" * 32}, "has the SHA-256"),
        ({"size": 1000}, "has more than the 1000 bytes"),
    ],
)
def test_what_is_not_the_jobs_file_is_not_kept(
    server: Server, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        cache(tmp_path).get(ref_to(server.url, **changes), tmp_path / "d")
    assert not (tmp_path / "d").exists()
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".part"] == []


def test_a_file_that_is_not_there(server: Server, tmp_path: Path) -> None:
    server.answers = [lambda handler: handler.reply(404)]
    with pytest.raises(UserError, match="answered 404"):
        cache(tmp_path).get(ref_to(server.url), tmp_path / "d")


def test_only_from_allowed_hosts(server: Server, tmp_path: Path) -> None:
    for hosts in ((), ("example.org",)):
        with pytest.raises(UserError, match="the job wants a file from"):
            cache(tmp_path, hosts).get(ref_to(server.url), tmp_path / "d")
    assert server.asked == []


def test_redirects_stay_within_the_allowed_hosts(server: Server, tmp_path: Path) -> None:
    server.answers = [redirect("/there")]
    cache(tmp_path).get(ref_to(server.url), tmp_path / "d")
    assert [path for path, _ in server.asked] == ["/", "/there"]
    for target, says in (
        (f"http://localhost:{server.server_port}/", "from 'localhost'"),
        ("https://example.org/", "from 'example.org'"),
        ("http://example.org/", "is not https"),
        ("file:///etc/passwd", "url"),
    ):
        server.answers = [redirect(target)]
        with pytest.raises(UserError, match=says):
            cache(tmp_path).get(ref_to(server.url, DATA[1:]), tmp_path / "e")
    server.answers = [redirect("/")] * 99
    with pytest.raises(UserError, match="more than 5 redirects"):
        cache(tmp_path).get(ref_to(server.url, DATA[1:]), tmp_path / "e")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "::1", "::", "fe80::1", "fd00::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1",
     "::127.0.0.1", "::93.184.216.34", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::5db8:d822",
     "2002:7f00:1::", "2002:5db8:d822::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:2::1",
     "3fff::1", "5f00::1", "100::1", "2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:127.0.0.1", "fe80::1%lo",
     "192.0.0.9", "192.88.99.1", "198.18.0.1", "203.0.113.5", "240.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port)),
                (family, socket.SOCK_STREAM, 6, "", (address, port))]  # fmt: skip

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(UserError, match="no public address"):
        checked_address("rebound.example", 443)


@pytest.mark.parametrize("address", ["93.184.216.34", "2a00:1450:4001:81b::200e", "64:ff9b::5db8:d822"])
def test_a_name_that_leads_to_the_internet_is_not(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert checked_address("files.example", 443) == address


def test_a_redirect_to_a_name_that_leads_inside_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = socket.getaddrinfo

    def translated(host: str, port: int, *which: Any, **how: Any) -> Any:
        if host == "inside.example":
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("64:ff9b::a9fe:a9fe", port))]
        return lookup(host, port, *which, **how)

    monkeypatch.setattr(socket, "getaddrinfo", translated)
    server.answers = [redirect("https://inside.example/latest/meta-data")]
    with pytest.raises(UserError, match=r"inside\.example leads to 64:ff9b::a9fe:a9fe, which is no public address"):
        cache(tmp_path, (*HERE, "inside.example")).get(ref_to(server.url), tmp_path / "d")


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
# What a server says at first, and what it says then without end, piece by piece.
ENDLESS = {
    "nothing": (b"", b""),
    "a head that drips": (HEAD + b"x-drip: ", b"x"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers of 100 Continue": (b"HTTP/1.1 100 Continue\r\n", b"x: y\r\n"),
    "a body that drips": (HEAD + b"content-length: 1048576\r\n\r\n", b"x"),
    "chunks that drip": (CHUNKED, b"1\r\nx\r\n"),
    "a long extension of a chunk": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"x-drip: y\r\n"),
}


@pytest.fixture
def endless(request: pytest.FixtureRequest) -> Iterator[tuple[str, threading.Event]]:
    """The address of a server that never ends its answers, and whether it has been asked."""
    first, then = ENDLESS[request.param]
    asked, over = threading.Event(), threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(4096)
            asked.set()
            connection.sendall(first)
            while not over.wait(0.02):
                connection.sendall(then)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/d", asked
        over.set()
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("endless", ENDLESS, indirect=True)
def test_a_stop_interrupts_what_has_no_end(endless: tuple[str, threading.Event], tmp_path: Path) -> None:
    url, asked = endless
    with pytest.raises(Interrupted):
        cache(tmp_path).get(ref_to(url), tmp_path / "d", asked.is_set)


@pytest.mark.parametrize("endless", ENDLESS, indirect=True)
def test_what_has_no_end_is_given_up(
    endless: tuple[str, threading.Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_guard, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connection_guard, "WINDOW_SECONDS", 0.5)
    monkeypatch.setattr(downloads, "ATTEMPTS", 2)
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", (0.0, 0.0))
    with pytest.raises(UserError, match=r"no answer within|too slow|100 headers") as caught:
        cache(tmp_path).get(ref_to(endless[0]), tmp_path / "d")
    assert not isinstance(caught.value, Interrupted)


def test_a_stop_waits_for_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = threading.Event(), threading.Event()

    def silent(*_: Any, **__: Any) -> Any:
        asked.set()
        over.wait()
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    with pytest.raises(Interrupted):
        cache(tmp_path, ("slow.example",)).get(ref_to("https://slow.example/d"), tmp_path / "d", asked.is_set)
    over.set()


def test_a_stop_interrupts(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        cache(tmp_path).get(ref_to(server.url), tmp_path / "d", lambda: True)


def test_the_longest_unused_go_first(server: Server, tmp_path: Path) -> None:
    small = cache(tmp_path, max_bytes=2 * len(DATA))
    datas = [DATA, DATA[::-1], DATA[1:] + DATA[:1]]
    for data in datas:
        server.answers = [lambda handler, data=data: handler.reply(200, data)]
        small.get(ref_to(server.url, data), tmp_path / "d")
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert kept == {ref_to(server.url, data).sha256 for data in datas[1:]}
