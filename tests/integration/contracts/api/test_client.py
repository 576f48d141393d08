"""The API's client, where no market answers, or something stands in between."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contracts.api.client import MarketClient, Unreachable
from contracts.api.problems import Problem
from contracts.api.protocol import HEADER, PROTOCOL, OtherProtocol
from contracts.errors import UserError

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


class NoMarket(BaseHTTPRequestHandler):
    """Answers what its server's `answers` have for a method: status, headers, body."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        answers: Any = self.server.answers  # type: ignore[attr-defined]
        status, headers, body = answers.get(self.command, (404, {}, "<html>nothing here</html>"))
        self.send_response_only(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


Stand = Callable[..., str]


@pytest.fixture
def stand_in() -> Iterator[Stand]:
    """`stand_in(GET=(502, {}, "<html>..."))`: the address of something that answers so."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(**answers: Any) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), NoMarket)
        server.answers = answers  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def elsewhere(stand_in: Stand) -> str:
    return stand_in()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("url", ["127.0.0.1:8600", "localhost", "ftp://market.test", "http://", ""])
def test_no_address(url: str) -> None:
    with pytest.raises(UserError, match="is not a market's address") as caught:
        MarketClient(url)
    assert caught.value.hint is not None
    assert "http://127.0.0.1:8600" in caught.value.hint


def test_nobody_there(capfd: pytest.CaptureFixture[str]) -> None:
    """One sentence in the end, and no line for each try."""
    with pytest.raises(Unreachable, match=r"the market at http://127\.0\.0\.1:1 does not answer"):
        MarketClient("http://127.0.0.1:1", attempts=2).info()
    assert capfd.readouterr() == ("", "")


def test_something_else_there(elsewhere: str) -> None:
    with pytest.raises(UserError, match=f"{elsewhere} answered 404, but not as a market does"):
        MarketClient(elsewhere, attempts=1).info()


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        (
            (502, {"server": "nginx/1.24.0"}, "<html><head><title>502 Bad Gateway</title></head></html>"),
            "answered 502, but not as a market does (Bad Gateway, by nginx/1.24.0), and says: 502 Bad Gateway",
            "the market does not",
        ),
        ((504, {}, ""), "answered 504, but not as a market does (Gateway Timeout)", "takes too long"),
        (
            (301, {"location": "https://market.example/v1/info"}, ""),
            "answered 301, but not as a market does (Moved Permanently): it points to https://market.example/v1/info",
            "market_url",
        ),
        ((403, {}, "go away"), "answered 403, but not as a market does (Forbidden), and says: go away", "in between"),
        (
            (403, {}, json.dumps({"code": 7, "message": "blocked"})),
            "answered 403, but not as a market",
            "in between",
        ),
        (
            (200, {"content-type": "text/html"}, "<title>Log in to the hotel's network</title>"),
            "answered 200, but not as a market does (OK), and says: Log in to the hotel's network",
            "in between",
        ),
    ],
)
def test_what_is_no_market_is_told_as_what_it_is(stand_in: Stand, answer: Any, said: str, hint: str) -> None:
    url = stand_in(GET=answer)
    for call in (lambda: MarketClient(url).info(), lambda: list(MarketClient(url).jobs())):
        with pytest.raises(UserError) as caught:
            call()  # type: ignore[no-untyped-call]
        assert f"{url} {said}" in caught.value.message
        assert hint in (caught.value.hint or "")


OLD = json.dumps({"version": "0.1.0", "escrow": "0x" + "11" * 20, "items": [], "next": None})
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        (JSON, OLD, "speaks version 1 of the protocol, this program version 2"),
        (JSON, OLD[:-1] + ', "protocol": 3}', "speaks version 3 of"),
        (JSON | {HEADER: "4"}, OLD, "speaks version 4 of"),
        (JSON | {HEADER: "4" * 5000}, OLD, "speaks version 1 of"),
        (JSON | {HEADER: "\u00b2"}, OLD, "speaks version 1 of"),
        (JSON, OLD[:-1] + ', "protocol": 1e9}', "does not fit this version"),
        (JSON, "[" * 5000, "does not fit"),
    ],
)
def test_a_market_of_another_protocol(stand_in: Stand, headers: dict[str, str], body: str, says: str) -> None:
    market = MarketClient(stand_in(GET=(200, headers, body), POST=(422, headers, body)), attempts=1)
    for _ in range(2):
        with pytest.raises(UserError, match=says):
            market.info()
    if "speaks" in says:
        with pytest.raises(OtherProtocol, match=says):
            list(market.jobs())


def test_who_tells_its_protocol_is_not_asked_for_it(stand_in: Stand) -> None:
    """Nor is one behind a proxy that takes the header away asked twice."""
    pages = json.dumps({"items": [], "next": None})
    market = MarketClient(stand_in(GET=(200, JSON | {HEADER: str(PROTOCOL)}, pages)), attempts=1)
    assert list(market.jobs()) == []
    market = MarketClient(stand_in(GET=(200, JSON, OLD[:-1] + f', "protocol": {PROTOCOL}}}')), attempts=1)
    with pytest.raises(UserError, match="does not fit"):  # a page it is none of
        list(market.jobs())


def test_a_limit_on_bodies_in_between(stand_in: Stand, tmp_path: Path) -> None:
    """nginx takes 1 MB where nobody has set another limit."""
    (tmp_path / "data").write_bytes(bytes(2_000_000))
    page = "<html><head><title>413 Request Entity Too Large</title></head></html>"
    url = stand_in(PUT=(413, {"server": "nginx"}, page))
    with pytest.raises(Problem) as caught:
        MarketClient(url).put_blob(tmp_path / "data")
    assert "answered 413" in caught.value.message
    assert "by nginx): something in between takes no body of 2,000,000 bytes" in caught.value.message
    assert "client_max_body_size" in (caught.value.hint or "")


def test_a_refused_head_is_told_by_a_get(stand_in: Stand, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    now = int(time.time())
    told = {
        "code": "access_token_expired",
        "detail": f"was valid until 5, and it is {now} now",
        "hint": "Sign.",
        "now": 5,
    }
    headers = {"content-type": "application/problem+json", "date": formatdate(now - 7200, usegmt=True)}
    refusal = (401, headers, json.dumps(told))
    with pytest.raises(Problem, match="was valid until 5") as caught:
        MarketClient(stand_in(HEAD=refusal, GET=refusal)).put_blob(tmp_path / "data")
    assert (caught.value.status, caught.value.code) == (401, "access_token_expired")
    assert caught.value.message.endswith("; this machine's clock is 2 h ahead of the market's")
    assert (caught.value.hint or "").startswith("set this machine's clock")


def test_a_head_that_does_not_pass_is_no_reason_not_to_upload(stand_in: Stand, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    url = stand_in(HEAD=(405, {}, ""), PUT=(201, {"content-type": "application/json"}, "{}"))
    assert MarketClient(url).put_blob(tmp_path / "data").size == 4


def test_a_proxy_is_named(stand_in: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    url = stand_in()
    monkeypatch.setenv("HTTP_PROXY", "http://me:hidden@127.0.0.1:1")
    with pytest.raises(Unreachable) as caught:
        MarketClient(url, attempts=1).info()
    assert caught.value.message.endswith("; it is asked through the proxy http://127.0.0.1:1 ($HTTP_PROXY)")
    assert "NO_PROXY=127.0.0.1" in (caught.value.hint or "")
    monkeypatch.setenv("HTTP_PROXY", stand_in(GET=(403, {}, "not this way")))
    with pytest.raises(Problem, match=r"403.*not this way") as answered:
        MarketClient(url, attempts=1).info()
    assert "($HTTP_PROXY), which may be who answered" in (answered.value.hint or "")
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy")
    with pytest.raises(UserError, match="a proxy that the environment names can't be used") as unusable:
        MarketClient(url)
    assert "HTTP_PROXY" in (unusable.value.hint or "")
