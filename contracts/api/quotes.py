"""Bodies of `/v1/quote`: what a job would cost, and the Bid to sign for it."""

from typing import Any

from pydantic import Field

from contracts.api.bodies import Body
from contracts.audits.verification import Level
from contracts.job.measured import MeasuredOn, SecondsBasis
from contracts.job.spec import PostedSpec
from contracts.orders import Bid
from contracts.types import ZERO_TIP, Address, Bytes20, Bytes32, Finite, Text, Uint16, Uint64, Uint96, Uint256


class QuoteIn(Body):
    client: Address
    spec: PostedSpec
    units: Uint64 = Field(description="work units per checkpoint")
    rules: Text | None = Field(
        default=None, max_length=100, description="name of a rule-set; default: the market's first"
    )
    max_price: Uint96 | None = Field(
        default=None, description="per checkpoint, fee included; default: 1.25 x what half of the providers take"
    )
    stake: Uint96 | None = Field(
        default=None,
        description="default: what deters under the rules, such as 5 prices and the arbiter's fee; 10 if unchecked",
    )
    approver: Address | None = None
    valid_for: int = Field(
        default=7 * 24 * 3600, ge=1, le=10 * 365 * 24 * 3600, description="seconds; a sooner deadline of the job holds"
    )
    measured_on: MeasuredOn | None = Field(default=None, description="where the units were, as job.yaml says")
    start_tip: Bytes20 = Field(default=ZERO_TIP, description="accepted tip of an earlier job to go on from")


class AuditQuote(Body):
    """How the job would be looked after under its rules, and what that costs."""

    level: Level
    share_ppm: int = Field(description="share of the checkpoints that are replayed, in millionths")
    approve_every: int = Field(description="checkpoints that are judged and approved together")
    replay_cost: Uint256 = Field(description="expected of all checkpoints, if a replay costs max_price; on top of it")
    deterring_stake: Uint256 | None = Field(
        description="about from this stake on a lie costs more than it brings; null: none does, nothing is replayed"
    )


class QuoteOut(Body):
    job: Bytes32
    checkpoints: Uint16
    matching_asks: int = Field(description="providers with such an ask")
    lowest_limit: Uint256 | None = Field(
        description="per checkpoint, fee included: the least max_price with which some machine that fits can be had"
    )
    likely_price: Uint96 | None = Field(
        description="per checkpoint, fee included: what the auction would charge this Bid now, or when a machine that "
        "fits is free again; null if it would get none"
    )
    likely_ask: Bytes32 | None = Field(description="whose machine the auction would give it")
    seconds_per_checkpoint: Finite | None = Field(description="on that machine")
    seconds_basis: SecondsBasis | None = Field(
        description="recorded: by the job's own checkpoints there. measured: units were, on this kind of machine. "
        "elsewhere: on another kind; an estimate. counted: nobody says so; it may take longer"
    )
    likely_per_hour: Uint256 | None = Field(description="what an hour would cost at that price and time")
    likely_cost: Uint96 | None = Field(description="all checkpoints at the likely price")
    highest_cost: Uint96 = Field(description="checkpoints x max_price: what can be spent at most")
    free: Uint96 = Field(description="the client's free balance in the escrow")
    missing: Uint96 = Field(description="to deposit before the job can start at highest_cost; 0 if it is there")
    audit: AuditQuote
    bid: Bid
    typed_data: dict[str, Any] = Field(description="ready for eth_signTypedData_v4 or `cast wallet sign --data`")
    warnings: list[str]
