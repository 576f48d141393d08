"""Which leases a provider wants: part of what its Ask signs, so that market and agent decide alike."""

from pydantic import BaseModel, ConfigDict, Field

from contracts.types import Address, Bytes32, Uint96

MAX_LISTED = 200


class Wants(BaseModel):
    """Public with the Ask. An empty allow list allows all; a deny list comes before it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow_clients: tuple[Address, ...] = Field(
        default=(), max_length=MAX_LISTED, description="addresses; only these clients' jobs"
    )
    deny_clients: tuple[Address, ...] = Field(
        default=(), max_length=MAX_LISTED, description="addresses; no job of these clients"
    )
    allow_recipes: tuple[Bytes32, ...] = Field(
        default=(), max_length=MAX_LISTED, description="SHA-256 of recipe files, 0x-hex; only these recipes"
    )
    deny_recipes: tuple[Bytes32, ...] = Field(
        default=(), max_length=MAX_LISTED, description="SHA-256 of recipe files, 0x-hex; none of these recipes"
    )
    min_pay: Uint96 = Field(default=0, description="least that a whole lease must pay, in the token's smallest unit")

    def objection(self, client: str, recipe: str, pay: int) -> str | None:
        """Why a lease is not wanted; None if it is. `recipe` is its file's SHA-256, `pay` price times checkpoints."""
        if client in self.deny_clients:
            return f"the client {client} is on this provider's deny list"
        if self.allow_clients and client not in self.allow_clients:
            return f"the client {client} is not on this provider's allow list"
        if recipe in self.deny_recipes:
            return f"the recipe {recipe} is on this provider's deny list"
        if self.allow_recipes and recipe not in self.allow_recipes:
            return f"the recipe {recipe} is not on this provider's allow list"
        if pay < self.min_pay:
            return f"the lease pays {pay}, this provider wants {self.min_pay} at least"
        return None
