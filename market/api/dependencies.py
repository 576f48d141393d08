"""What routes ask for: the market's context, and the common parameters of lists."""

from typing import Annotated

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, Path, Query, Request, Security
from fastapi.security import APIKeyHeader

from contracts.api.access import SCHEME
from contracts.api.problems import Code, Problem
from contracts.types import Address, Bytes32
from market.api.access import Caller, Callers, token_missing, wrong_scope
from market.runtime.context import Context
from market.services.quoting.pricing import Offers
from market.store.paging import DEFAULT_LIMIT, MAX_LIMIT

# Tokens are checked in threads of their own: where the node is silent they wait for each other, and nobody for them.
_CHECKING = CapacityLimiter(8)


def get_context(request: Request) -> Context:
    """The context of a market that has followed the chain once. Before that its answers would be wrong."""
    context: Context = request.app.state.context
    if not context.caught_up.is_set():
        raise Problem(
            503,
            Code.MARKET_NOT_READY,
            f"this market still follows the chain; it has come to block {context.head.number}",
            "Try again in a moment.",
        )
    return context


Market = Annotated[Context, Depends(get_context)]


def get_offers(_: Market, request: Request) -> Offers:
    known: Offers = request.app.state.offers
    return known


KnownOffers = Annotated[Offers, Depends(get_offers)]

# In the schema, for those operations that need it.
_TOKEN = APIKeyHeader(
    name="Authorization",
    scheme_name="AccessToken",
    description=f"`{SCHEME} <token>`: a signed AccessToken, see docs/access.md",
    auto_error=False,
)


async def get_caller(market: Market, request: Request) -> Caller | None:
    """Who signed the request's token, if it has one. Counts the request, once."""
    if not hasattr(request.state, "caller"):
        callers: Callers = request.app.state.callers
        address = request.client.host if request.client else ""
        header = request.headers.get("authorization")
        if callers.knows(header):
            request.state.caller = callers.admit(header, address)
        else:
            request.state.caller = await run_sync(callers.admit, header, address, limiter=_CHECKING)
    caller: Caller | None = request.state.caller
    return caller


def get_reader(
    caller: Annotated[Caller | None, Depends(get_caller)], _: Annotated[str | None, Security(_TOKEN)]
) -> Caller:
    """Somebody who wants to read a job."""
    return _with_scope(caller, "read")


def get_writer(
    caller: Annotated[Caller | None, Depends(get_caller)], _: Annotated[str | None, Security(_TOKEN)]
) -> Caller:
    """Somebody who wants to upload."""
    return _with_scope(caller, "write")


def _with_scope(caller: Caller | None, scope: str) -> Caller:
    if caller is None:
        raise token_missing(scope)
    if caller.token.scope != scope:
        raise wrong_scope(caller.token, scope)
    return caller


ReadingCaller = Annotated[Caller, Depends(get_reader)]
WritingCaller = Annotated[Caller, Depends(get_writer)]
HashPath = Annotated[Bytes32, Path(description="0x and 64 hex digits")]
AddressPath = Annotated[Address, Path(description="0x and 40 hex digits")]
AddressQuery = Annotated[Address | None, Query()]
After = Annotated[str | None, Query(description="`next` of the page before", max_length=1000)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="most items to give")]
DEFAULT = DEFAULT_LIMIT
