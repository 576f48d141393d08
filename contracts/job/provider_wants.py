"""Which leases a provider wants: part of what its Ask signs, so that market and agent decide alike."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from contracts.types import MAX_APPROVE_EVERY, Address, Bytes32, Level, Uint16, Uint96, WholeNumber

MAX_LISTED = 200
USUAL_VOIDS = 2  # that a client may have; a liar that is caught under open rules gives its honest client one, too


class Standing(NamedTuple):
    """What the chain knows of a client: contracts/chain/reliability.py counts it."""

    voids: int = 0  # leases that were void, less one for each 20 others
    new: bool = True  # it has paid for little yet


UNKNOWN = Standing()


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
    levels: tuple[Level, ...] = Field(
        default=(),
        max_length=3,
        exclude_if=lambda levels: not levels,
        description="levels of proof to work under: unchecked, open, closed; empty: any",
    )
    most_unjudged: WholeNumber = Field(
        default=MAX_APPROVE_EVERY,
        ge=1,
        le=MAX_APPROVE_EVERY,
        exclude_if=lambda most: most == MAX_APPROVE_EVERY,
        description="checkpoints that rules may leave unjudged before training waits",
    )
    client_voids_at_most: Uint16 = Field(
        default=USUAL_VOIDS,
        exclude_if=lambda most: most == USUAL_VOIDS,
        description="leases of a client that were void, less one for each 20 others",
    )
    new_clients: bool = Field(
        default=True, exclude_if=lambda new: new, description="false: no jobs of clients that have paid for little yet"
    )
    min_pay: Uint96 = Field(default=0, description="least that a whole lease must pay, in the token's smallest unit")

    @property
    def of_jobs(self) -> "Wants":
        """What is wanted of a job, whatever the rules: those an Ask signs itself."""
        return self.model_copy(update={"levels": (), "most_unjudged": MAX_APPROVE_EVERY})

    def objection_to_rules(self, level: Level, unjudged: int) -> str | None:
        """Why no Ask is to be made under rules that leave so many checkpoints unjudged; None if one may."""
        if self.levels and level not in self.levels:
            return f"the rules are of the level {level!r}, and this provider wants {' or '.join(self.levels)}"
        if unjudged > self.most_unjudged:
            return (
                f"the rules leave up to {unjudged} checkpoints unjudged, and this provider wants {self.most_unjudged} "
                "at most"
            )
        return None

    def objection(self, client: str, recipe: str, pay: int, standing: Standing = UNKNOWN) -> str | None:
        """Why a lease is not wanted; None if it is. `recipe` is its file's SHA-256, `pay` price times checkpoints."""
        if client in self.deny_clients:
            return f"the client {client} is on this provider's deny list"
        if self.allow_clients and client not in self.allow_clients:
            return f"the client {client} is not on this provider's allow list"
        if standing.voids > self.client_voids_at_most:
            return (
                f"{standing.voids} leases of the client {client} were void, this provider takes "
                f"{self.client_voids_at_most} at most"
            )
        if standing.new and not self.new_clients:
            return f"the client {client} has paid for little yet, and this provider takes no new clients"
        if recipe in self.deny_recipes:
            return f"the recipe {recipe} is on this provider's deny list"
        if self.allow_recipes and recipe not in self.allow_recipes:
            return f"the recipe {recipe} is not on this provider's allow list"
        if pay < self.min_pay:
            return f"the lease pays {pay}, this provider wants {self.min_pay} at least"
        return None
