"""Bodies of what a market publishes of its epochs: enough to clear each of them again (docs/matching.md)."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

from eth_utils.crypto import keccak
from pydantic import Field

from contracts.api.auditing.notes import AuditNoteIn
from contracts.api.bodies import AskResources, Body, ReceiptOut
from contracts.commitment import canonical_hash, merkle_root
from contracts.job.provider_wants import Wants
from contracts.job.spec import JobSpec
from contracts.orders import FAILURES, Ask, Bid, Report, ReportKind, Rules
from contracts.types import Address, Bytes32, Signature, Time, Uint40, Uint64, Uint96, Uint256, from_hex, to_hex

REFUSED_SECONDS = 600  # for which an order is left out after the escrow has refused to open its match


class LeftOutReason(StrEnum):
    """Why an order that is in force by its own terms is not in an epoch's set."""

    FINAL = "final"  # the lease that the Bid continues is not deep enough in the chain yet
    FAILED = "failed"  # three leases failed at the same checkpoint
    UNREPRODUCIBLE = "unreproducible"  # its honest runs differ from each other, and its rules end it then
    STOPPED_EARLY = "stopped_early"  # the job's own rule for an early end is met, by the metrics that were reported
    SILENT = "silent"  # the Ask's provider has let a lease time out since the market received the Ask
    UNAUDITED = "unaudited"  # nobody audits what the Ask's provider trains, nor could anybody else in this epoch
    RESERVE = "reserve"  # the market's approver has nothing to pay replays of its checkpoints with
    REFUSED = "refused"  # the escrow refused to open a match of it, in an epoch of the last REFUSED_SECONDS


class LeftOut(Body):
    order: Bytes32
    reason: LeftOutReason
    lease: Bytes32 | None = Field(default=None, description="that shows it; of `final` and `silent`")
    epoch: Uint40 | None = Field(default=None, description="of `refused`")


TELLING_KINDS: tuple[ReportKind, ...] = (*FAILURES, "units")  # of Reports that change what a Bid is matched with


class FailureReport(Body):
    """A provider's signed word that it failed at a job: the job's Bid avoids it from then on. Or that it gave the job
    back since its steps take more than the units that were signed: the Bid is never matched with it again.
    """

    report: Report
    signature: Signature


class EpochHeader(Body):
    """What an epoch takes beside the orders and the chain up to `block`. Committed to together with the orders."""

    number: Uint40
    market: Address
    chain_id: Uint256
    escrow: Address
    block: Uint40 = Field(description="newest that counts: balances, leases and orders' pages are as of its end")
    block_hash: Bytes32
    time: Uint40 = Field(description="UTC seconds, of the market's clock: deadlines are counted from here")
    tick: Uint64 = Field(description="token units that prices per hour are multiples of")
    rules: list[Rules] = Field(description="that the Bids sign, by ascending hash")
    failures: list[FailureReport] = Field(
        description="of jobs in the set, each lease's first of the kinds failed, random and units; by their digests"
    )
    left_out: list[LeftOut] = Field(description="by ascending order")
    unaudited: list[AuditNoteIn] = Field(
        default_factory=list,
        exclude_if=lambda notes: not notes,
        description="of providers whose Asks are left out for it, each one's two newest rulings that say so",
    )
    unreproducible: list[AuditNoteIn] = Field(
        default_factory=list,
        exclude_if=lambda notes: not notes,
        description="a ruling on each job that is left out for it, but for those of which an arbiter said it on chain",
    )

    def leaf(self) -> bytes:
        return keccak(b"gpumarket epoch" + canonical_hash(self.model_dump(mode="json", by_alias=True)))


def order_leaf(order: str) -> bytes:
    return keccak(b"gpumarket order" + from_hex(order))


def epoch_root(header: EpochHeader, orders: Iterable[str]) -> str:
    """Commitment to an epoch: the tree of docs/protocol.md section 3 over its header and its orders by ascending id."""
    return to_hex(merkle_root([header.leaf(), *map(order_leaf, sorted(orders))]))


class MatchOut(Body):
    bid: Bytes32
    ask: Bytes32
    price: Uint96 = Field(description="per checkpoint, without fee")
    place: int = Field(default=0, description="leases that its provider may get in this epoch before this one")
    lease: Bytes32 | None = Field(description="None: it was not opened, and `note` says why")
    note: str = ""


class UnmatchedOut(Body):
    bid: Bytes32
    reason: str


class EpochStatus(StrEnum):
    BEGUN = "begun"
    ANNOUNCED = "announced"
    CLEARED = "cleared"
    ABANDONED = "abandoned"


class EpochOut(Body):
    number: int
    status: EpochStatus = Field(
        description="begun: its orders are fixed. announced: committed to. abandoned: it never opened anything"
    )
    order_root: Bytes32 | None
    header: EpochHeader | None
    started: Time
    published_tx: Bytes32 | None
    seed_block: int | None = Field(description="the one after that of the root's event")
    seed: Bytes32 | None = Field(description="its hash: it decides between equals")
    matches: list[MatchOut]
    unmatched: list[UnmatchedOut] = Field(description="Bids that were left, if why is new")
    transaction: Bytes32 | None = Field(description="that opened the leases; the newest of several")


class EpochBid(Body):
    """A Bid of an epoch's set, as it was signed."""

    id: Bytes32
    bid: Bid
    signature: Signature
    spec: JobSpec
    receipt: ReceiptOut | None


class EpochAsk(Body):
    """An Ask of an epoch's set, as it was signed."""

    id: Bytes32
    ask: Ask
    signature: Signature
    resources: AskResources
    receipt: ReceiptOut | None


class TradeClassOut(Body):
    """Lots that are alike to every Bid, but for their price: docs/matching.md."""

    rules: Bytes32
    environments: list[str] = Field(description="sorted")
    device: str
    gpus: int
    vram_mb: int
    memory_mb: int
    region: str
    tier: int
    hosts: list[str] = Field(description="sorted")
    numerics: Bytes32 | None = Field(default=None, exclude_if=lambda numerics: numerics is None)
    wants: Wants
    units_per_hour: Uint64
    stake: Uint96
    min_work: Uint256 = Field(description="work units that a lease must have for the provider's least pay")
    max_checkpoints: int
    provider: Address | Literal[""] = Field(description="told where a Bid avoids it")


class ClassPrice(Body):
    of: TradeClassOut
    price: Uint64 = Field(description="ticks for an hour of the lot")
    epoch: int = Field(description="in which its lot size was solved: since then nothing new came to it")


MAX_FAILURES = 3  # leases that failed at the same checkpoint, after which the market matches the job no more
