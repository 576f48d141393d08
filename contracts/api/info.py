"""What a market says of itself: the body of `GET /v1/info`."""

from pydantic import Field

from contracts.api.bodies import Body
from contracts.api.protocol import OLDEST
from contracts.api.rule_sets import RuleSet
from contracts.finality import Finality
from contracts.types import Address, Finite, Uint64, Uint256


class Info(Body):
    """What a client, worker or approver must know of a market before it signs anything."""

    version: str
    protocol: int = Field(default=OLDEST, ge=1, description="version of docs/protocol.md; without it, 1")
    chain_id: Uint256
    escrow: Address
    token: Address
    token_symbol: str
    token_decimals: int
    epoch_log: Address
    matcher: Address
    approver: Address | None = Field(description="an approver that this market's operator recommends")
    fee: Uint64 = Field(description="per accepted checkpoint, on top of the price")
    rules: list[RuleSet]
    epoch_seconds: Finite
    finality: Finality = Field(description="when this market counts a lease's last change as final")
    max_blob_bytes: int
    draining: bool = Field(default=False, description="it takes no new orders and opens no leases any more")
    successor: str | None = Field(default=None, description="address of the market that takes its place then")
    block: int = Field(description="newest block that the market has followed")
