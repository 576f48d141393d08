"""A POST that is sent again with the same `Idempotency-Key` gets the answer of the first one.

`once` looks the key up before a route runs; `KeepAnswer` stores what it answered. Only successes are kept: what was
refused has changed nothing, and may be tried again with the same key. Routes that store nothing (`STORES_NOTHING`) are
answered anew.
"""

import hashlib
import re
from datetime import timedelta
from typing import Any

import structlog
from fastapi import Request, Response
from sqlmodel import Session, col, delete, func, select
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.api.client import IDEMPOTENCY_KEY as HEADER
from contracts.api.problems import Code, Problem
from contracts.types import to_hex
from market.api.dependencies import Market
from market.runtime.context import Context
from market.runtime.settings import KEPT_ANSWERS
from market.store.columns import now
from market.store.db import OUTAGE
from market.store.models import AnswerRow

# A process that dies in between leaves its mark behind; after this long another request takes it over.
PENDING = timedelta(seconds=60)
# Keys cost nothing. Of more answers the oldest go, and what they answered is repeated by its content; so is what is
# larger than answers to signed messages usually are: a job of a thousand files.
MOST_ANSWERS = 10_000
MOST_BYTES, MOST_BYTES_OF_ONE = 64 << 20, 256 << 10
ROWS_AT_ONCE = 100
STORES_NOTHING = ("/v1/quote", "/v1/offers")

_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_PATH = re.compile(r"[\x21-\x7e]{1,200}")  # of a route; what is none is refused there

log = structlog.get_logger()


class Replay(Exception):
    """The request was answered before."""

    def __init__(self, status: int, answer: str) -> None:
        self.status, self.answer = status, answer

    def response(self) -> Response:
        headers = {"idempotency-replayed": "true"}
        return Response(self.answer, self.status, headers, media_type="application/json")


async def once(market: Market, request: Request) -> None:
    """Raises Replay, Problem(idempotency_key_reused), or Problem(request_in_progress) with a time to come back."""
    key = request.headers.get(HEADER)
    if request.method != "POST" or key is None or not _PATH.fullmatch(request.url.path):
        return
    if not _KEY.fullmatch(key):
        raise Problem(422, Code.VALIDATION_FAILED, f"{HEADER}: 1 to 128 printable ASCII characters (got {key[:80]!r})")
    if request.url.path in STORES_NOTHING:
        return
    body = to_hex(hashlib.sha256(await request.body()).digest())
    await run_in_threadpool(_begin, market, key, request.url.path, body)
    request.state.idempotency_key = key


def _begin(market: Context, key: str, path: str, body: str) -> None:
    with market.db.session() as session:
        row, moment = session.get(AnswerRow, (key, path)), now()
        if row is not None and moment - row.received < KEPT_ANSWERS:
            if row.body != body:
                raise Problem(
                    422,
                    Code.IDEMPOTENCY_KEY_REUSED,
                    f"the {HEADER} {key} was used for another body at {path}",
                    "Make a new key for each request; only a repetition has that of the first.",
                )
            if row.status is not None:
                raise Replay(row.status, row.answer)
            if moment - row.received < PENDING:
                raise Problem(
                    409,
                    Code.REQUEST_IN_PROGRESS,
                    f"the first request with the {HEADER} {key} is not answered yet",
                    "Ask again in a second.",
                    retry_after=1,
                )
        session.merge(AnswerRow(key=key, path=path, body=body, status=None, answer="", received=moment))


def _end(market: Context, key: str, path: str, status: int, answer: str) -> None:
    with market.db.session() as session:
        row = session.get(AnswerRow, (key, path))
        if row is None:
            return
        size = len(answer.encode())
        if status < 300 and size <= MOST_BYTES_OF_ONE:
            row.status, row.answer, row.size = status, answer, size
            session.add(row)
            session.flush()
            _forget_oldest(session)
        else:
            session.delete(row)


def _forget_oldest(session: Session) -> None:
    """Until no more are left than may be kept."""
    totals = select(func.count(), func.coalesce(func.sum(AnswerRow.size), 0)).select_from(AnswerRow)
    by_age = select(AnswerRow.received, AnswerRow.size).order_by(col(AnswerRow.received)).limit(ROWS_AT_ONCE)
    while True:
        answers, size = session.exec(totals).one()
        if answers <= MOST_ANSWERS and size <= MOST_BYTES:
            return
        for received, size_of_one in session.exec(by_age).all():
            last, answers, size = received, answers - 1, size - size_of_one
            if answers <= MOST_ANSWERS and size <= MOST_BYTES:
                break
        session.exec(delete(AnswerRow).where(col(AnswerRow.received) <= last))


class KeepAnswer:
    """Stores the answer to a request that `once` has let through, before the client gets it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        held: list[Message] = []
        state: dict[str, Any] = scope.setdefault("state", {})

        async def hold(message: Message) -> None:
            if "idempotency_key" in state:
                held.append(message)
            else:
                await send(message)

        try:
            await self.app(scope, receive, hold)
        finally:
            if "idempotency_key" in state:
                await self._keep(scope, state["idempotency_key"], held)
        for message in held:
            await send(message)

    async def _keep(self, scope: Scope, key: str, held: list[Message]) -> None:
        """Nothing is held where a bug has come up."""
        context: Context = scope["app"].state.context
        status = held[0]["status"] if held else 500
        answer = b"".join(message.get("body", b"") for message in held).decode()
        try:
            await run_in_threadpool(_end, context, key, scope["path"], status, answer)
        except OUTAGE as error:  # what was asked for is done; repeated, it is done by its content once more
            log.warning("api.answer_not_kept", path=scope["path"], problem=str(error.orig)[:300])
