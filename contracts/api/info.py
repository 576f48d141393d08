"""What a market says of itself: the body of `GET /v1/info`, and the rule-sets in it."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from contracts.api.bodies import Body
from contracts.api.protocol import OLDEST
from contracts.audits.levels import BEFORE
from contracts.audits.verification import VERSION, Level, Verification
from contracts.errors import UserError
from contracts.finality import Finality
from contracts.orders import Rules
from contracts.types import Address, Bytes32, Finite, Uint64, Uint256


class RuleSet(BaseModel):
    """What orders sign by its hash, and the JSON of its level of proof."""

    model_config = ConfigDict(extra="forbid")

    name: str
    hash: Bytes32
    rules: Rules
    description: str = ""
    verification: Verification | None = Field(
        default=None, description="the JSON whose keccak the rules commit to; null: of a former version, not published"
    )

    _newer: int | None = PrivateAttr(default=None)  # the version of a verification that this program does not know

    @model_validator(mode="wrap")
    @classmethod
    def _may_be_newer(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """A rule-set of a newer version must not hide those beside it: it is read, and nothing is signed under it."""
        shown = value.get("verification") if isinstance(value, dict) else None
        version = shown.get("version") if isinstance(shown, dict) else None
        if type(version) is not int or version <= VERSION:
            return handler(value)
        found = handler({**value, "verification": None})
        found._newer = version
        return found

    @property
    def newer(self) -> str | None:
        """Why this program can't tell what is audited here; None if it can."""
        if self._newer is None:
            return None
        return f"of a newer version: its verification has version {self._newer}, this program knows {VERSION}"

    @property
    def level(self) -> Level:
        """What is promised to be replayed; of rules that publish nothing, nothing."""
        return "unchecked" if self.verification is None else self.verification.level

    @property
    def ends_unreproducible(self) -> bool:
        """Whether a job is over whose honest runs differ from each other."""
        shown = self.verification
        return shown is not None and shown.level != "unchecked" and shown.unreproducible == "end"

    @property
    def most_unjudged(self) -> int:
        """Checkpoints that may be made and not judged, before training waits."""
        return 1 if self.verification is None else self.verification.approve_every

    def check(self) -> None:
        """UserError if the market gives other rules, or another level of proof, than an order under them signs."""
        if self.rules.struct_hash() != self.hash:
            raise UserError(
                f"the market's rules '{self.name}' do not have the hash {self.hash} that it gives for them",
                "Sign nothing there: ask the market's operator, or use another market.",
            )
        if self.newer is not None:
            raise UserError(
                f"the market's rules '{self.name}' are {self.newer}",
                "Install the newest gpumarket, or take other rules of the market.",
            )
        if self.verification is None and self.rules.verification in BEFORE:
            return
        shown = "none" if self.verification is None else f"one with the hash {self.verification.hash()}"
        if self.verification is None or self.verification.hash() != self.rules.verification:
            raise UserError(
                f"the market's rules '{self.name}' commit to the verification {self.rules.verification}, and the JSON "
                f"that it shows for it is {shown}: what is audited there, nobody can tell",
                "Sign nothing there: ask the market's operator, or use another market.",
            )


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
