"""Bodies of the market's HTTP API. Money is decimal text in the token's smallest unit, times are RFC 3339 `Z`,
hashes 0x-hex. Orders keep the names of their signed types, so that a body holds just what a wallet signs.
"""

from enum import StrEnum
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from contracts.commitment import canonical_hash
from contracts.job.provider_wants import Wants
from contracts.job.spec import (
    MAX_FILES,
    MAX_NAMES,
    DeviceName,
    Environment,
    FileRef,
    JobSpec,
    MemoryMb,
    MetricsOfCheckpoint,
    Numerics,
    PostedSpec,
    VramMb,
)
from contracts.orders import (
    Approval,
    Ask,
    AuditorGrant,
    Bid,
    Claim,
    EncryptionKey,
    KeyGrant,
    Receipt,
    Rejection,
    Report,
    ReportKind,
    Rules,
)
from contracts.types import (
    Address,
    Bytes20,
    Bytes32,
    Bytes80,
    Finite,
    Signature,
    Text,
    Time,
    Uint16,
    Uint32,
    Uint40,
    Uint64,
    Uint96,
    WholeNumber,
    to_hex,
)

T = TypeVar("T")
MAX_SECONDS = 1e9  # of a checkpoint
HOST = r"^[a-z0-9.:-]{1,253}$"


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Page(Body, Generic[T]):
    """One page of a list; pass `next` as `after` for the following one."""

    items: list[T]
    next: str | None = None


# ------------------------------------------------------------------ orders


class AskResources(Body):
    """What an Ask sells; the Ask signs its canonical hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: DeviceName = Field(description="model of the GPU, or of the CPU where gpus is 0")
    gpus: WholeNumber = Field(ge=0, le=8)
    vram_mb: VramMb = Field(description="per GPU")
    memory_mb: MemoryMb
    environments: tuple[Environment, ...] = Field(min_length=1, max_length=20)
    sandbox: str = Field(pattern="^(bubblewrap|podman|none)$")
    region: str = Field(default="", max_length=64)
    hosts: tuple[Annotated[str, Field(pattern=HOST)], ...] = Field(
        default=(),
        max_length=MAX_NAMES,
        exclude_if=lambda hosts: not hosts,
        description="from which jobs' files are fetched",
    )
    numerics: Bytes32 | None = Field(
        default=None,
        exclude_if=lambda numerics: numerics is None,
        description="the machine's numerics class, threads left out: whose replays of its work are equal bit for bit",
    )
    wants: Wants = Field(default_factory=Wants, description="leases that the provider would give back at once")

    def hash(self) -> str:
        """Without `wants` where nothing is refused: such an Ask is the same as one of a program that knows none."""
        nothing_refused = {"wants"} if self.wants == Wants() else None
        return to_hex(canonical_hash(self.model_dump(mode="json", exclude=nothing_refused)))


class AskIn(Body):
    ask: Ask
    signature: Signature
    resources: AskResources


class OrderStatus(StrEnum):
    OPEN = "open"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNFUNDED = "unfunded"


class ReceiptOut(Body):
    """The market's word, signed by its matcher, by which epoch it will have considered an order."""

    receipt: Receipt
    signature: Signature


class AskOut(Body):
    id: Bytes32
    ask: Ask
    signature: Signature
    resources: AskResources
    status: OrderStatus
    active: int = Field(description="live leases of this provider's key")
    received: Time
    receipt: ReceiptOut | None = Field(default=None, description="null for an Ask from before there were receipts")


class EncryptionKeyIn(Body):
    """The key that an account's grants are sealed to. Who reads it checks the signature."""

    key: EncryptionKey
    signature: Signature


class KeyGrantIn(Body):
    """A sealed job's key for one reader. Who reads it checks the signature."""

    grant: KeyGrant
    sealed_key: Bytes80 = Field(description="the job's 32-byte key in a libsodium sealed box for readerKey")
    signature: Signature


class BidIn(Body):
    bid: Bid
    signature: Signature
    spec: PostedSpec
    name: Text = Field(default="job", min_length=1, max_length=100)
    sealed_files: dict[Bytes32, FileRef] = Field(
        default_factory=dict,
        max_length=MAX_FILES,
        description="of a sealed job: the ciphertext's blob by the SHA-256 of the plaintext; not signed, since what "
        "comes out of a blob is checked against the plaintext's hash",
    )
    grants: list[KeyGrantIn] = Field(
        default_factory=list,
        max_length=100,
        description="of a sealed job: by its client, to its approver at least",
    )


class JobStatus(StrEnum):
    PENDING = "pending"  # waits for a provider
    RUNNING = "running"  # a lease is live
    CLOSING = "closing"  # its lease ends; the job moves on when the window has passed
    DONE = "done"
    FAILED = "failed"  # gave up after repeated failures at one checkpoint
    CANCELLED = "cancelled"  # by the client
    EXPIRED = "expired"  # its Bid may open no more leases


class CheckpointStatus(StrEnum):
    REPORTED = "reported"
    APPROVED = "approved"
    REJECTED = "rejected"


VerdictName = Literal["silent", "true", "false", "void", "unreproducible", "withdrawn"]


class LeaseState(Body):
    """A lease as the chain has it, with the acceptance window applied."""

    phase: str
    flags: list[str]
    settled: Uint16
    accepted: Uint16
    claimed: Uint16
    t: Uint40
    tip: Bytes20


class LeaseSummary(Body):
    id: Bytes32
    provider: Address
    start: Uint16
    end: Uint16
    price: Uint96
    fee: Uint64
    stake: Uint96
    state: LeaseState
    reported: Uint16 = Field(description="the newest checkpoint that its provider says it has made")
    approved: Uint16 = Field(description="the newest that is approved, or accepted on chain: this far it will be paid")
    finished: str | None = Field(description="completed, closed or None while it lives")
    stops: ReportKind | None = Field(
        default=None, description="why, as its provider reported first; null if it did not say so"
    )
    verdict: VerdictName | None = Field(
        default=None,
        description="the arbiter's, on a checkpoint of it; the newest. Of false and void the provider loses its stake, "
        "and the job goes on with others from the last accepted checkpoint",
    )
    paid: Uint96 = Field(description="to the provider so far")
    refunded: Uint96 = Field(description="of the lock, to the client")
    penalty: Uint96 = Field(description="of the stake, to the client: what a provider pays that fell silent")
    opened_block: int
    final: bool = Field(description="whether its newest change is deep enough in the chain, by the market's finality")


class NewestCheckpoint(Body):
    """What a job's newest checkpoint says of itself. `reported` ones are a provider's word, and nobody's else."""

    lease: Bytes32
    provider: Address
    index: Uint16
    step: int
    status: CheckpointStatus
    reason: str = Field(description="why it was rejected")
    metrics: dict[str, Finite | None]
    seconds: Finite | None = Field(description="that it took; null if a record from before this was checked has none")
    received: Time


class JobSummary(Body):
    """A job in a list: without what may be large."""

    id: Bytes32 = Field(description="the Bid's digest")
    name: str
    status: JobStatus
    reason: str = Field(description="why it waits or ended; empty if there is nothing to say")
    nearest: str = Field(
        default="", description="of one that waits for a machine: which comes nearest, and by what it falls short"
    )
    bid: Bid
    signature: Signature
    reported: Uint16 = Field(description="checkpoints that providers say they have made, those approved included")
    approved: Uint16 = Field(description="checkpoints that are approved, or accepted on chain")
    accepted: Uint16 = Field(description="checkpoints accepted on chain")
    settled: Uint16 = Field(description="checkpoints that are paid")
    paid: Uint96 = Field(description="to providers so far")
    fees: Uint96
    leases: list[LeaseSummary]
    final: bool = Field(description="whether all its leases are: what was paid, and where it stands")
    failures: int = Field(description="failures at the checkpoint that comes next")
    metrics: dict[str, Finite | None] = Field(description="of the newest accepted checkpoint")
    newest: NewestCheckpoint | None = Field(description="the newest that was reported; null before the first")
    received: Time
    receipt: ReceiptOut | None = Field(default=None, description="null for a job from before there were receipts")


class JobOut(JobSummary):
    spec: JobSpec
    sealed_files: dict[Bytes32, FileRef] = Field(description="of a sealed job: ciphertexts by SHA-256 of the plaintext")


class AccountOut(Body):
    address: Address
    free: Uint96
    active: Uint16
    page: Uint32
    next_nonce: Uint40 | None = Field(description="for a Bid; None: all of this page are used, raise the page")


# ------------------------------------------------------------------ progress


class CheckpointRecord(Body):
    """One checkpoint as its maker describes it."""

    index: Uint16
    step: WholeNumber = Field(ge=1, lt=1 << 54)
    state_root: Bytes32
    trace_root: Bytes32
    numerics: Numerics
    root: Bytes32
    tip: Bytes20
    state: FileRef = Field(description="the safetensors blob; of a sealed job, the plaintext, which no market has")
    sealed: FileRef | None = Field(
        default=None, exclude_if=lambda ref: ref is None, description="of a sealed job: the blob with the ciphertext"
    )
    metrics: MetricsOfCheckpoint
    seconds: Finite = Field(ge=0, le=MAX_SECONDS, description="since the checkpoint before")

    @property
    def stored(self) -> FileRef:
        """The blob that the market has of it."""
        return self.sealed or self.state


class ProgressIn(Body):
    claim: Claim
    signature: Signature
    checkpoint: CheckpointRecord


class CheckpointOut(Body):
    lease: Bytes32
    job: Bytes32 = Field(description="id of the job, the Bid's digest")
    provider: Address
    checkpoint: CheckpointRecord
    claim: Claim
    signature: Signature
    status: CheckpointStatus
    reason: str
    received: Time


class ApprovalIn(Body):
    approval: Approval
    signature: Signature


class RejectionIn(Body):
    rejection: Rejection
    signature: Signature


class ReportIn(Body):
    report: Report
    signature: Signature
    text: Text = Field(max_length=100_000)


class ReportOut(Body):
    id: int
    provider: Address
    report: Report
    signature: Signature
    text: str | None = Field(description="null where it is for those only who may read the job")
    received: Time


class AuditorIn(Body):
    """A client lets somebody read its job."""

    grant: AuditorGrant
    signature: Signature


class AuditorOut(Body):
    job: Bytes32
    auditor: Address
    valid_until: Uint40 = Field(description="of the grant that lasts longest")


class ListedLease(LeaseSummary):
    """A lease in a list: without what may be large."""

    job: Bytes32 = Field(description="id of the job, the Bid's digest")
    sealed: bool = Field(default=False, description="whether the job is")
    bid: Bid
    rules: Rules
    prev: Bytes32
    window: Uint32
    timeout: Uint32
    job_failures: int
    approval: ApprovalIn | None = Field(description="the newest")
    rejection: RejectionIn | None = Field(description="of a checkpoint after the newest approval")


class LeaseOut(ListedLease):
    spec: JobSpec
