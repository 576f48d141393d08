"""The market on a real chain: what it takes and refuses, and that it follows what happens to leases."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from sqlalchemy import func
from sqlmodel import select

from contracts.api.bodies import AskOut, JobOut, LeaseOut
from contracts.api.client import MarketClient
from contracts.api.problems import Code, Problem
from contracts.chain.calls import Match
from contracts.chain.client import Chain
from contracts.chain.devnet import Devnet
from contracts.chain.events import Opened
from contracts.chain.sender import Sender
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.settings import Settings
from contracts.terms import Phase, Terms
from contracts.types import ZERO_ADDRESS
from market import indexer
from market.indexer import rebuild
from market.leases import terms_of
from market.models import AskRow, BidRow, ChainEvent, CheckpointRow, EpochRow, LeaseRow, MatchRow
from market.serve import Server, open_context
from market.settings import MarketSettings
from tests.integration.conftest import TOKEN, Funded, pass_time, rpc
from tests.market_world import (
    RECIPE,
    STATE,
    file_ref,
    forged,
    make_ask,
    make_bid,
    make_record,
    make_spec,
    sha256,
    signed_approval,
    signed_ask,
    signed_bid,
    signed_progress,
)


@dataclass
class Stage:
    """A running market on the devnet, and people who use it."""

    server: Server
    api: MarketClient
    chain: Chain
    sender: Sender  # the matcher's
    client: LocalAccount
    provider: LocalAccount
    rules: Rules
    folder: Path

    def __post_init__(self) -> None:
        self.context = self.server.context
        self.domain = self.chain.domain
        self.spec = make_spec()
        for name, data in (("recipe.py", RECIPE), ("state", STATE)):
            (self.folder / name).write_bytes(data)
            self.api.put_blob(self.folder / name)

    def ask(self, **changes: Any) -> Any:
        ask = make_ask(self.provider, self.sender.address, self.rules, **changes)
        return signed_ask(ask, self.domain, self.provider)

    def bid(self, **changes: Any) -> Any:
        spec = changes.pop("spec", self.spec)
        bid = make_bid(self.client, self.sender.address, self.rules, spec, **changes)
        return signed_bid(bid, self.domain, self.client, spec)

    def open(self, job: JobOut, ask: AskOut, prev: Terms | None = None, price: int = 1_000_000) -> LeaseOut:
        """Open a lease as the clearing does, and wait until the market shows it."""
        match = Match(job.bid, ask.ask, price, job.signature, ask.signature, prev=prev)
        receipt = self.sender.send(self.chain.open(self.rules, match))
        (event,) = [event for event in self.chain.events(receipt) if isinstance(event, Opened)]
        self.followed()
        return self.api.lease(event.lease)

    def followed(self) -> None:
        """Wait until the market has followed the newest block."""
        head = self.chain.w3.eth.get_block("latest")["hash"].to_0x_hex()
        deadline = time.monotonic() + 20
        while self.context.head.hash != head:
            assert time.monotonic() < deadline, "the indexer does not follow"
            time.sleep(0.02)

    def send(self, account: LocalAccount, call: Any) -> None:
        Sender(self.chain, account).send(call)
        self.followed()

    def terms(self, lease: str) -> Terms:
        with self.context.db.reading() as session:
            return terms_of(session.get_one(LeaseRow, lease))

    def count(self, model: Any) -> int:
        with self.context.db.reading() as session:
            return session.exec(select(func.count()).select_from(model)).one()

    def refuses(self, call: Callable[[], object], status: int, code: Code) -> Problem:
        models = (AskRow, BidRow, CheckpointRow)
        before = [self.count(model) for model in models]
        with pytest.raises(Problem) as caught:
            call()
        assert (caught.value.status, caught.value.code) == (status, code)
        assert [self.count(model) for model in models] == before
        return caught.value


@pytest.fixture
def stage(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path) -> Iterator[Stage]:
    (matcher,) = funded(1)
    client, provider = funded(2, free=100 * TOKEN)
    settings = MarketSettings(
        port=0,
        database_url=f"sqlite:///{tmp_path}/market.sqlite3",
        blob_dir=tmp_path / "blobs",
        poll_seconds=0.05,
        max_blob_bytes=100_000,
    )
    context = open_context(settings, devnet.settings, Sender(chain, matcher))
    server = Server(context, {"indexer": indexer.run})
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert context.caught_up.wait(20)
        with MarketClient(server.url) as api:
            rules = devnet.settings.rules["audited"]
            assert context.sender is not None
            yield Stage(server, api, chain, context.sender, client, provider, rules, tmp_path)
    finally:
        server.halt()
        thread.join(20)
    assert server.dead is None


# ------------------------------------------------------------------ orders


def test_orders_are_taken_and_shown(stage: Stage) -> None:
    ask, bid = stage.ask(), stage.bid()
    out, job = stage.api.post_ask(ask), stage.api.post_bid(bid)
    assert (out.status, job.status) == ("open", "pending")
    assert stage.api.post_bid(bid) == job
    assert list(stage.api.asks(status="open")) == [out]
    assert list(stage.api.jobs(client=stage.client.address)) == [job]
    assert stage.api.account(stage.client.address).free == 100 * TOKEN


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        ("ask", {"valid_until": 1}, Code.ORDER_EXPIRED),
        ("bid", {"valid_until": 1}, Code.ORDER_EXPIRED),
        ("ask", {"rules": "0x" + "11" * 32}, Code.RULES_UNKNOWN),
        ("bid", {"rules": "0x" + "11" * 32}, Code.RULES_UNKNOWN),
        ("ask", {"max_stake": 101 * TOKEN}, Code.STAKE_SHORT),
        ("bid", {"max_price": 26 * TOKEN}, Code.BALANCE_SHORT),
        ("bid", {"spec": make_spec(files={"recipe.py": file_ref(b"elsewhere")})}, Code.BLOB_MISSING),
        ("bid", {"matcher": "0x" + "11" * 20}, Code.ORDER_NOT_FOR_THIS_MARKET),
    ],
)
def test_refused_orders(stage: Stage, kind: str, changes: dict[str, Any], code: Code) -> None:
    body = getattr(stage, kind)(**changes)
    post = stage.api.post_ask if kind == "ask" else stage.api.post_bid
    stage.refuses(lambda: post(body), 422, code)


def test_forged_orders(stage: Stage) -> None:
    ask, bid = forged(stage.ask(), stage.domain, stage.client), forged(stage.bid(), stage.domain, stage.provider)
    stage.refuses(lambda: stage.api.post_ask(ask), 422, Code.ORDER_SIGNATURE_INVALID)
    stage.refuses(lambda: stage.api.post_bid(bid), 422, Code.ORDER_SIGNATURE_INVALID)


def test_orders_that_were_cancelled_on_chain(stage: Stage) -> None:
    ask, bid, waiting = stage.ask(), stage.bid(), stage.bid(nonce=1)
    job = stage.api.post_bid(waiting)
    stage.send(stage.client, stage.chain.raise_page(1))
    stage.send(stage.provider, stage.chain.raise_page(1))
    stage.refuses(lambda: stage.api.post_ask(ask), 422, Code.ORDER_CANCELLED)
    stage.refuses(lambda: stage.api.post_bid(bid), 422, Code.ORDER_CANCELLED)
    assert stage.api.job(job.id).status == "cancelled"
    assert stage.api.account(stage.client.address).next_nonce == 1 << 8


def test_a_nonce_that_a_lease_has_used(stage: Stage) -> None:
    stage.open(stage.api.post_bid(stage.bid()), stage.api.post_ask(stage.ask()))
    body = stage.bid(max_price=1_900_000)
    stage.refuses(lambda: stage.api.post_bid(body), 409, Code.ORDER_REPLAYED)


def test_a_blob_under_another_name(stage: Stage) -> None:
    response = stage.api._http.put(f"/v1/blobs/{sha256(b'a')}", content=b"b")
    assert (response.status_code, response.json()["code"]) == (400, "blob_mismatch")
    assert not stage.api.has_blob(sha256(b"a"))


def test_a_path_out_of_the_job(stage: Stage) -> None:
    body = stage.bid().model_dump(mode="json", by_alias=True)
    body["spec"]["files"]["/etc/passwd"] = file_ref(RECIPE).model_dump()
    response = stage.api._http.post("/v1/bids", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert stage.count(BidRow) == 0


def test_a_wallet_contract_is_asked(stage: Stage) -> None:
    """Without ERC-1271 at the address, nobody else's signature is taken for it."""
    bid = make_bid(stage.client, stage.sender.address, stage.rules, stage.spec, client=stage.chain.token.address)
    body = signed_bid(bid, stage.domain, stage.client, stage.spec)
    stage.refuses(lambda: stage.api.post_bid(body), 422, Code.ORDER_SIGNATURE_INVALID)
    # A wallet that says yes to everything: returns the 4 bytes of isValidSignature, left-aligned.
    says_yes = "0x631626ba7e60e01b60005260206000f3"
    rpc(stage.chain, "anvil_setCode", stage.client.address, says_yes)
    body = forged(stage.bid(), stage.domain, stage.provider)
    assert stage.api.post_bid(body).status == "pending"


# ------------------------------------------------------------------ leases


def lease_matches_chain(stage: Stage, lease: str) -> None:
    """What the market stores of a live lease is what the escrow has; folding all again changes nothing."""
    with stage.context.db.reading() as session:
        row = session.get_one(LeaseRow, lease)
    state = stage.chain.state(lease)
    assert (row.settled, row.accepted, row.claimed, row.t, row.tip) == (
        state.settled, state.accepted, state.claimed, state.t, state.tip_hex,
    )  # fmt: skip
    assert row.status & 7 == state.phase


def everything(stage: Stage) -> list[dict[str, Any]]:
    with stage.context.db.reading() as session:
        return [row.model_dump() for row in session.exec(select(LeaseRow).order_by(LeaseRow.id))]  # type: ignore[arg-type]


def test_the_life_of_a_job(stage: Stage) -> None:
    """Two checkpoints approved and paid, a release, a second lease of another Ask to the end."""
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    assert stage.api.job(job.id).status == "running"
    assert (lease.start, lease.end, lease.price, lease.job) == (0, 4, 1_000_000, job.id)
    assert lease.rules == stage.rules
    lease_matches_chain(stage, lease.id)

    tip, records = lease.state.tip, []
    for n in (1, 2):
        record = make_record(job.bid.job, n, tip)
        stage.api.post_progress(signed_progress(lease.id, record, stage.domain, stage.provider))
        tip = record.tip
        records.append(record)
    assert len(list(stage.api.pending_progress(stage.client.address))) == 2
    approval = signed_approval(lease.id, 2, tip, stage.domain, stage.client, last=True)
    assert stage.api.post_approval(approval).approval == approval
    terms = stage.terms(lease.id)
    stage.send(stage.provider, stage.chain.redeem(terms, approval.approval, approval.signature))

    out = stage.api.job(job.id)
    assert (out.status, out.accepted, out.paid, out.metrics) == ("pending", 2, 2_000_000, {"loss": 0.5})
    (first,) = out.leases
    assert (first.finished, first.paid, first.refunded) == ("closed", 2_000_000, 2_000_000)
    assert list(stage.api.leases(live=True)) == []

    second = stage.open(out, stage.api.post_ask(stage.ask(max_checkpoints=9)), prev=terms)
    assert (second.start, second.end, second.prev, second.state.tip) == (2, 4, lease.id, tip)
    for n in (3, 4):
        record = make_record(job.bid.job, n, tip)
        stage.api.post_progress(signed_progress(second.id, record, stage.domain, stage.provider))
        tip = record.tip
    approval = signed_approval(second.id, 4, tip, stage.domain, stage.client)
    stage.api.post_approval(approval)
    stage.send(stage.provider, stage.chain.redeem(stage.terms(second.id), approval.approval, approval.signature))
    out = stage.api.job(job.id)
    assert (out.status, out.accepted, out.paid) == ("done", 4, 4_000_000)
    assert [one.finished for one in out.leases] == ["closed", "completed"]

    before = everything(stage)
    with stage.context.db.session() as session:
        assert rebuild(session) == 2
    assert everything(stage) == before


def test_the_slow_path_and_a_silent_provider(stage: Stage) -> None:
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    terms = stage.terms(lease.id)
    record = make_record(job.bid.job, 1, lease.state.tip)
    stage.send(stage.provider, stage.chain.claim(terms, [record.root]))
    lease_matches_chain(stage, lease.id)
    assert stage.api.lease(lease.id).state.claimed == 1

    pass_time(stage.chain, terms.nums.window)
    stage.followed()
    assert stage.api.lease(lease.id).state.accepted == 1  # before anyone has told the escrow
    pass_time(stage.chain, terms.nums.timeout)
    stage.send(stage.client, stage.chain.end(terms))
    lease_matches_chain(stage, lease.id)
    out = stage.api.job(job.id)
    assert (out.status, out.leases[0].state.flags) == ("closing", ["by_client", "late"])
    pass_time(stage.chain, terms.nums.window)
    stage.send(stage.client, stage.chain.close(terms))
    out = stage.api.job(job.id)
    assert (out.status, out.accepted, out.paid) == ("cancelled", 1, 1_000_000)
    with stage.context.db.reading() as session:
        row = session.get_one(LeaseRow, lease.id)
    assert (row.finished, row.continuable, row.penalty, row.refunded) == ("closed", False, 1_000_000, 3_000_000)
    assert stage.chain.state(lease.id).phase is Phase.NONE


def test_the_client_gives_up_a_closed_job(stage: Stage) -> None:
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    approval = signed_approval(lease.id, 0, lease.state.tip, stage.domain, stage.client, last=True)
    terms = stage.terms(lease.id)
    stage.send(stage.provider, stage.chain.redeem(terms, approval.approval, approval.signature))
    assert stage.api.job(job.id).status == "pending"
    stage.send(stage.client, stage.chain.end(terms))
    assert stage.api.job(job.id).status == "cancelled"


def test_a_reorganisation_takes_a_lease_back(stage: Stage) -> None:
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    with stage.context.db.session() as session:
        session.add(EpochRow(number=1, order_root="0x" + "11" * 32))
        session.flush()
        session.add(MatchRow(epoch=1, bid=job.id, ask="0x" + "22" * 32, price=1, lease=lease.id))
    assert stage.api.job(job.id).status == "running"
    rpc(stage.chain, "anvil_reorg", 1, [])
    stage.followed()
    stage.refuses(lambda: stage.api.lease(lease.id), 404, Code.NOT_FOUND)
    out = stage.api.job(job.id)
    assert (out.status, out.leases) == ("pending", [])
    assert stage.api.epoch(1).matches[0].lease is None
    with stage.context.db.reading() as session:
        assert session.exec(select(ChainEvent).where(ChainEvent.lease == lease.id)).all() == []


def test_a_reorganisation_in_the_middle_of_a_lease(stage: Stage) -> None:
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    record = make_record(job.bid.job, 1, lease.state.tip)
    stage.send(stage.provider, stage.chain.claim(stage.terms(lease.id), [record.root]))
    rpc(stage.chain, "anvil_reorg", 1, [])
    stage.followed()
    assert stage.api.lease(lease.id).state == lease.state
    lease_matches_chain(stage, lease.id)


def test_a_continuation_that_is_taken_back(stage: Stage) -> None:
    """The lease before it waits again, as the chain has it."""
    job = stage.api.post_bid(stage.bid())
    ask = stage.api.post_ask(stage.ask())
    lease = stage.open(job, ask)
    terms = stage.terms(lease.id)
    approval = signed_approval(lease.id, 0, lease.state.tip, stage.domain, stage.client, last=True)
    stage.send(stage.provider, stage.chain.redeem(terms, approval.approval, approval.signature))
    before = everything(stage)
    stage.open(job, ask, prev=terms)
    assert not next(row for row in everything(stage) if row["id"] == lease.id)["continuable"]
    rpc(stage.chain, "anvil_reorg", 1, [])
    stage.followed()
    assert everything(stage) == before


def test_a_match_learns_its_lease_from_the_chain(stage: Stage) -> None:
    job, ask = stage.api.post_bid(stage.bid()), stage.api.post_ask(stage.ask())
    with stage.context.db.session() as session:
        session.add(EpochRow(number=1, order_root="0x" + "11" * 32))
        session.flush()
        session.add(MatchRow(epoch=1, bid=job.id, ask=ask.id, price=1_000_000))
    lease = stage.open(job, ask)
    assert stage.api.epoch(1).matches[0].lease == lease.id


def test_confirmations_are_waited_for(stage: Stage) -> None:
    stage.context.settings = stage.context.settings.model_copy(update={"confirmations": 2})
    stage.api.post_bid(stage.bid())
    number = stage.chain.w3.eth.block_number
    rpc(stage.chain, "anvil_mine", 5)
    deadline = time.monotonic() + 20
    while stage.context.head.number < number + 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    assert stage.context.head.number == number + 3


# ------------------------------------------------------------------ start and end


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"chain_id": 1}, "has chain id 31337, expected 1"),
        ({"escrow": ZERO_ADDRESS}, "there is no contract at"),
        ({"rpc_url": "http://127.0.0.1:9"}, "no Ethereum node answers"),
        ({"rules": {}}, "the setting 'rules' is missing"),
    ],
)
def test_a_market_does_not_start_on_a_wrong_chain(
    chain: Chain, devnet: Devnet, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    settings = MarketSettings(database_url=f"sqlite:///{tmp_path}/market.sqlite3", blob_dir=tmp_path / "blobs")
    wrong = Settings(**{**dict(devnet.settings), **changes})
    with pytest.raises(UserError, match=problem):
        open_context(settings, wrong)
    assert list(tmp_path.iterdir()) == []


def test_rules_that_the_escrow_would_refuse(chain: Chain, devnet: Devnet, tmp_path: Path) -> None:
    settings = MarketSettings(database_url=f"sqlite:///{tmp_path}/market.sqlite3", blob_dir=tmp_path / "blobs")
    lax = devnet.settings.rules["audited"].model_copy(update={"window": 0})
    wrong = Settings(**{**dict(devnet.settings), "rules": {"lax": lax}})
    with pytest.raises(UserError, match="window of the rule-set 'lax' is 0 s; this escrow takes 1 to 86400"):
        open_context(settings, wrong)


def test_a_dead_thread_ends_the_market(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path) -> None:
    settings = MarketSettings(port=0, database_url=f"sqlite:///{tmp_path}/market.sqlite3", blob_dir=tmp_path / "blobs")
    (matcher,) = funded(1)

    def crash(context: object, stop: threading.Event) -> None:
        raise ZeroDivisionError

    server = Server(open_context(settings, devnet.settings, Sender(chain, matcher)), {"clearing": crash})
    assert server.run() == 1
    assert server.dead == "clearing"
