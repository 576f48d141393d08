"""JSON bodies from strangers: bounded before they are read, and read beside the event loop."""

import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json

from contracts.api.problems import Code, Problem
from contracts.job.spec import MAX_FILES
from contracts.strict_json import read_json
from market.api.dependencies import get_caller, get_context
from market.api.request_ids import bind_lease

MAX_VALUES = 20_000  # in a body, names of fields counted in: twice what a job of 1,000 sealed files has
MAX_KEYS = MAX_FILES + 200  # of one object in it, but in a config
AT_ONCE = 8_192  # bytes; a body that is no larger is read on the event loop

# One by one: Python reads no two at the same time, and between two the event loop has its turn.
_READING = CapacityLimiter(1)
# Also one that never ends; what matched is never tried another way: else a megabyte of \" would take an hour.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_SIGNS = (b",", b":", b"[", b"{")

T = TypeVar("T")


class Parsed(Request):
    """A request with its JSON body as an instance of the route's model."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._body, self._value = body, value

    async def json(self) -> Any:
        return self._value


class JsonRoute(APIRoute):
    """A route whose JSON body is read here. FastAPI would do it on the event loop, before it counts the request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, field = super().get_route_handler(), self.body_field
        if field is None:
            return handle

        def validate(value: Any) -> Any:
            is_wide = cut_wide_objects(value)
            instance, errors = field.validate(value, {}, loc=("body",))
            if errors:
                raise RequestValidationError(errors)
            if is_wide:
                raise _invalid(f"an object in the body has more than {MAX_KEYS} keys")
            return instance

        async def checked(request: Request) -> Response:
            await get_caller(get_context(request), request)
            body = await request.body()
            if not body or not _is_json(request.headers.get("content-type", "")):
                return await handle(request)  # which says so
            value = await _beside(body, read_body, body)
            bind_lease(value)
            return await handle(Parsed(request, body, await _beside(body, validate, value)))

        return checked


async def _beside(body: bytes, work: Callable[[Any], T], value: Any) -> T:
    return work(value) if len(body) <= AT_ONCE else await run_sync(work, value, limiter=_READING)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def read_body(body: bytes) -> Any:
    """Raises Problem: not JSON in UTF-8, NaN or infinity, half a surrogate pair, too many values, nested too deep."""
    if _signs(body) > MAX_VALUES and _signs(_TEXT.sub(b'""', body)) > MAX_VALUES:
        raise _invalid(f"the body has more than {MAX_VALUES} values in it")
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        if "recursion limit" in str(error):
            return _deep(body)
        raise _invalid(f"the body is not JSON: {str(error)[:200]}") from error
    return value


def cut_wide_objects(value: Any) -> bool:
    """Whether there were any: then only their first keys are left, since each that is wrong takes time to tell."""
    found, left = False, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if len(one) > MAX_KEYS:
                found = True
                for key in list(one)[MAX_KEYS:]:
                    del one[key]
            left += [inner for key, inner in one.items() if key != "config"]
        elif isinstance(one, list):
            left += one
    return found


def _deep(body: bytes) -> Any:
    """What is nested so deep that no route takes it, so that the route can name the field."""
    try:
        return read_json(body)
    except ValueError as error:
        raise _invalid("the body is nested too deep") from error


def _signs(text: bytes) -> int:
    return sum(map(text.count, _SIGNS))


def _invalid(detail: str) -> Problem:
    return Problem(422, Code.VALIDATION_FAILED, detail)
