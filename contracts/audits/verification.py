"""What `verification` in the Rules commits to: how checkpoints are audited, as a public JSON. Pure.

`Rules.verification` is the keccak of the RFC 8785 JSON of a Verification, so both orders of a lease sign all of it.
Lists stand in ascending order, without duplicates, so that what means the same has one hash.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from contracts.commitment import canonical_hash
from contracts.job.spec import MAX_THREADS, first_problem
from contracts.types import MAX_APPROVE_EVERY as MAX_APPROVE_EVERY
from contracts.types import Bytes32, WholeNumber, to_hex
from contracts.types import Level as Level

VERSION = 1  # of the JSON
PPM = 1_000_000
MAX_LISTED = 200  # numerics classes, and recipes


def _listed(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list; write [] for none")
    return value


def _ascending(value: tuple[str, ...]) -> tuple[str, ...]:
    for before, after in pairwise(value):
        if before == after:
            raise ValueError(f"{after} is there twice; leave one out")
        if before > after:
            raise ValueError(f"{after} comes after {before}; put them in ascending order")
    return value


Hashes = Annotated[
    tuple[Bytes32, ...], BeforeValidator(_listed), Field(max_length=MAX_LISTED), AfterValidator(_ascending)
]


class ThreadBounds(BaseModel):
    """Of how many threads a run may make use, so that a replay can take as many."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least: WholeNumber = Field(ge=1, le=MAX_THREADS)
    most: WholeNumber = Field(ge=1, le=MAX_THREADS)

    @model_validator(mode="after")
    def _in_order(self) -> "ThreadBounds":
        if self.least > self.most:
            raise ValueError(f"least is {self.least} and most is {self.most}; no run has so many threads: swap them")
        return self


class Verification(BaseModel):
    """How the checkpoints of leases under a rule-set are audited. Every field is there in every JSON.

    `unchecked`: bytes and hashes are looked at, nothing is trained again. `open`: any recipe; replays that differ void
    a lease, and the stake is burnt. `closed`: as well as that, the listed recipes convict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: WholeNumber = Field(ge=1, le=VERSION)
    level: Level
    share_ppm: WholeNumber = Field(
        ge=0, le=PPM, description="share of checkpoints that are replayed, in millionths; 0 if and only if unchecked"
    )
    approve_every: WholeNumber = Field(
        ge=1, le=MAX_APPROVE_EVERY, description="checkpoints that are drawn from, judged and approved together"
    )
    classes: Hashes = Field(description="numerics classes that audits cover, ascending; empty: any")
    threads: ThreadBounds | None = Field(description="thread counts that audits cover; null: any")
    recipes: Hashes = Field(
        description="hashes of all code that can be loaded, of recipes that may convict, ascending; of closed only"
    )
    tolerance: None = Field(description="null: a replay must give the same bits")
    arbiter: Literal["operator", "recompute"] = Field(
        description="operator: one person decides by its own means; recompute: it trains the questioned stretch again"
    )
    unreproducible: Literal["end", "unaudited"] = Field(
        description="how a job goes on whose honest runs differ from each other: not at all, or without replays"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Verification":
        if self.level == "unchecked":
            self._check_unchecked()
        elif self.share_ppm == 0:
            raise ValueError(
                f"share_ppm is 0 at the level {self.level!r}: nothing would be replayed; "
                "give a share, or say 'unchecked'"
            )
        elif self.arbiter != "recompute":
            raise ValueError(
                f"arbiter is {self.arbiter!r} at the level {self.level!r}, whose verdicts come from training again; "
                "say 'recompute'"
            )
        if self.level == "closed" and not self.recipes:
            raise ValueError("recipes is [] at the level 'closed': none could convict; list some, or say 'open'")
        if self.level != "closed" and self.recipes:
            raise ValueError(
                f"recipes lists {len(self.recipes)} at the level {self.level!r}, which convicts by none; write []"
            )
        return self

    def _check_unchecked(self) -> None:
        if self.share_ppm:
            raise ValueError(f"share_ppm is {self.share_ppm} at the level 'unchecked'; say 0, or 'open' or 'closed'")
        if self.approve_every != 1:
            raise ValueError(
                f"approve_every is {self.approve_every} at the level 'unchecked', where approvals wait for no draw; "
                "say 1"
            )
        if self.classes or self.threads:
            raise ValueError("classes and threads bound audits, and 'unchecked' has none; write [] and null")

    def hash(self) -> str:
        """What `verification` of the Rules must be."""
        return to_hex(canonical_hash(self.model_dump(mode="json")))


def read_verification(value: Any, what: str) -> Verification:
    """Of JSON or TOML. `what` names it in errors. Raises UserError that names the field, its value and the way out."""
    try:
        return Verification.model_validate(value)
    except ValidationError as error:
        raise first_problem(error, Verification.model_fields, what) from error
