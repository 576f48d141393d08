"""What came over HTTP, told as what it is: a market's refusal, or whatever else stands between it and this program."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx2

from contracts.api.problems import Code, Problem
from contracts.clocks import SET_IT, WORTH_A_WORD, clock_difference
from contracts.proxies import EnvironmentProxy
from contracts.strict_json import read_json
from contracts.text import line_of_page

# Refusals in which a time stands: there a clock may be wrong.
_OF_TIME = {Code.ACCESS_TOKEN_EXPIRED, Code.ORDER_EXPIRED, Code.REPORT_STALE}
_HINTS = {
    407: "The proxy wants a login.",
    413: "The operator finds nginx's settings in docs/operations.md (client_max_body_size).",
    502: "What stands before the market runs, but the market does not. Try again later, or ask its operator.",
    503: "What stands before the market runs, but the market does not. Try again later, or ask its operator.",
    504: "What stands before the market runs, but the market takes too long. Try again later, or ask its operator.",
}
_ELSEWHERE = "Is this the market's address? Something else may listen there, or stand in between."


def raise_problem(response: httpx2.Response, proxy: EnvironmentProxy | None = None) -> None:
    """Raises Problem for what is no success. `proxy`: through which it was asked."""
    if response.status_code < 300:
        return
    body = _problem_body(response)
    if body is None:
        raise Problem(response.status_code, Code.INTERNAL, *_foreign(response, proxy))
    problem = Problem.from_body(response.status_code, body)
    ahead = clock_ahead(response.headers)
    if ahead is not None and abs(ahead) > WORTH_A_WORD and (problem.code in _OF_TIME or "now" in problem.extra):
        off = clock_difference(ahead, 0, "the market's")
        problem.message = f"{problem.message}; this machine's clock is {off}"
        problem.args = (problem.message,)
        problem.hint = f"{SET_IT}. {problem.hint or ''}".strip()
    raise problem


def is_of_a_market(response: httpx2.Response) -> bool:
    """Whether a refusal without a body, as that of a HEAD, comes from a market."""
    return str(response.headers.get("content-type", "")).startswith("application/problem+json")


def clock_ahead(headers: Mapping[str, str]) -> float | None:
    """Seconds that this machine's clock is ahead of the answer's; None if the answer doesn't tell."""
    try:
        return time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds after which a request that came too early may come again; None if it was not too early.

    It came too early after too many others (429), beside too many (503), or while the market still answers its first
    try (409).
    """
    text = response.headers.get("retry-after", "")
    return float(text) if response.status_code in (409, 429, 503) and text.isascii() and text.isdigit() else None


def no_answer(url: str, error: Exception, proxy: EnvironmentProxy | None) -> tuple[str, str]:
    """Sentence and hint for a market that can't be reached."""
    if proxy is None:
        return f"the market at {url} does not answer ({error})", "Is `gpumarket market serve` running there?"
    return (
        f"the market at {url} does not answer ({error}); it is asked through {proxy.told}",
        f"Is the proxy right, and does it run? {proxy.way_around(url)}.",
    )


def broke_off(what: str, error: Exception, proxy: EnvironmentProxy | None) -> tuple[str, str]:
    """Sentence and hint for a transfer that ended in between."""
    by_way_of = f"; it went through {proxy.told}" if proxy else ""
    return (
        f"{what} broke off ({error}){by_way_of}",
        "Try again: what has arrived is not sent twice. If it breaks off each time, something in between may limit the "
        "size or the time of transfers (docs/operations.md).",
    )


def foreign_content(response: httpx2.Response, proxy: EnvironmentProxy | None) -> tuple[str, str] | None:
    """Sentence and hint for a success that is no JSON, such as a login page; None if it is."""
    kind = str(response.headers.get("content-type", ""))
    return _foreign(response, proxy) if response.content and "json" not in kind else None


def _problem_body(response: httpx2.Response) -> dict[str, Any] | None:
    try:
        body = read_json(response.content)
    except ValueError:
        return None
    known = isinstance(body, dict) and isinstance(body.get("code"), str) and isinstance(body.get("detail"), str)
    return body if known else None


def _foreign(response: httpx2.Response, proxy: EnvironmentProxy | None) -> tuple[str, str]:
    request, status = response.request, response.status_code
    where = f"{request.url.scheme}://{request.url.netloc.decode()}"
    hint = _HINTS.get(status, _ELSEWHERE)
    why = ""
    if status == 413:
        size = int(request.headers.get("content-length", 0))
        why = f": something in between takes no body of {size:,} bytes"
    elif 300 <= status < 400 and response.headers.get("location"):
        why = f": it points to {response.headers['location'][:200]}"
        hint = "If that is the market, set it as market_url (GPUMARKET_MARKET_URL)."
    elif words := line_of_page(response.text):
        why = f", and says: {words}"
    server = response.headers.get("server") or response.headers.get("via")
    marks = ", ".join([*_phrase(status), *([f"by {server[:80]}"] if server else [])])
    if proxy:
        around = proxy.way_around(str(request.url))
        hint = f"It was asked through {proxy.told}, which may be who answered: {around}. {hint}"
    return f"{where} answered {status}, but not as a market does{f' ({marks})' if marks else ''}{why}", hint


def _phrase(status: int) -> list[str]:
    try:
        return [HTTPStatus(status).phrase]
    except ValueError:
        return []
