"""A chain for every test: one anvil per test process, put back to where it was after each test."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount
from web3.types import RPCEndpoint

from contracts.chain.client import Chain, connect
from contracts.chain.devnet.devnet import Devnet, DevnetTiming, start_devnet
from contracts.chain.sending.lane import close_lanes
from contracts.chain.sending.sender import Sender
from contracts.orders import new_account
from market.auction.clearing import Clearing
from market.store.models import EpochRow
from tests.support.postgres import postgresql

__all__ = ["postgresql"]

TOKEN = 1_000_000  # smallest units
# Nothing ends by itself while a test runs, however slow the machine: tests move the clock (`pass_time`).
TIMING = DevnetTiming(window=300, checkpoint_timeout=1200, arbiter_timeout=600, interruptible_timeout=7200)

Funded = Callable[..., list[LocalAccount]]


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


def rpc(chain: Chain, method: str, *parameters: object) -> object:
    """One of anvil's own calls, such as evm_increaseTime."""
    return chain.w3.provider.make_request(RPCEndpoint(method), list(parameters))["result"]


def contract_wallet(chain: Chain, owner: LocalAccount) -> str:
    """The address of an ERC-1271 wallet that says yes to what its owner has signed (EIP-2098)."""
    digest, v, r, s = "600435600052", "60843560ff1c601b01602052", "606435604052", "60843560011b60011c606052"
    ecrecover, is_owner = "602060006080600060015afa50", f"60005173{owner.address[2:]}14"
    answer = "631626ba7e60e01b0260005260206000f3"
    address: str = new_account().address
    rpc(chain, "anvil_setCode", address, f"0x{digest}{v}{r}{s}{ecrecover}{is_owner}{answer}")
    return address


def give_gas_money(chain: Chain, address: str, ether: int = 100) -> None:
    rpc(chain, "anvil_setBalance", address, hex(ether * 10**18))


def pass_time(chain: Chain, seconds: int) -> None:
    """Makes a block whose time is `seconds` after the newest one's."""
    rpc(chain, "evm_setNextBlockTimestamp", chain.now() + seconds)
    rpc(chain, "evm_mine")


def clear(clearing: Clearing) -> EpochRow | None:
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
        return clearing.epoch()
    finally:
        over.set()
        others.join()
