"""A market on a real chain that is served and follows it, for tests of its API: its indexer runs, and nothing else."""

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

from contracts.api.access import Signer
from contracts.api.bodies import AskOut, JobOut, LeaseOut
from contracts.api.client import MarketClient
from contracts.api.problems import Code, Problem
from contracts.chain.calls import SignedMatch
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.events import Opened
from contracts.chain.sending.sender import Sender
from contracts.orders import Rules
from contracts.terms import Terms
from market.chain import indexer
from market.runtime.settings import MarketSettings
from market.server import Server, open_context
from market.store.models import AskRow, BidRow, CheckpointRow, LeaseRow
from market.store.queries.leases import terms_of
from tests.support.devnet import TOKEN, Funded
from tests.support.market_parts import (
    RECIPE,
    STATE,
    make_ask,
    make_bid,
    make_spec,
    signed_ask,
    signed_bid,
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
            for key in (self.client, self.provider):
                self.api_of(key).put_blob(self.folder / name)

    def api_of(self, key: LocalAccount) -> MarketClient:
        """The API as the holder of a key uses it."""
        return MarketClient(self.api.url, signer=Signer(key, self.domain))

    def ask(self, **changes: Any) -> Any:
        ask = make_ask(self.provider, self.sender.address, self.rules, **changes)
        return signed_ask(ask, self.domain, self.provider)

    def bid(self, **changes: Any) -> Any:
        spec = changes.pop("spec", self.spec)
        bid = make_bid(self.client, self.sender.address, self.rules, spec, **changes)
        return signed_bid(bid, self.domain, self.client, spec)

    def open(self, job: JobOut, ask: AskOut, prev: Terms | None = None, price: int = 1_000_000) -> LeaseOut:
        """Open a lease as the clearing does, and wait until the market shows it."""
        match = SignedMatch(job.bid, ask.ask, price, job.signature, ask.signature, prev=prev)
        receipt = self.sender.send(self.chain.open(self.rules, match))
        (event,) = [event for event in self.chain.events(receipt) if isinstance(event, Opened)]
        self.followed()
        return self.api.lease(event.lease)

    def followed(self) -> None:
        """Wait until the market has followed the newest block."""
        head = self.chain.w3.eth.get_block("latest")["hash"].to_0x_hex()
        deadline = time.monotonic() + 300
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
def stage(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path, database_url: str) -> Iterator[Stage]:
    (matcher,) = funded(1)
    client, provider = funded(2, free=100 * TOKEN)
    settings = MarketSettings(
        port=0,
        database_url=database_url,
        blob_dir=tmp_path / "blobs",
        poll_seconds=0.05,
        max_blob_bytes=100_000,
    )
    context = open_context(settings, devnet.settings, Sender(chain, matcher))
    server = Server(context, {"indexer": indexer.run_indexer})
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert context.caught_up.wait(300)
        with MarketClient(server.url) as api:
            rules = devnet.settings.rules["unchecked"]
            assert context.sender is not None
            yield Stage(server, api, chain, context.sender, client, provider, rules, tmp_path)
    finally:
        server.halt()
        thread.join(400)
    assert server.dead is None
