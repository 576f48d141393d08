"""How long a job's checkpoints take, and how far that is known. Pure."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from contracts.types import Finite, WholeNumber


class MeasuredOn(BaseModel):
    """Where a job's units were measured. They are exact there, and an estimate on other kinds of machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(min_length=1, max_length=200, description="model, as Asks name it")
    threads: WholeNumber = Field(ge=1, le=10_000, description="of the CPU")
    units_per_hour: WholeNumber = Field(ge=1, lt=1 << 53, description="what the benchmark beside it did")
    seconds: Finite = Field(gt=0, le=10**9, description="that a checkpoint took")


class SecondsBasis(StrEnum):
    """What an expected time is told from."""

    RECORDED = "recorded"  # the job's own checkpoints, on that provider's machine
    MEASURED = "measured"  # by `recipe measure`, on a machine of that kind
    ELSEWHERE = "elsewhere"  # likewise, on another kind: an estimate
    COUNTED = "counted"  # from units of which nobody says that they were measured: it may take longer
