"""What an epoch's auction takes and gives. All amounts are integers."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from contracts.errors import UserError
from contracts.job.provider_wants import UNKNOWN, Standing, Wants
from contracts.types import SECONDS_PER_HOUR

LOT_SIZES = (0, 1, 2, 4, 8)  # GPUs of one machine that are sold together; 0: a CPU
EVERYTHING = Wants()
Size = tuple[str, int]  # a rule-set, and one of LOT_SIZES: its orders trade with no others


def _check_positive(name: str, value: int, id: str) -> None:
    if value <= 0:
        raise UserError(f"{name} of order {id} is {value}", "It must be more than 0: sign the order again.")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job asks of a machine, whatever its price. Bids that ask for the same may share one object."""

    rules: str  # hash
    environment: str
    gpus: int = 0
    vram_mb: int = 0  # per GPU
    memory_mb: int = 0
    devices: frozenset[str] = frozenset()  # empty: any
    regions: frozenset[str] = frozenset()  # empty: any
    tier: int = 0  # of the provider's reliability, at least
    hosts: frozenset[str] = frozenset()  # that files are fetched from
    units_per_hour: int = 0  # at least
    numerics: frozenset[str] = frozenset()  # classes of bits; empty: any

    @property
    def size(self) -> int:
        """The lot that the job trades in: the least that has its GPUs."""
        return LOT_SIZES[bisect_left(LOT_SIZES, self.gpus)]

    @property
    def pool(self) -> Size:
        return self.rules, self.size


@dataclass(frozen=True, slots=True)
class Lot:
    """What a provider sells, whatever its price and speed. Asks that sell the same may share one object."""

    rules: str
    environments: frozenset[str]
    device: str
    gpus: int = 0
    vram_mb: int = 0
    memory_mb: int = 0
    region: str = ""
    tier: int = 0
    hosts: frozenset[str] = frozenset()
    wants: Wants = EVERYTHING
    numerics: str = ""  # class of the machine's bits; "": not told

    def __hash__(self) -> int:
        """Of nearly all that makes a lot: an object of Wants takes longer than the rest."""
        wants = self.wants.min_pay, self.wants.allow_clients, self.wants.deny_clients
        machine = self.device, self.gpus, self.vram_mb, self.memory_mb, self.region, self.tier, self.numerics
        return hash((self.rules, self.environments, self.hosts, machine, wants))

    @property
    def size(self) -> int:
        return LOT_SIZES[bisect_right(LOT_SIZES, self.gpus) - 1]

    @property
    def pool(self) -> Size:
        return self.rules, self.size


@dataclass(frozen=True, slots=True)
class BidOffer:
    """A Bid that waits, from the checkpoint it has reached."""

    id: str
    client: str
    needs: Needs
    units: int  # of work in a checkpoint
    limit: int  # per checkpoint, without the fee
    fee: int
    stake: int
    rest: int  # checkpoints that are still to be done
    recipe: str = ""  # SHA-256 of its file
    avoid: frozenset[str] = frozenset()  # providers that let this job down; only if there is no other
    given_back_by: frozenset[str] = frozenset()  # providers that found more work in it than it signs: never again
    providers: frozenset[str] = frozenset()  # that the client names: no others; empty: any
    not_providers: frozenset[str] = frozenset()  # that the client names, or whose work on it was wrong: never
    standing: Standing = UNKNOWN  # of the client, by the chain
    timeout: int | None = None  # seconds that the rules give for a checkpoint
    left: int | None = None  # seconds to the job's deadline

    def __post_init__(self) -> None:
        _check_positive("units", self.units, self.id)

    @property
    def refused(self) -> frozenset[str]:
        """Providers that can't have it."""
        return self.given_back_by | self.not_providers

    @property
    def told_apart(self) -> frozenset[str]:
        """Providers that are not like any other to it."""
        return self.avoid | self.refused | self.providers

    @property
    def lowest_speed(self) -> int:
        """Work units per hour that keep the rules' timeout, and what the client asks for."""
        within = -(-self.units * SECONDS_PER_HOUR // self.timeout) if self.timeout else 0
        return max(within, self.needs.units_per_hour)

    @property
    def deadline_speed(self) -> int:
        """Work units per hour that are done by the job's deadline."""
        return -(-self.units * self.rest * SECONDS_PER_HOUR // max(1, self.left)) if self.left is not None else 0


@dataclass(frozen=True, slots=True)
class AskOffer:
    id: str
    provider: str
    lot: Lot
    price_per_hour: int
    units_per_hour: int
    max_stake: int
    max_active: int
    max_checkpoints: int

    def __post_init__(self) -> None:
        _check_positive("units_per_hour", self.units_per_hour, self.id)
        _check_positive("price_per_hour", self.price_per_hour, self.id)

    def price(self, per_hour: int, units: int) -> int:
        """Of a checkpoint, at this machine's own speed: least integer that gives `per_hour`."""
        return max(1, -(-per_hour * units // self.units_per_hour))


@dataclass(frozen=True, slots=True)
class Book:
    """All orders of one epoch, and what their parties can still lock."""

    bids: tuple[BidOffer, ...]
    asks: tuple[AskOffer, ...]
    free: Mapping[str, int] = field(default_factory=dict)  # address -> free balance, token units
    active: Mapping[str, int] = field(default_factory=dict)  # provider -> live leases


class Reason(StrEnum):
    """Why a Bid was not matched: how far its best ask came. In the order in which they are looked at, so that of two
    asks the one with the later reason came further.
    """

    NO_ASKS = "there are no open asks"
    RULES = "no ask is under the rules that this bid signs"
    LOT = "no machine sells as many GPUs at once as the job wants"
    ENVIRONMENT = "no machine has the environment that the job wants"
    DEVICE = "no machine has a GPU of a model that the job wants"
    VRAM = "no GPU has the memory that the job wants"
    MEMORY = "no machine has the memory that the job wants"
    REGION = "no machine is in a region that the job wants"
    TIER = "no fitting provider is as reliable as the job wants"
    HOSTS = "no fitting machine fetches files from the hosts that the job's files are at"
    NUMERICS = "no fitting machine is of a numerics class that the job wants"
    STAKE = "no fitting provider is ready to lock the stake that this bid wants"
    SPEED = (
        "every fitting machine is too slow for the time that the rules give for a checkpoint, or for what the job asks"
    )
    DEADLINE = "every fitting machine is too slow to be done by the job's deadline"
    WANTED = "every fitting provider refuses this client or this recipe, or wants longer leases"
    PROVIDERS = "every fitting machine is of a provider that the job does not want, or whose work on it was wrong"
    UNITS = "every fitting provider gave it back: its steps take more than the work that it signs"
    RANGE = "every fitting ask takes more per hour than the auction can count with"
    PRICE = "every fitting ask is above this bid's price"
    CAPACITY = "every fitting machine within this bid's price is taken, or its provider's stake is"
    OUTBID = "others pay more for the machines that fit"
    BALANCE = "the client's free balance does not cover this bid and its others at their highest price"

    @property
    def rank(self) -> int:
        """How far an ask came that was refused for this."""
        return _RANKS[self]


_RANKS = {reason: rank for rank, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True)
class TradeClass:
    """Machines that are alike to every bid, but for what they cost. Each bound is the least that all of them give."""

    lot: Lot
    units_per_hour: int
    stake: int
    min_work: int = 0  # work units that a lease must have for the provider's least pay, at its own price
    max_checkpoints: int = 0  # of a lease; told where min_work is
    provider: str = ""  # told where a bid tells it apart: avoids, names or refuses it


@dataclass(frozen=True, slots=True)
class Match:
    bid: BidOffer
    ask: AskOffer
    price: int  # per checkpoint, without fee
    trade_class: TradeClass
    place: int = 0  # how many leases the provider may have got in this epoch before this one

    @property
    def count(self) -> int:
        """Checkpoints of the lease; docs/protocol.md section 2 leaves the matcher no choice."""
        return min(self.bid.rest, self.ask.max_checkpoints)

    @property
    def lock(self) -> int:
        """What the lease locks of the client's balance."""
        return (self.price + self.bid.fee) * self.count


Prices = Mapping[TradeClass, int]  # ticks per lot-hour
# Id, rest, and how its client stands: what else a bid is does not change, or takes machines out of its reach.
BidKey = tuple[str, int, Standing]


@dataclass(frozen=True, slots=True)
class Rest:
    """What an epoch left of one size: what was offered and not matched, and the prices at which that is right."""

    bids: Mapping[BidKey, Reason]
    slots: Mapping[TradeClass, Mapping[str, int]]  # ask id -> how many leases it could still open
    prices: Prices


Resting = Mapping[Size, Rest]


@dataclass(frozen=True, slots=True)
class Result:
    """Matches in an order in which the escrow opens them all.

    Sizes that were not solved have no matches; their prices and reasons are those of the epoch before.
    """

    matches: tuple[Match, ...]
    prices: Prices  # of each class in a size with bids
    reasons: Mapping[str, Reason]  # bid id -> why not
    surplus: int  # ticks per lot-hour: what the matched bids would have paid, less what the asks would have taken
    touched: frozenset[Size]  # the sizes that were solved
    resting: Resting  # for the next epoch
