"""Tables of the market's database. `chain_*` and `lease` show the chain, and can be rebuilt from it at any time. All
others hold what only the market was told: signed orders, claims, approvals, reports, and what it matched.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, String, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from contracts.types import ZERO_TIP
from market.store.columns import ADDRESS, DOCUMENT, HASH, MAYBE_DOCUMENT, TIP, Amount, UtcTime, now, without

# ------------------------------------------------------------------ orders


class AskRow(SQLModel, table=True):
    """A provider's Ask as it was admitted."""

    __tablename__ = "ask"
    __table_args__ = (Index("ix_ask_received", "received", "id"),)

    id: str = Field(primary_key=True, sa_type=HASH)  # EIP-712 digest
    provider: str = Field(index=True, sa_type=ADDRESS)
    rules: str = Field(index=True, sa_type=HASH)
    ask: dict[str, Any] = Field(sa_type=DOCUMENT)  # the Ask in its JSON form
    signature: str = Field(sa_type=Text)
    resources: dict[str, Any] = Field(sa_type=DOCUMENT)
    page: int = Field(sa_type=BigInteger)
    valid_from: int = Field(sa_type=BigInteger)
    valid_until: int = Field(sa_type=BigInteger, index=True)
    received: datetime = Field(default_factory=now, sa_type=UtcTime)
    received_block: int = Field(default=0, sa_type=BigInteger)  # the newest that was followed then
    # ReceiptOut; None: older than receipts
    receipt: dict[str, Any] | None = Field(default=None, sa_type=MAYBE_DOCUMENT)


class BidRow(SQLModel, table=True):
    """A client's Bid as it was admitted: the job."""

    __tablename__ = "bid"
    __table_args__ = (
        UniqueConstraint("client", "page", "bit", name="uq_bid_nonce"),
        Index("ix_bid_received", "received", "id"),
    )

    id: str = Field(primary_key=True, sa_type=HASH)  # EIP-712 digest
    client: str = Field(index=True, sa_type=ADDRESS)
    approver: str = Field(index=True, sa_type=ADDRESS)  # the client, if the Bid names none
    rules: str = Field(index=True, sa_type=HASH)
    name: str = Field(sa_type=String(100))
    bid: dict[str, Any] = Field(sa_type=DOCUMENT)  # the Bid in its JSON form
    signature: str = Field(sa_type=Text)
    spec: dict[str, Any] = Field(sa_type=DOCUMENT)
    # Of Bid and spec what queries ask for.
    job: str = Field(index=True, sa_type=HASH)
    files: str = Field(default="", index=True, sa_type=HASH)  # keccak of the spec's, with their paths
    start_tip: str = Field(default=ZERO_TIP, sa_type=TIP)
    sealed: bool = False
    stop: dict[str, Any] | None = Field(default=None, sa_type=MAYBE_DOCUMENT)
    sealed_files: dict[str, Any] = Field(default_factory=dict, sa_type=DOCUMENT)  # if sealed: FileRef by plaintext
    page: int = Field(sa_type=BigInteger)
    bit: int
    valid_until: int = Field(sa_type=BigInteger, index=True)  # the Bid's, or the job's deadline if that is sooner
    received: datetime = Field(default_factory=now, sa_type=UtcTime)
    receipt: dict[str, Any] | None = Field(default=None, sa_type=MAYBE_DOCUMENT)  # as an AskRow's
    failed: bool = Field(default=False, index=True)  # the market matches it no more; `reason` says why
    reason: str = Field(default="", sa_type=Text)
    wait_reason: str = Field(default="", sa_type=Text)  # why the last clearing left it out


WITHOUT_SPEC = without(BidRow.spec, BidRow.sealed_files)  # options of a query that reads none of what may be large


class RuleSetRow(SQLModel, table=True):
    """Rules that the market offers, or once did: orders and leases name them by their hash."""

    __tablename__ = "rule_set"

    hash: str = Field(primary_key=True, sa_type=HASH)
    name: str = Field(sa_type=String(100))
    rules: dict[str, Any] = Field(sa_type=DOCUMENT)
    verification: dict[str, Any] | None = Field(default=None, sa_type=MAYBE_DOCUMENT)  # as published


# ------------------------------------------------------------------ the chain


class ChainBlock(SQLModel, table=True):
    """A block that the market has followed, on the branch it holds for the right one."""

    __tablename__ = "chain_block"

    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    hash: str = Field(sa_type=HASH)
    parent: str = Field(sa_type=HASH)
    timestamp: int = Field(sa_type=BigInteger)


class ChainEvent(SQLModel, table=True):
    """A decoded event of the escrow or the epoch log."""

    __tablename__ = "chain_event"
    __table_args__ = (Index("ix_chain_event_order", "block_number", "log_index"),)

    block_hash: str = Field(primary_key=True, sa_type=HASH)
    log_index: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    block_number: int = Field(sa_type=BigInteger)
    tx_hash: str = Field(index=True, sa_type=HASH)
    timestamp: int = Field(sa_type=BigInteger)
    name: str = Field(index=True, sa_type=String(40))
    lease: str | None = Field(default=None, index=True, sa_type=HASH)
    account: str | None = Field(default=None, index=True, sa_type=ADDRESS)  # of balance and page events
    continues: str | None = Field(default=None, index=True, sa_type=HASH)  # of Opened: the lease before
    data: dict[str, Any] = Field(sa_type=JSON)  # numbers and hashes; no text that a database could stumble over


class LeaseRow(SQLModel, table=True):
    """A lease: the fold of its events. `accepted` is as stored on chain, before the window is applied."""

    __tablename__ = "lease"
    __table_args__ = (Index("ix_lease_opened", "opened_block", "id"),)

    id: str = Field(primary_key=True, sa_type=HASH)
    bid: str = Field(index=True, sa_type=HASH)
    ask: str = Field(index=True, sa_type=HASH)
    provider: str = Field(index=True, sa_type=ADDRESS)
    client: str = Field(index=True, sa_type=ADDRESS)
    approver: str = Field(index=True, sa_type=ADDRESS)
    job: str = Field(sa_type=HASH)  # hash of the JobSpec
    rules: str = Field(sa_type=HASH)
    prev: str = Field(sa_type=HASH)
    fee_to: str = Field(sa_type=ADDRESS)
    stake: int = Field(sa_type=Amount)
    start: int
    end: int
    window: int = Field(sa_type=BigInteger)
    timeout: int = Field(sa_type=BigInteger)
    price: int = Field(sa_type=Amount)
    fee: int = Field(sa_type=Amount)
    ask_price: int = Field(sa_type=Amount)  # what the Ask itself wants for a checkpoint
    status: int  # phase | flags, as on chain
    settled: int
    accepted: int
    claimed: int
    t: int = Field(sa_type=BigInteger)
    tip: str = Field(sa_type=TIP)
    start_tip: str = Field(sa_type=TIP)  # where the lease began
    finished: str | None = Field(default=None, index=True, sa_type=String(9))  # completed, closed
    continuable: bool = False  # another lease of the same Bid may follow
    paid: int = Field(default=0, sa_type=Amount)  # to the provider
    fees: int = Field(default=0, sa_type=Amount)
    refunded: int = Field(default=0, sa_type=Amount)  # of the lock, to the client
    penalty: int = Field(default=0, sa_type=Amount)  # of the stake, to the client
    opened_block: int = Field(sa_type=BigInteger)
    opened_tx: str = Field(sa_type=HASH)
    changed_block: int = Field(default=0, sa_type=BigInteger)  # of the newest event that is part of the fold


# ------------------------------------------------------------------ what workers and approvers say


class CheckpointRow(SQLModel, table=True):
    """A provider's signed Claim with the record of the checkpoint. At most one per index of a lease."""

    __tablename__ = "checkpoint"
    __table_args__ = (Index("ix_checkpoint_waiting", "status", "received"),)

    lease: str = Field(primary_key=True, sa_type=HASH)
    n: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    bid: str = Field(index=True, sa_type=HASH)
    provider: str = Field(index=True, sa_type=ADDRESS)
    record: dict[str, Any] = Field(sa_type=DOCUMENT)  # CheckpointRecord
    blob: str = Field(index=True, sa_type=HASH)  # with the state
    signature: str = Field(sa_type=Text)  # of the Claim
    tip: str = Field(index=True, sa_type=TIP)
    status: str = Field(default="reported", sa_type=String(10))  # reported, approved, rejected
    reason: str = Field(default="", sa_type=Text)
    received: datetime = Field(default_factory=now, sa_type=UtcTime)


class ReplacedClaimRow(SQLModel, table=True):
    """A CheckpointRow that its maker has put another one in place of before the approver's word on it came.

    The approver may have signed it meanwhile, and signs no other: its Approval brings it back. Of each checkpoint the
    newest few (store/replaced_claims).
    """

    __tablename__ = "replaced_claim"

    lease: str = Field(primary_key=True, sa_type=HASH)
    n: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    tip: str = Field(primary_key=True, sa_type=TIP)
    before: str = Field(sa_type=TIP)  # the tip of checkpoint n - 1; empty: that is no checkpoint of this lease
    bid: str = Field(sa_type=HASH)
    provider: str = Field(sa_type=ADDRESS)
    record: dict[str, Any] = Field(sa_type=DOCUMENT)
    blob: str = Field(sa_type=HASH)
    signature: str = Field(sa_type=Text)
    received: datetime = Field(sa_type=UtcTime)


class ApprovalRow(SQLModel, table=True):
    __tablename__ = "approval"

    lease: str = Field(primary_key=True, sa_type=HASH)
    n: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    last: bool = Field(primary_key=True, default=False)
    tip: str = Field(sa_type=TIP)
    signature: str = Field(sa_type=Text)
    received: datetime = Field(default_factory=now, sa_type=UtcTime)


class RejectionRow(SQLModel, table=True):
    __tablename__ = "rejection"

    lease: str = Field(primary_key=True, sa_type=HASH)
    n: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    tip: str = Field(sa_type=TIP)
    reason: str = Field(sa_type=Text)
    signature: str = Field(sa_type=Text)
    received: datetime = Field(default_factory=now, sa_type=UtcTime)


class ReportRow(SQLModel, table=True):
    __tablename__ = "report"
    __table_args__ = (
        UniqueConstraint("lease", "n", "kind", "content", "time", name="uq_report_message"),
        Index("ix_report_waiting", "answered", "kind"),
    )

    id: int | None = Field(default=None, primary_key=True)
    lease: str = Field(index=True, sa_type=HASH)
    bid: str = Field(index=True, sa_type=HASH)
    provider: str = Field(index=True, sa_type=ADDRESS)
    n: int
    kind: str = Field(sa_type=String(10))  # as contracts.orders.ReportKind
    content: str = Field(sa_type=HASH)
    time: int = Field(sa_type=BigInteger)
    signature: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    answered: bool = False  # an Approval(last) of its lease came after it
    received: datetime = Field(default_factory=now, sa_type=UtcTime)


class AuditorRow(SQLModel, table=True):
    """Somebody whom a job's client lets read it. Of several grants the one that lasts longest."""

    __tablename__ = "auditor"

    bid: str = Field(primary_key=True, sa_type=HASH)
    auditor: str = Field(primary_key=True, sa_type=ADDRESS)
    valid_until: int = Field(sa_type=BigInteger)
    signature: str = Field(sa_type=Text)


class EncryptionKeyRow(SQLModel, table=True):
    """An account's newest X25519 key."""

    __tablename__ = "encryption_key"

    account: str = Field(primary_key=True, sa_type=ADDRESS)
    key: str = Field(sa_type=HASH)
    time: int = Field(sa_type=BigInteger)
    signature: str = Field(sa_type=Text)


class KeyGrantRow(SQLModel, table=True):
    """A sealed job's key for one reader. The first of its kind stays: a job has one key, and grants can be replayed."""

    __tablename__ = "key_grant"

    bid: str = Field(primary_key=True, sa_type=HASH)
    reader: str = Field(primary_key=True, sa_type=ADDRESS)
    reader_key: str = Field(primary_key=True, sa_type=HASH)
    signer: str = Field(primary_key=True, sa_type=ADDRESS)  # client or approver
    sealed_key: str = Field(sa_type=Text)
    signature: str = Field(sa_type=Text)


# ------------------------------------------------------------------ clearing


class EpochRow(SQLModel, table=True):
    """One clearing of the auction."""

    __tablename__ = "epoch"

    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    status: str = Field(default="begun", sa_type=String(9))  # begun, announced, cleared, abandoned
    started: datetime = Field(default_factory=now, sa_type=UtcTime)
    header: dict[str, Any] | None = Field(default=None, sa_type=MAYBE_DOCUMENT)  # EpochHeader
    order_root: str = Field(default="", sa_type=HASH)  # empty: not announced yet
    published_tx: str | None = Field(default=None, sa_type=HASH)  # that published the order root
    seed_block: int | None = Field(default=None, sa_type=BigInteger)
    seed: str | None = Field(default=None, sa_type=HASH)
    transaction: str | None = Field(default=None, index=True, sa_type=HASH)  # that opened the leases


class EpochOrderRow(SQLModel, table=True):
    """An order in the sets of epochs `first` to `last`; `last` None: it is still in the newest one."""

    __tablename__ = "epoch_order"
    __table_args__ = (Index("ix_epoch_order_span", "kind", "first", "last"),)

    id: str = Field(primary_key=True, sa_type=HASH)
    first: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    last: int | None = Field(default=None, index=True)
    kind: str = Field(sa_type=String(3))  # bid, ask


class PriceRow(SQLModel, table=True):
    """The price of a class in an epoch in which its lot size was solved. It is in force until that is solved again."""

    __tablename__ = "price"
    __table_args__ = (Index("ix_price_size", "rules", "size", "epoch"),)

    epoch: int = Field(primary_key=True, foreign_key="epoch.number")
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})  # of the class in this epoch
    rules: str = Field(sa_type=HASH)
    size: int
    trade_class: dict[str, Any] = Field(sa_type=DOCUMENT)  # TradeClassOut
    price: int = Field(sa_type=BigInteger)  # ticks an hour


class MatchRow(SQLModel, table=True):
    __tablename__ = "match"

    epoch: int = Field(primary_key=True, foreign_key="epoch.number")
    bid: str = Field(primary_key=True, sa_type=HASH, index=True)
    ask: str = Field(sa_type=HASH)
    price: int = Field(sa_type=Amount)
    place: int = 0  # leases that its provider may get in this epoch before this one
    lease: str | None = Field(default=None, index=True, sa_type=HASH)
    refused: int = 0  # the escrow's Reason, if it did not open the match
    note: str = Field(default="", sa_type=Text)


class UnmatchedRow(SQLModel, table=True):
    __tablename__ = "unmatched"

    epoch: int = Field(primary_key=True, foreign_key="epoch.number")
    bid: str = Field(primary_key=True, sa_type=HASH, index=True)
    reason: str = Field(sa_type=Text)


class JournalRow(SQLModel, table=True):
    """The newest message that was accepted: at most one row."""

    __tablename__ = "journal"

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: int = Field(default=0, sa_type=BigInteger)
    message: str = Field(default="", sa_type=String(16))  # its id


class LeaderRow(SQLModel, table=True):
    """The process that leads, if there may be several: at most one row."""

    __tablename__ = "leader"

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    holder: str = Field(sa_type=Text)  # host:pid
    term: int = Field(sa_type=BigInteger)  # counts the leaders
    until: datetime = Field(sa_type=UtcTime)  # of the database's clock; then another one may take over


class AnswerRow(SQLModel, table=True):
    """The answer to a POST with an Idempotency-Key, for a day."""

    __tablename__ = "answer"
    __table_args__ = (Index("ix_answer_age", "received", "size"),)

    key: str = Field(primary_key=True, sa_type=String(128))
    path: str = Field(primary_key=True, sa_type=String(200))
    body: str = Field(sa_type=HASH)  # SHA-256 of the request's
    status: int | None  # None: not answered yet
    answer: str = Field(sa_type=Text)  # JSON
    size: int = 0  # bytes of the answer
    received: datetime = Field(default_factory=now, sa_type=UtcTime)


class BlobRow(SQLModel, table=True):
    """A blob that is stored whole and under the right name."""

    __tablename__ = "blob"

    sha256: str = Field(primary_key=True, sa_type=HASH)
    size: int = Field(sa_type=BigInteger)
    created: datetime = Field(default_factory=now, sa_type=UtcTime)


class UploadRow(SQLModel, table=True):
    """An account that has uploaded a blob, and so has shown that it had the bytes: names of blobs are public."""

    __tablename__ = "upload"

    sha256: str = Field(primary_key=True, sa_type=HASH)
    account: str = Field(primary_key=True, sa_type=ADDRESS, index=True)
    received: datetime = Field(default_factory=now, sa_type=UtcTime)  # the newest time
