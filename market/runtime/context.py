"""What every part of a running market shares: its settings, database, blobs, chain and rules."""

import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from sqlmodel import Session

from contracts.api.info import Info, RuleSet
from contracts.api.protocol import PROTOCOL
from contracts.chain.client import Chain
from contracts.chain.sending.sender import Sender
from contracts.chain.signatures import SignatureChecks
from contracts.strict_json import read_json, write_json
from contracts.terms import AccountWord
from market.runtime.leader import Alone, Leadership
from market.runtime.metrics import Metrics
from market.runtime.settings import MarketSettings
from market.store.apply import apply, remember
from market.store.audit_notes import AuditNoteRow
from market.store.blobs import BlobStore, UnderWay
from market.store.columns import now
from market.store.db import Database
from market.store.disk import Disks
from market.store.journal import FOLDER, Journal, Kind, Message
from market.store.models import JournalRow, ReportRow
from market.store.queries.events import Head, pages_of
from market.store.queries.rule_sets import known_rules
from market.store.unreadable import Unreadable

NOTHING_FOLLOWED = Head(0, 0)


@dataclass
class Context:
    settings: MarketSettings
    chain: Chain
    db: Database
    blobs: BlobStore
    matcher: str  # address of the key that opens leases
    rules: dict[str, RuleSet]  # those on offer, by name; the first is the default
    rules_by_hash: dict[str, RuleSet]  # the former ones too: leases may still run under them
    sender: Sender | None = None  # with the matcher's key; None in a process that only reads
    head: Head = NOTHING_FOLLOWED  # set by the indexer
    leadership: Leadership = field(default_factory=Alone)
    followed: float = field(default_factory=time.monotonic)  # when the indexer last looked
    caught_up: threading.Event = field(default_factory=threading.Event)  # the indexer has reached the chain's head once
    metrics: Metrics = field(default_factory=Metrics)
    under_way: UnderWay = field(default_factory=UnderWay)  # uploads
    journal: Journal = field(init=False)
    disks: Disks = field(init=False)
    unreadable: Unreadable = field(init=False)
    signatures: SignatureChecks = field(init=False)
    reserve_short: bool = False  # the leader found that replays can't be paid
    operators: dict[str, tuple[float, str | None]] = field(default_factory=dict)  # of arbiters: until when, who
    _accounts: dict[str, tuple[Head, AccountWord]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.journal = Journal(self.settings.blob_dir / FOLDER)
        self.disks = Disks([self.settings.blob_dir, *self.db.folders])
        self.unreadable = Unreadable(self.metrics.unreadable)
        self.signatures = SignatureChecks(self.chain)

    @property
    def approver(self) -> str | None:
        """The one that this market's operator recommends."""
        return self.settings.recommended_approver or self.chain.settings.approver

    @property
    def audited_rules(self) -> set[str]:
        """Hashes of all that this market has offered under which checkpoints are replayed."""
        return {hash for hash, one in self.rules_by_hash.items() if one.level != "unchecked"}

    @property
    def ending_rules(self) -> set[str]:
        """Hashes of those, too, that end a job whose honest runs differ."""
        return {hash for hash, one in self.rules_by_hash.items() if one.ends_unreproducible}

    @property
    def leads(self) -> bool:
        """Whether it is this process that follows the chain, clears, keeps and sends."""
        return self.leadership.leads

    @contextmanager
    def leading(self) -> Iterator[Session]:
        """A writing session of the leader. Raises NotLeading."""
        with self.db.session() as session:
            self.leadership.fence(session)
            yield session

    def accept(self, session: Session, kind: Kind, body: Any, **facts: Any) -> Any:
        """Do to the database what a message does that has passed all checks, and write it to the journal. Returns its
        row.

        `body`: the request's, or a dict. Do nothing more in the session, which writes, than what can be told from
        messages and chain. Raises ValueError, and stores nothing, for a body that could not be read again.
        """
        if not isinstance(body, dict):  # what is applied is what will be read, should the database be lost
            body = read_json(write_json(body.model_dump(mode="json", by_alias=True)))
        before = session.get(JournalRow, 1) or JournalRow()
        message = Message(
            kind=kind,
            number=before.number + 1,
            id=secrets.token_hex(8),
            after=before.message,
            received=now(),
            received_block=self.head.number,
            body=body,
            facts=facts,
        )
        row = apply(session, self.chain.domain, message)
        remember(session, message)
        session.flush()
        if isinstance(row, ReportRow | AuditNoteRow):
            message = message.model_copy(update={"facts": {**facts, "id": row.id}})
        self.journal.append(message)
        return row

    @property
    def sending(self) -> Sender:
        """The matcher's sender, for the leader; ask for it anew before each transaction. Raises NotLeading."""
        if self.sender is None:
            raise RuntimeError("this process has no key to send with")
        self.leadership.confirm()
        return self.sender

    def rule_set(self, hash: str) -> RuleSet:
        """Any that this market has ever offered. Another process may have begun to since this one started."""
        if hash not in self.rules_by_hash:
            with self.db.reading() as session:
                self.rules_by_hash |= known_rules(session)
        return self.rules_by_hash[hash]

    def now(self) -> int:
        """UTC seconds, as the escrow will see them: chains without traffic lag behind, devnets can run ahead."""
        return max(int(time.time()), self.head.timestamp)

    def info(self) -> Info:
        chain, settings = self.chain, self.settings
        return Info(
            version=version("gpumarket"),
            protocol=PROTOCOL,
            chain_id=chain.domain.chain_id,
            escrow=chain.domain.verifying_contract,
            token=chain.settings.require("token"),
            token_symbol=chain.symbol,
            token_decimals=chain.decimals,
            epoch_log=chain.settings.require("epoch_log"),
            matcher=self.matcher,
            approver=self.approver,
            fee=settings.fee,
            rules=list(self.rules.values()),
            epoch_seconds=settings.epoch_seconds,
            finality=chain.settings.finality,
            max_blob_bytes=settings.max_blob_bytes,
            draining=settings.draining,
            successor=settings.successor,
            block=self.head.number,
        )

    def account(self, address: str) -> AccountWord:
        """An account as the chain has it now. Never call it inside a database session."""
        word = self.chain.account(address)
        # Of several nodes behind one URL some lag. Pages only rise: a lower one than was followed is of the past.
        with self.db.reading() as session:
            page = pages_of(session, {address}).get(address, 0)
        return word if word.page >= page else word._replace(page=page, used=0)

    def accounts(self, addresses: Iterable[str]) -> dict[str, AccountWord]:
        """Accounts as of the newest followed block or later. Never call it inside a database session."""
        head, words = self.head, {}
        for address in set(addresses):
            known = self._accounts.get(address)
            if known is None or known[0] != head:
                known = self._accounts[address] = (head, self.account(address))
            words[address] = known[1]
        return words
