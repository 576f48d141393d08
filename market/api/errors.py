"""Every refusal is `application/problem+json` (RFC 9457) with one of our codes."""

from typing import Any

import requests
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from web3.exceptions import Web3Exception

from contracts.api.access import SCHEME
from contracts.api.problems import Code, Problem
from contracts.errors import UserError
from contracts.strict_json import write_json
from market.api import request_ids
from market.api.idempotency import Replay
from market.api.suggestions import known_fields, nearest
from market.store.db import OUTAGE
from market.store.disk import leaves_no_room

log = structlog.get_logger()

MOST_ERRORS = 20  # of a body that are told
MOST_SAID, LONG = 500, 100  # characters of a message, and of a name in it

_CODES = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}


class ProblemBody(BaseModel):
    """What went wrong, for people (`detail`, `hint`) and programs (`code`, and the values in question)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    request: str | None = None  # under which the market's log has it; also the header X-Request-Id


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "Refused",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
    }
    for status in ("4XX", "5XX")
}


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    body = write_json(problem.body() | {"request": request_ids.current()}).encode()
    return Response(body, problem.status, headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    def refused(request: Request, problem: Problem) -> Response:
        # A question may be asked each second, and "not yet" is its ordinary answer; what comes too often is counted.
        ordinary = problem.status in (404, 429) and request.method in ("GET", "HEAD")
        told = {"path": request.url.path, "status": problem.status, "code": problem.code, "detail": problem.message}
        (log.debug if ordinary else log.info)("api.refused", **told)
        return problem_response(problem, _headers(problem))

    @app.exception_handler(Replay)
    def replayed(request: Request, replay: Replay) -> Response:
        return replay.response()

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        return problem_response(_from_validation(request, error))

    @app.exception_handler(HTTPException)
    def from_framework(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        return problem_response(_from_framework(request, error), headers)

    # Not all of NODE_AWAY: a disk that is far away raises the others, too.
    for kind in (requests.RequestException, Web3Exception):

        @app.exception_handler(kind)
        def no_node(request: Request, error: Exception) -> Response:
            return _chain_silent(request, error)

    for outage in OUTAGE:

        @app.exception_handler(outage)
        def no_database(request: Request, error: DBAPIError) -> Response:
            if leaves_no_room(error):
                return problem_response(_full(request, error))
            log.warning("api.database_silent", path=request.url.path, problem=str(error.orig)[:300])
            detail = "the market's database does not answer, so nothing can be looked up now; nothing was stored"
            return problem_response(Problem(503, Code.MARKET_NOT_READY, detail, "Try again in a moment."))

    @app.exception_handler(OSError)
    def no_room(request: Request, error: OSError) -> Response:
        if leaves_no_room(error):
            return problem_response(_full(request, error))
        log.error("api.failed", path=request.url.path, exc_info=error)
        return problem_response(internal(request.url.path))

    @app.exception_handler(UserError)
    def user_error(request: Request, error: UserError) -> Response:
        log.warning("api.user_error", path=request.url.path, problem=error.message)
        return problem_response(Problem(500, Code.INTERNAL, error.message, error.hint))


def _headers(problem: Problem) -> dict[str, str] | None:
    if problem.status == 401:
        return {"www-authenticate": SCHEME}
    if "retry_after" in problem.extra:
        return {"retry-after": str(problem.extra["retry_after"])}
    return None


def internal(path: str) -> Problem:
    """For a bug: the log has the traceback, the client only learns that it is not to blame."""
    return Problem(500, Code.INTERNAL, f"the market failed at {path}; its log says why", "Tell the market's operator.")


def _chain_silent(request: Request, error: Exception) -> Response:
    log.warning("api.chain_silent", path=request.url.path, problem=str(error)[:300])
    detail = "the market's Ethereum node does not answer, so nothing can be checked now; nothing was stored"
    return problem_response(Problem(503, Code.MARKET_NOT_READY, detail, "Try again in a moment."))


def _full(request: Request, error: Exception) -> Problem:
    log.error("api.disk_full", path=request.url.path, problem=str(error)[:300])
    request.app.state.context.disks.did_not_fit()
    detail = "the market's disk is full: this could not be stored, and nothing of it was kept"
    return Problem(507, Code.STORAGE_FULL, detail, "Tell the market's operator, and try again later.")


def _from_validation(request: Request, error: RequestValidationError) -> Problem:
    """The first problem as a sentence with field and value; the first few as `errors`."""
    problems = list(error.errors())
    first = problems[0]
    said = [{"field": _field(item["loc"]), "message": _message(request, item)} for item in problems[:MOST_ERRORS]]
    if first["type"] == "json_invalid":
        detail = f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}"
    else:
        given = first.get("input")
        shown = f" (got {str(given)[:80]!r})" if isinstance(given, str | int | float) else ""
        shown = "" if shown and str(given)[:80] in said[0]["message"] else shown
        detail = f"{said[0]['field']}: {said[0]['message']}{shown}"
    return Problem(422, Code.VALIDATION_FAILED, detail, errors=said)


def _field(location: tuple[Any, ...]) -> str:
    """Without FastAPI's first part: `body`, `query` or `path`."""
    inner = location[1:] if location and location[0] in ("body", "query", "path") and len(location) > 1 else location
    return ".".join(str(part)[:LONG] for part in inner)


def _message(request: Request, item: dict[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        *inside, name = item["loc"][1:]
        return f"there is no such field; {nearest(str(name)[:LONG], known_fields(request, tuple(inside)))}"
    message = str(item["msg"]).removeprefix("Value error, ")
    return message if len(message) <= MOST_SAID else f"{message[:MOST_SAID]}..."


def _from_framework(request: Request, error: HTTPException) -> Problem:
    code = _CODES.get(error.status_code, Code.VALIDATION_FAILED if error.status_code < 500 else Code.INTERNAL)
    if error.status_code == 404:
        return Problem(404, code, f"there is nothing at {request.url.path}", "The API is described at /docs.")
    if error.status_code == 405:
        return Problem(405, code, f"{request.method} is not possible at {request.url.path}")
    return Problem(error.status_code, code, str(error.detail))
