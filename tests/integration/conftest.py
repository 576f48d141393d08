"""A chain for every test: one anvil per test process, put back to where it was after each test."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from contracts.chain.client import Chain, connect
from contracts.chain.devnet.devnet import Devnet, DevnetTiming, start_devnet
from contracts.chain.sending.lane import close_lanes
from contracts.chain.sending.sender import Sender
from contracts.orders import new_account
from tests.support.devnet import TOKEN, Funded, give_gas_money, rpc
from tests.support.postgres import postgresql

__all__ = ["postgresql"]

# Nothing ends by itself while a test runs, however slow the machine: tests move the clock (`pass_time`).
TIMING = DevnetTiming(window=300, checkpoint_timeout=1200, arbiter_timeout=600, interruptible_timeout=7200)


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """A devnet with a home of its own. State that tests leave stays: prefer `chain`."""
    with start_devnet(tmp_path_factory.mktemp("devnet"), timing=TIMING) as running:
        yield running


@pytest.fixture
def chain(devnet: Devnet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chain]:
    """The devnet's contracts; whatever the test does to the chain is undone after it. Sets GPUMARKET_HOME."""
    monkeypatch.setenv("GPUMARKET_HOME", str(devnet.home))
    connected = connect(devnet.settings)
    snapshot = rpc(connected, "evm_snapshot")
    rpc(connected, "evm_setTime", int(time.time()))  # else the last test's revert has put the clock back, too
    yield connected
    # The next test must not see transactions sent again that the revert takes back.
    close_lanes()
    shutil.rmtree(devnet.home / "intents", ignore_errors=True)
    rpc(connected, "evm_revert", snapshot)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a new database: a test that takes it runs once with each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/market.sqlite3"
    else:
        with request.getfixturevalue("postgresql").database() as url:
            yield url


@pytest.fixture
def funded(chain: Chain) -> Funded:
    """`funded(3, free=100 * TOKEN)`: new accounts with gas money, `held` tokens, and `free` in the escrow."""

    def make(count: int = 1, *, free: int = 0, held: int = 1_000 * TOKEN) -> list[LocalAccount]:
        made = [new_account() for _ in range(count)]
        for account in made:
            give_gas_money(chain, account.address)
            sender = Sender(chain, account)
            sender.send(chain.faucet(account.address, held + free))
            if free:
                sender.send(chain.approve(free))
                sender.send(chain.deposit(account.address, free))
        return made

    return make
