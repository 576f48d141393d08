"""Around every request: an id, the protocol, one log line, a limit on the body, and no traceback to the client."""

import time
from collections import Counter
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.api.problems import Code, Problem
from contracts.api.protocol import HEADER as SPOKEN
from contracts.api.protocol import PROTOCOL
from contracts.chain.asking.hurry import Gate, hurried
from market.api.errors import internal, problem_response
from market.api.rate_limits import network_of
from market.api.request_ids import HEADER, request_id

MAX_BODY = 128 << 10  # bytes of a JSON body; blobs have a limit of their own
LARGER = {  # those that may have more
    "/v1/bids": 1 << 20,
    "/v1/quote": 1 << 20,
    "/v1/offers": 1 << 20,
    "/v1/reports": 640 << 10,  # a text of 100,000 characters, each an escape of six
}
UNDER_WAY = 48 << 20  # bytes of bodies that this process holds at once
UNDER_WAY_OF_ADDRESS = 16 << 20

log = structlog.get_logger()


class RequestLog:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._gate = Gate()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        id = request_id(Headers(scope=scope).get(HEADER))
        answer: dict[str, int] = {}
        started = time.monotonic()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER], headers[SPOKEN] = id, str(PROTOCOL)
            await send(message)

        with structlog.contextvars.bound_contextvars(request=id), hurried(self._gate):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception:
                log.exception("api.failed", method=scope["method"], path=scope["path"])
                if answer:
                    raise  # the answer had begun: only a broken connection can tell the client
                await problem_response(internal(scope["path"]))(scope, receive, send_with_id)
            finally:
                took, status = time.monotonic() - started, answer.get("status")
                _count(scope, status, took)
                log.debug(
                    "api.request", method=scope["method"], path=scope["path"], status=status, ms=round(took * 1000, 1)
                )


def _count(scope: Scope, status: int | None, seconds: float) -> None:
    context = scope["app"].state.context
    # The route's name, not the path: who makes up paths must not make up time series.
    operation = getattr(scope.get("route"), "name", None) or "none"
    if context is not None:
        context.metrics.requests.labels(operation, str(status or "cut off")).observe(seconds)


class BodyLimit:
    """Refuses bodies that no order could need, before they fill the memory. Not for blobs, which are streamed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._held: Counter[str] = Counter()  # bytes under way, by network

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/v1/blobs/"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # One that does not say how long it is may be endless, and costs its sender nothing.
        most = MAX_BODY if "transfer-encoding" in headers else LARGER.get(scope["path"], MAX_BODY)
        announced = headers.get("content-length", "0")
        if announced.isascii() and announced.isdigit() and int(announced) > most:
            await problem_response(too_large(most))(scope, receive, send)
            return
        size, caller = 0, network_of(scope["client"][0] if scope.get("client") else "")

        async def receive_some() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            more = len(message.get("body", b""))
            if size + more > most:
                raise too_large(most)
            size += more
            self._hold(caller, more)
            return message

        try:
            await self.app(scope, receive_some, send)
        finally:
            self._hold(caller, -size)

    def _hold(self, caller: str, more: int) -> None:
        """Raises Problem if there is too much of it already."""
        self._held[caller] += more
        if not self._held[caller]:
            del self._held[caller]
        if more > 0 and (self._held[caller] > UNDER_WAY_OF_ADDRESS or self._held.total() > UNDER_WAY):
            raise Problem(
                503,
                Code.TOO_MANY_REQUESTS,
                "too many large requests come at the same time",
                "Ask again in a second.",
                retry_after=1,
            )


def too_large(most: int) -> Problem:
    return Problem(413, Code.VALIDATION_FAILED, f"the body has more than {most} bytes", "Files go to /v1/blobs.")
