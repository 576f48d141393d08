"""A market on a real chain, for tests of what follows what: nothing happens by itself, each part is called by hand."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from starlette.testclient import TestClient

from contracts import commitment
from contracts.api.access import Signer
from contracts.api.bodies import AskResources, CheckpointOut, CheckpointRecord, JobOut, LeaseOut
from contracts.api.client import MarketClient
from contracts.audits.verification import Verification
from contracts.chain.client import Chain, connect
from contracts.chain.follower import Follower
from contracts.chain.reliability import client_records, records
from contracts.chain.sending.sender import Sender
from contracts.orders import Rules
from contracts.statefile import read_state
from contracts.terms import StateWord, Terms
from contracts.types import to_hex
from market.api.app import create_app
from market.approver.memory import Memory
from market.approver.service import Approver
from market.auction.clearing import Clearing
from market.chain import indexer
from market.chain.keeper import keep_leases
from market.maintenance.reconcile import read_books, reconcile
from market.maintenance.retention import Keep
from market.store.models import (
    EpochRow,
    LeaseRow,
)
from market.store.queries import reliability
from market.store.queries.leases import terms_of
from tests.support.devnet import pass_time, rpc
from tests.support.market_parts import (
    CPU,
    RECIPE,
    make_ask,
    make_bid,
    make_context,
    make_record,
    make_spec,
    signed_ask,
    signed_bid,
    signed_progress,
    signed_report,
    upload,
)


class Lives:
    """Clients, providers, a matcher and an approver around one market."""

    def __init__(
        self,
        chain: Chain,
        folder: Path,
        people: list[LocalAccount],
        rules: Rules,
        database_url: str,
        verification: Verification | None = None,
    ) -> None:
        matcher, approver, self.client, *self.providers = people
        self.chain, self.rules, self.folder, self.approver_key = chain, rules, folder, approver
        offered = {"unchecked" if verification is None else verification.level: rules}
        self.context = make_context(folder, chain, matcher.address, offered, verification, database_url=database_url)
        self.context.sender = Sender(chain, matcher)
        self.clearing = Clearing(self.context)
        self.context.caught_up.clear()
        self.api = MarketClient("http://market.test")
        self.api._http = TestClient(create_app(self.context), base_url="http://market.test")  # type: ignore[assignment]
        self.follower = Follower(chain, indexer.DatabaseStore(self.context.db))
        self.follow()
        upload(self.context, self.client.address, RECIPE)
        self.encryption = PrivateKey.generate()  # the approver's
        self.approver = self.new_approver()
        self.reader = self.api_of(self.client)
        self.spec = make_spec()
        self.nonce = 0

    def new_approver(self, **options: Any) -> Approver:
        """An approver as it is after a restart: only what is on disk."""
        memory = Memory(self.folder / "approver")
        key = self.approver_key
        return Approver(self.api_of(key), self.chain, key, self.encryption, memory, **options)

    def api_of(self, key: LocalAccount) -> MarketClient:
        """The API as the holder of a key uses it."""
        api = MarketClient(self.api.url, signer=Signer(key, self.chain.domain))
        api._http = self.api._http
        return api

    def follow(self) -> None:
        while indexer.follow(self.context, self.follower):
            pass

    # ------------------------------------------------------------- orders

    def post_bid(self, **changes: Any) -> JobOut:
        fields = {"approver": self.approver_key.address, "nonce": self.nonce} | changes
        bid = make_bid(self.client, self.context.matcher, self.rules, self.spec, **fields)
        self.nonce += 1
        return self.api.post_bid(signed_bid(bid, self.chain.domain, self.client, self.spec))

    def post_ask(self, provider: LocalAccount, resources: AskResources = CPU, **changes: Any) -> None:
        ask = make_ask(provider, self.context.matcher, self.rules, resources, **changes)
        self.api.post_ask(signed_ask(ask, self.chain.domain, provider, resources))

    def clear(self) -> EpochRow | None:
        epoch = clear(self.clearing)
        self.follow()
        return epoch

    def keep(self) -> None:
        keep_leases(self.context)
        self.follow()

    def lease_of(self, job: JobOut) -> LeaseOut:
        return self.api.lease(self.api.job(job.id).leases[-1].id)

    # ------------------------------------------------------------- what a worker does

    def record(self, lease: LeaseOut, index: int, before: str, **changes: Any) -> CheckpointRecord:
        """A checkpoint with a real safetensors file, uploaded."""
        state = safetensors_bytes({"weight": (index + 100 * len(changes)).to_bytes(8, "little")})
        upload(self.context, lease.provider, state)
        root = to_hex(commitment.state_root(*read_state(state)))
        return make_record(lease.bid.job, index, before, state, **({"state_root": root} | changes))

    def report(self, lease: LeaseOut, index: int, before: str, **changes: Any) -> CheckpointRecord:
        record = self.record(lease, index, before, **changes)
        self.hand_in(lease, record)
        return record

    def hand_in(self, lease: LeaseOut, record: CheckpointRecord) -> CheckpointOut:
        return self.api.post_progress(signed_progress(lease.id, record, self.chain.domain, self.key(lease.provider)))

    def make(self, lease: LeaseOut, count: int) -> str:
        """Report the next `count` checkpoints and have each approved. Returns the tip."""
        tip = lease.state.tip if lease.approval is None else lease.approval.approval.tip
        reached = lease.start if lease.approval is None else lease.approval.approval.n
        for index in range(reached + 1, reached + count + 1):
            tip = self.report(lease, index, tip).tip
            self.approver.approve_reported()
        return tip

    def say(self, lease: LeaseOut, kind: str, n: int, text: str = "why") -> None:
        report = signed_report(lease.id, n, kind, text, int(time.time()), self.chain.domain, self.key(lease.provider))
        self.api.post_report(report)

    def redeem(self, lease: LeaseOut) -> None:
        """As the provider does, with the newest approval."""
        newest = self.api.lease(lease.id).approval
        assert newest is not None
        call = self.chain.redeem(self.terms(lease), newest.approval, newest.signature)
        Sender(self.chain, self.key(lease.provider)).send(call)
        self.follow()

    def key(self, address: str) -> LocalAccount:
        return next(key for key in self.providers if key.address == address)

    def terms(self, lease: LeaseOut) -> Terms:
        with self.context.db.reading() as session:
            return terms_of(session.get_one(LeaseRow, lease.id))

    def state(self, lease: LeaseOut) -> StateWord:
        return self.chain.state(lease.id)

    def pass_time(self, seconds: int) -> None:
        pass_time(self.chain, seconds)
        self.follow()


def safetensors_bytes(tensors: dict[str, bytes], **metadata: str) -> bytes:
    """A file of one-dimensional byte tensors: length of the header, header, data."""
    header, at = dict[str, Any]({"__metadata__": metadata} if metadata else {}), 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


@contextmanager
def lives(
    chain: Chain,
    folder: Path,
    people: list[LocalAccount],
    rules: Rules,
    database_url: str,
    verification: Verification | None = None,
) -> Iterator[Lives]:
    made = Lives(chain, folder, people, rules, database_url, verification)
    try:
        yield made
    finally:
        made.context.db.close()


def clear(clearing: Clearing, *, paced: bool = False) -> EpochRow | None:
    """One epoch of a market on a chain where blocks come with transactions only: somebody sends the one after."""
    chain, market = clearing.context.chain, clearing.context.matcher
    before, over = chain.newest_epoch(market), threading.Event()

    def next_block() -> None:
        other = connect(chain.settings)  # a connection of its own
        while not over.wait(0.02):
            newest = other.newest_epoch(market)
            if newest > before and other.epoch_block(market, newest, 0) == other.w3.eth.block_number:
                rpc(other, "evm_mine")

    others = threading.Thread(target=next_block, daemon=True)
    others.start()
    try:
        return clearing.epoch(paced=paced)
    finally:
        over.set()
        others.join()


def one_lease(market: Lives, **changes: Any) -> JobOut:
    """A job that has just got a lease."""
    job = market.post_bid(**changes)
    market.post_ask(market.providers[0])
    assert market.clear() is not None
    return job


def differences(market: Lives) -> list[str]:
    """What `reconcile` finds."""
    found = []
    for check in reconcile(market.chain, market.context.db, market.context.blobs, Keep.of(market.context.settings)):
        found += [f"{check.name}: {difference}" for difference in check.differences]
    with market.context.db.reading() as session:
        ledger = read_books(market.chain).ledger
        assert found or reliability.stored_records(session) == records(ledger)
        assert found or reliability.stored_client_records(session) == client_records(ledger)
    return found


def newest_blob(market: Lives) -> Path:
    job = next(market.api.jobs())
    return market.context.blobs.path(list(market.api.checkpoints(job.id))[-1].checkpoint.state.sha256)


def tamper_blob(market: Lives) -> None:
    path = newest_blob(market)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
