"""What an epoch's clearing takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from contracts.api.bodies import AskResources
from contracts.jobspec import Resources
from contracts.orders import Ask, Bid


@dataclass(frozen=True)
class BidOffer:
    """A Bid that waits, from the checkpoint it has reached."""

    id: str
    bid: Bid
    environment: str
    needs: Resources
    start: int = 0  # checkpoints accepted so far
    avoid: frozenset[str] = frozenset()  # providers that let this job down; only if there is no other
    timeout: int | None = None  # seconds that the rules give for a checkpoint
    recipe: str = ""  # SHA-256 of its file
    hosts: frozenset[str] = frozenset()  # that files are fetched from
    left: int | None = None  # seconds to the job's deadline

    @property
    def rest(self) -> int:
        return self.bid.checkpoints - self.start


@dataclass(frozen=True)
class AskOffer:
    id: str
    ask: Ask
    resources: AskResources


@dataclass(frozen=True)
class Book:
    """All orders of one epoch, and what their parties can still lock."""

    bids: tuple[BidOffer, ...]
    asks: tuple[AskOffer, ...]
    free: Mapping[str, int] = field(default_factory=dict)  # address -> free balance, token units
    active: Mapping[str, int] = field(default_factory=dict)  # provider -> live leases


class Reason(StrEnum):
    """Why a Bid was not matched: how far its best ask came."""

    NO_ASKS = "there are no open asks"
    RULES = "no ask is under the rules that this bid signs"
    ENVIRONMENT = "no machine has the environment that the job wants"
    RESOURCES = "no machine has the GPUs or the memory that the job wants"
    HOSTS = "no fitting machine fetches files from the hosts that the job's files are at"
    STAKE = "no fitting provider is ready to lock the stake that this bid wants"
    SPEED = "every fitting machine is too slow for the time that the rules give for a checkpoint"
    DEADLINE = "every fitting machine is too slow to be done by the job's deadline"
    PRICE = "every fitting ask is above this bid's price"
    WANTED = "every fitting provider refuses this client or this recipe, or wants longer leases"
    CAPACITY = "every fitting machine is taken, or its provider's stake is"
    BALANCE = "the client's free balance does not cover the next lease"


@dataclass(frozen=True)
class Match:
    bid: BidOffer
    ask: AskOffer
    price: int  # per checkpoint, without fee
    count: int  # checkpoints of the lease

    @property
    def lock(self) -> int:
        """What the lease locks of the client's balance."""
        return (self.price + self.bid.bid.fee) * self.count


@dataclass(frozen=True)
class Result:
    matches: tuple[Match, ...]
    reasons: Mapping[str, Reason]  # bid id -> why not
