"""Several market processes on one PostgreSQL: one leads; when it dies or stands still, another one goes on."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func
from sqlmodel import select, update

from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.sending.sender import Sender
from contracts.orders import Rules
from contracts.settings import CONFIG_NAME
from contracts.wallet import keys
from market.runtime import leader
from market.runtime.leader import Elected, NotLeading
from market.store.db import Database
from market.store.models import EpochRow, LeaderRow
from tests.support.devnet import TOKEN, Funded, give_gas_money, rpc
from tests.support.market_parts import RECIPE, make_ask, make_bid, make_spec, signed_ask, signed_bid
from tests.support.market_process import serving, wait_until_ready
from tests.support.postgres import Cluster

HASH = "0x" + "11" * 32


@pytest.fixture
def db(postgresql: Cluster) -> Iterator[Database]:
    with postgresql.database() as url:
        database = Database(url)
        yield database
        database.close()


@pytest.fixture
def an_hour_passes(db: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """When it is called: for the database's clock and for that of this process."""

    def passes() -> None:
        before = leader._clock
        monkeypatch.setattr(leader, "_clock", lambda: before() + 3600)
        with db.engine.begin() as connection:  # not a writing session, whose turn would come after others
            connection.execute(update(LeaderRow).values(until=func.clock_timestamp() - timedelta(hours=1)))

    return passes


def write(db: Database, leadership: Elected, number: int) -> None:
    with db.session() as session:
        leadership.fence(session)
        session.add(EpochRow(number=number, order_root=HASH))


def test_one_leads_until_it_lets_go(db: Database) -> None:
    first, second = Elected(db, seconds=60), Elected(db, seconds=60)
    assert not first.leads
    for one in (first, second, first, second):
        one.stand()
    assert (first.leads, second.leads) == (True, False)
    first.confirm()
    with pytest.raises(NotLeading):
        second.confirm()
    first.release()
    second.stand()
    assert (first.leads, second.leads) == (False, True)


def test_who_was_paused_writes_and_sends_nothing(db: Database, an_hour_passes: Callable[[], None]) -> None:
    paused, other = Elected(db, seconds=60), Elected(db, seconds=60)
    paused.stand()
    write(db, paused, 1)
    an_hour_passes()
    assert not paused.leads
    write(db, paused, 2)  # late, but nobody has taken over: it is still the only one
    paused.confirm()
    assert paused.leads
    an_hour_passes()
    other.stand()
    write(db, other, 3)
    with pytest.raises(NotLeading):
        write(db, paused, 4)
    with pytest.raises(NotLeading):
        paused.confirm()
    paused.stand()
    assert (paused.leads, other.leads) == (False, True)
    with db.reading() as session:
        assert session.exec(select(EpochRow.number).order_by("number")).all() == [1, 2, 3]
        assert session.exec(select(LeaderRow)).one().term == 2


def test_nobody_takes_over_within_a_write(db: Database, an_hour_passes: Callable[[], None]) -> None:
    paused, other = Elected(db, seconds=60), Elected(db, seconds=60)
    paused.stand()
    with db.session() as session:
        paused.fence(session)
        an_hour_passes()
        taking = threading.Thread(target=other.stand)
        taking.start()
        taking.join(0.3)
        assert not other.leads
        session.add(EpochRow(number=1, order_root=HASH))
    taking.join()
    assert other.leads


def test_only_one_of_many_at_once(db: Database) -> None:
    many = [Elected(db, seconds=60) for _ in range(8)]
    threads = [threading.Thread(target=one.stand) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.leads for one in many) == 1


def test_nothing_is_sent_while_another_leads(chain: Chain, funded: Funded) -> None:
    """Not even what this process had left to send: it goes out when it leads again."""
    (account,) = funded(1)
    before = chain.w3.eth.get_transaction_count(account.address, "pending")
    leads = threading.Event()
    sender = Sender(chain, account, allowed=leads.is_set)
    sending = threading.Thread(target=sender.send, args=[chain.approve(1)])
    sending.start()
    sending.join(0.5)
    assert chain.w3.eth.get_transaction_count(account.address, "pending") == before
    leads.set()
    sending.join(400)
    assert chain.w3.eth.get_transaction_count(account.address, "pending") == before + 1


# ------------------------------------------------------------------ processes


class People:
    """A client and providers that use whichever market process they are told."""

    def __init__(self, chain: Chain, funded: Funded, matcher: str, rules: Rules) -> None:
        self.chain, self.matcher, self.rules = chain, matcher, rules
        self.client, *self.providers = funded(3, free=100 * TOKEN)
        self.nonce = 0

    def post(self, url: str, folder: Path) -> str:
        """A job, and an Ask of a provider that is free. Returns the job's id."""
        spec, provider = make_spec(), self.providers.pop()
        ask = make_ask(provider, self.matcher, self.rules)
        bid = make_bid(self.client, self.matcher, self.rules, spec, nonce=self.nonce)
        self.nonce += 1
        (folder / "recipe.py").write_bytes(RECIPE)
        domain = self.chain.domain
        with MarketClient(url, signer=Signer(self.client, domain)) as api:
            api.put_blob(folder / "recipe.py")
            job = api.post_bid(signed_bid(bid, domain, self.client, spec))
        with MarketClient(url, signer=Signer(provider, domain)) as api:
            api.post_ask(signed_ask(ask, domain, provider))
        return job.id

    def wait_for_lease(self, url: str, job: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with MarketClient(url) as api:
            while not api.job(job).leases:
                assert time.monotonic() < deadline, api.job(job).reason
                rpc(self.chain, "evm_mine")  # other people's blocks: an epoch waits for the one after its own
                time.sleep(0.2)


def test_another_goes_on_after_a_kill(
    chain: Chain, devnet: Devnet, funded: Funded, postgresql: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders that one process has taken are cleared by the other, which has but the database, the blobs and the key."""
    monkeypatch.setenv("GPUMARKET_PASSWORD", "open sesame")
    homes = [tmp_path / "first", tmp_path / "second"]
    homes[0].mkdir()
    shutil.copy(devnet.home / CONFIG_NAME, homes[0])
    monkeypatch.setenv("GPUMARKET_HOME", str(homes[0]))
    keys.create("market", scrypt_n=2)
    matcher = keys.address("market")
    shutil.copytree(homes[0], homes[1])
    give_gas_money(chain, matcher)
    people = People(chain, funded, matcher, devnet.settings.rules["unchecked"])
    with postgresql.database("template0") as database_url:
        monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", database_url)
        monkeypatch.setenv("GPUMARKET_MARKET_BLOB_DIR", str(tmp_path / "blobs"))
        monkeypatch.setenv("GPUMARKET_MARKET_EPOCH_SECONDS", "0.5")
        monkeypatch.setenv("GPUMARKET_MARKET_POLL_SECONDS", "0.2")
        with serving("--home", str(homes[0])) as (first, first_url), MarketClient(first_url) as first_api:
            wait_until_ready(first_api)
            with serving("--home", str(homes[1])) as (second, second_url), MarketClient(second_url) as second_api:
                wait_until_ready(second_api)
                # Whichever is asked: the second takes the orders, the first opens the lease, both show it.
                before = people.post(second_url, tmp_path)
                for url in (first_url, second_url):
                    people.wait_for_lease(url, before, 120)
                assert [one.id for one in first_api.job(before).leases] == [
                    one.id for one in second_api.job(before).leases
                ]

                first.kill()
                job = people.post(second_url, tmp_path)
                people.wait_for_lease(second_url, job, 120)
                second.send_signal(signal.SIGTERM)
                assert second.wait(300) == 0
        db = Database(database_url)
        with db.reading() as session:
            last = session.exec(select(LeaderRow)).one()
        assert (last.term, last.holder.rsplit(":")[-1]) == (2, str(second.pid))
        db.close()
