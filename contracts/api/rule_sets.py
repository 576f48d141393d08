"""A rule-set as a market shows it: what orders sign by its hash, and the JSON of its level of proof."""

from pydantic import BaseModel, ConfigDict, Field

from contracts.audits.levels import BEFORE
from contracts.audits.verification import Level, Verification
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.types import Bytes32


class RuleSet(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    hash: Bytes32
    rules: Rules
    description: str = ""
    verification: Verification | None = Field(
        default=None, description="the JSON whose keccak the rules commit to; null: of a former version, not published"
    )

    @property
    def level(self) -> Level:
        """What is promised to be replayed; of rules that publish nothing, nothing."""
        return "unchecked" if self.verification is None else self.verification.level

    def check(self) -> None:
        """UserError if the market gives other rules, or another level of proof, than an order under them signs."""
        if self.rules.struct_hash() != self.hash:
            raise UserError(
                f"the market's rules '{self.name}' do not have the hash {self.hash} that it gives for them",
                "Sign nothing there: ask the market's operator, or use another market.",
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
