"""The API's client, where no market answers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from contracts.api.client import MarketClient, Unreachable
from contracts.errors import UserError


class NoMarket(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b"<html>nothing here</html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), NoMarket)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


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
