"""A market without a chain or sockets, for unit tests of the market: the whole API on a database, accounts as set."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from sqlalchemy import func
from sqlmodel import SQLModel, select
from starlette.testclient import TestClient

from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.api.problems import Code, Problem
from contracts.audits.levels import UNCHECKED
from contracts.orders import Domain, Rules, new_account
from contracts.terms import AccountWord
from contracts.types import ZERO_HASH
from market.api.app import create_app
from market.runtime.context import Context
from market.store import apply
from market.store.db import Database
from market.store.journal import Journal
from market.store.models import AskRow, BidRow, ChainBlock, LeaseRow
from tests.support.market_parts import (
    RECIPE,
    STATE,
    FakeChain,
    FakeSender,
    make_ask,
    make_bid,
    make_context,
    make_lease,
    make_spec,
    signed_ask,
    signed_bid,
    upload,
)

DOMAIN = Domain(chain_id=31337, verifying_contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
RULES = Rules(
    arbiter="0x00000000000000000000000000000000000a4B17",
    arbiter_fee=1_000_000,
    arbiter_timeout=30,
    checkpoint_timeout=20,
    window=4,
    verification=UNCHECKED.hash(),
)


class LocalClient(MarketClient):
    """MarketClient on an app in the same process."""

    def __init__(self, http: TestClient, signer: Signer | None = None) -> None:
        super().__init__("http://market.test", signer=signer)
        self._http = http


@dataclass
class World:
    """A market, a client and a provider with money, and orders that the market takes."""

    context: Context
    chain: FakeChain
    api: LocalClient

    def __post_init__(self) -> None:
        self.client, self.provider, self.stranger = new_account(), new_account(), new_account()
        self.spec = make_spec()
        self.set_account(self.client.address, free=100_000_000)
        self.set_account(self.provider.address, free=100_000_000)
        upload(self.context, self.client.address, RECIPE)
        upload(self.context, self.provider.address, STATE)

    def api_of(self, key: LocalAccount) -> LocalClient:
        """The API as the holder of a key uses it."""
        return LocalClient(self.api._http, Signer(key, DOMAIN))

    def set_account(self, address: str, free: int = 0, active: int = 0, page: int = 0, used: int = 0) -> None:
        self.chain.words[address] = AccountWord(free, active, page, used)
        self.context._accounts.clear()
        self.api._http.app.state.offers._accounts._words.clear()  # type: ignore[attr-defined]

    def ask(self, **changes: Any) -> Any:
        return signed_ask(make_ask(self.provider, self.context.matcher, RULES, **changes), DOMAIN, self.provider)

    def bid(self, **changes: Any) -> Any:
        spec = changes.pop("spec", self.spec)
        bid = make_bid(self.client, self.context.matcher, RULES, spec, **changes)
        return signed_bid(bid, DOMAIN, self.client, spec)

    def lease(self, **changes: Any) -> LeaseRow:
        """A live lease of the (posted) standard job, as the indexer would store it."""
        body = changes.pop("bid", None) or self.bid()
        self.api.post_bid(body)
        row = make_lease(body.bid, DOMAIN, self.provider.address, **changes)
        with self.context.db.session() as session:
            session.add(row)
        return row

    def update_lease(self, id: str, **changes: Any) -> None:
        with self.context.db.session() as session:
            row = session.get_one(LeaseRow, id)
            for name, value in changes.items():
                setattr(row, name, value)
            session.add(row)

    def count(self, model: Any) -> int:
        with self.context.db.reading() as session:
            return session.exec(select(func.count()).select_from(model)).one()

    def refuses(self, call: Callable[[], object], status: int, code: Code) -> Problem:
        """The call is refused, as a problem with a detail, and stores no order."""
        before = [self.count(model) for model in (AskRow, BidRow)]
        with pytest.raises(Problem) as caught:
            call()
        assert (caught.value.status, caught.value.code) == (status, code)
        assert caught.value.message
        assert [self.count(model) for model in (AskRow, BidRow)] == before
        return caught.value


@cache
def blank_database() -> bytes:
    """The file of a new database: migrating takes longer than most tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "blank.sqlite3"
        database = Database(f"sqlite:///{path}")
        database.upgrade()
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        return path.read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    chain = FakeChain(DOMAIN)
    (tmp_path / "market.sqlite3").write_bytes(blank_database())
    matcher = new_account()
    context = make_context(tmp_path, chain, matcher.address, {"unchecked": RULES}, max_blob_bytes=100_000)
    context.sender = FakeSender(matcher)  # type: ignore[assignment]
    with context.db.session() as session:
        session.add(ChainBlock(number=1, hash=ZERO_HASH, parent=ZERO_HASH, timestamp=1))
    app = create_app(context)
    with TestClient(app, base_url="http://market.test", raise_server_exceptions=False) as http:
        yield World(context, chain, LocalClient(http))
    context.db.close()


def replayed(world: World, model: type[SQLModel]) -> list[dict[str, Any]]:
    path = world.context.settings.blob_dir / f"replayed-{secrets.token_hex(4)}.sqlite3"
    path.write_bytes(blank_database())
    new = Database(f"sqlite:///{path}")
    try:
        with new.session() as session:
            for message in Journal(world.context.journal.folder).read():
                apply.apply(session, DOMAIN, message)
        with new.reading() as session:
            return [row.model_dump() for row in session.exec(select(model)).all()]
    finally:
        new.close()


def stored(world: World, model: type[SQLModel]) -> list[dict[str, Any]]:
    with world.context.db.reading() as session:
        return [row.model_dump() for row in session.exec(select(model)).all()]
