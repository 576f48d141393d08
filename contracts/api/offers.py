"""Bodies of `/v1/offers`: what machines are on offer, and what a job would cost on each."""

from typing import Annotated

from pydantic import Field

from contracts.api.bodies import Body
from contracts.api.quotes import QuoteIn
from contracts.job.measured import SecondsBasis
from contracts.job.spec import MAX_NAMES, MAX_TIER, VramMb
from contracts.types import Address, Bytes32, Finite, Text, Uint16, Uint64, Uint96, Uint256

Names = list[Annotated[Text, Field(max_length=200)]]


class OffersIn(Body):
    """Which machines to show. Names are compared exactly; of several, any will do."""

    devices: Names = Field(default=[], max_length=MAX_NAMES)
    gpus: int | None = Field(
        default=None,
        ge=0,
        le=8,
        description="that a job would use: it takes a lot of 0, 1, 2, 4 or 8 GPUs",
    )
    min_vram_mb: VramMb = 0
    regions: Names = Field(default=[], max_length=MAX_NAMES)
    min_tier: int = Field(default=0, ge=0, le=MAX_TIER)
    environment: Text | None = Field(default=None, max_length=64)
    rules: Text | None = Field(default=None, max_length=100, description="name of a rule-set")
    min_units_per_hour: Uint64 = 0
    max_price_per_hour: Uint96 | None = None
    free: bool = Field(default=False, description="only those that no lease keeps busy")
    job: QuoteIn | None = Field(default=None, description="what it would cost on each that fits, the cheapest first")
    misfits: bool = Field(default=False, description="with a job: those that do not fit, too, and why")
    after: str | None = Field(default=None, max_length=1000, description="`next` of the page before")
    limit: int = Field(default=100, ge=1, le=500)


class JobOnMachine(Body):
    """What a job would find on one machine. Money is per checkpoint with the market's fee, if not said otherwise."""

    reason: str | None = Field(
        description="why the two can't trade, the first of: rules, lot, environment, device, vram, memory, region, "
        "tier, hosts, stake, speed, deadline, wanted (the provider refuses), units (it gave the job back for its "
        "work), range (it takes more than the auction can count with), price; null: they can"
    )
    lowest_limit: Uint256 = Field(description="the least max_price with which the machine can be had")
    price: Uint256 = Field(description="what is paid if nobody else wants it; below lowest_limit, by 3 % at most")
    cost: Uint256 = Field(description="of all checkpoints at that price")
    seconds_per_checkpoint: Finite
    seconds_basis: SecondsBasis = Field(description="how far that is known, as in a quote")
    per_hour: Uint256 = Field(description="what an hour would cost at that price and time")
    seconds: Finite = Field(description="for all checkpoints")
    likely: bool = Field(description="whether the auction would give the job to this machine, now or when it is free")


class OfferOut(Body):
    """An Ask that can be matched now, or when its lease is over. The cheapest of a provider's, if there are several."""

    ask: Bytes32
    provider: Address
    rules: str = Field(description="name of the rule-set")
    device: str
    gpus: int
    vram_mb: int = Field(description="per GPU")
    memory_mb: int
    environments: list[str]
    region: str
    hosts: list[str] = Field(description="from which jobs' files are fetched")
    numerics: Bytes32 | None = Field(description="class of the machine's bits, if told")
    tier: int = Field(description="the provider's reliability")
    units_per_hour: Uint64
    price_per_hour: Uint96
    max_stake: Uint96
    max_checkpoints: Uint16 = Field(description="of a lease")
    free: bool = Field(description="whether it could begin a lease now")
    job: JobOnMachine | None
