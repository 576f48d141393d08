"""What routes ask for: the market's context, and the common parameters of lists."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from contracts.api.problems import Code, Problem
from contracts.types import Address, Bytes32
from market.context import Context
from market.paging import DEFAULT_LIMIT, MAX_LIMIT


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
HashPath = Annotated[Bytes32, Path(description="0x and 64 hex digits")]
AddressPath = Annotated[Address, Path(description="0x and 40 hex digits")]
AddressQuery = Annotated[Address | None, Query()]
After = Annotated[str | None, Query(description="`next` of the page before", max_length=1000)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="most items to give")]
DEFAULT = DEFAULT_LIMIT
