"""A whole market, for tests of agents and commands: a real chain and market, an approver that can go away, agents."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.access import Signer
from contracts.api.bodies import AskResources, BidIn, JobOut, LeaseOut
from contracts.api.client import MarketClient
from contracts.audits.levels import UNCHECKED
from contracts.audits.verification import Verification
from contracts.chain.client import Chain, connect
from contracts.chain.sending.sender import Sender
from contracts.job.file import hash_file
from contracts.job.spec import JobSpec, Resources
from contracts.orders import Bid, Rules
from contracts.settings import Settings, write_config
from contracts.types import to_hex
from contracts.wallet import encryption_keys, keys
from market.approver.memory import Memory
from market.approver.service import Approver
from market.runtime.settings import MarketSettings
from market.server import Server, open_context, works
from tests.support.devnet import Funded, rpc
from tests.support.recipes import SLOW
from worker.agent.agent import Agent
from worker.lease.folder import LeaseFolder, Store
from worker.onboarding.register import machine_numerics
from worker.sandbox.podman import chosen_sandbox
from worker.settings import ProviderSettings, write_provider_settings
from worker.training.environment import environment_id

TOKEN = 1_000_000
PRICE = TOKEN  # per checkpoint
STAKE = 20 * TOKEN
UNITS = 1_000
PASSWORD = "for tests"
KEY = "rig"
RESOURCES = AskResources(
    device="Test CPU", gpus=0, vram_mb=0, memory_mb=4096, environments=(environment_id(),), sandbox="bubblewrap"
)


@cache
def tells_class() -> AskResources:
    """RESOURCES with the class that `provider register` measures here: what is trained for a test is of it."""
    return RESOURCES.model_copy(update={"numerics": machine_numerics(chosen_sandbox(), ())})


class Stage:
    """One client, one provider, one market. Leave it as a context manager: everything is stopped."""

    def __init__(
        self, chain: Chain, home: Path, rules: Rules, matcher: LocalAccount, client: LocalAccount,
        provider: LocalAccount, approver: LocalAccount, database_url: str, verification: Verification = UNCHECKED,
    ) -> None:  # fmt: skip
        self.home, self.rules, self.database_url = home, rules, database_url
        changes = {"rules": {"test": rules}, "verifications": {"test": verification}}
        self.settings: Settings = chain.settings.model_copy(update=changes)
        self.chain = connect(self.settings)
        self.client, self.provider, self.approver = client, provider, approver
        write_config(home / "config.toml", self.settings, "For a test.")
        keys.save(KEY, provider, PASSWORD, scrypt_n=2)
        with patch.multiple(encryption_keys, OPSLIMIT=1 << 15, MEMLIMIT=1 << 24):
            self.encryption = encryption_keys.load_or_create(KEY, PASSWORD)  # the provider's
        self.approvers_encryption = PrivateKey.generate()
        self.matcher = matcher
        self.resources = RESOURCES if verification.level == "unchecked" else tells_class()
        self._stack = contextlib.ExitStack()
        self._ended = threading.Event()
        self._port = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Stage":
        ticking = threading.Thread(target=self._tick, daemon=True)
        ticking.start()
        self._stack.callback(ticking.join)
        self._stack.callback(self._ended.set)
        self.start_market()
        self.market = self._stack.enter_context(
            MarketClient(f"http://127.0.0.1:{self._port}", signer=Signer(self.client, self.chain.domain))
        )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.stop_market()
        self._stack.close()

    def _tick(self) -> None:
        """Keeps the chain's clock going, as other people's blocks do."""
        chain = connect(self.settings)
        while not self._ended.wait(0.5):
            rpc(chain, "evm_mine")

    # ------------------------------------------------------------- the market and the approver

    def start_market(self) -> None:
        """On the port it had before, if it had one."""
        settings = MarketSettings(
            database_url=self.database_url,
            blob_dir=self.home / "blobs",
            port=self._port,
            epoch_seconds=0.25,
            poll_seconds=0.2,
        )
        context = open_context(settings, self.settings, Sender(self.chain, self.matcher))
        self.server = Server(context, works())
        self._port = int(self.server.url.rsplit(":", 1)[1])
        self._serving = threading.Thread(target=self.server.run, daemon=True)
        self._serving.start()
        wait_for("the market", context.caught_up.is_set)

    def stop_market(self) -> None:
        self.server.halt()
        self._serving.join(300)

    @contextlib.contextmanager
    def approving(self, **options: Any) -> Iterator[Approver]:
        """While inside, there is an approver."""
        stop = threading.Event()
        with MarketClient(self.market.url, attempts=1, signer=Signer(self.approver, self.chain.domain)) as market:
            memory, own = Memory(self.home / "approver"), self.approvers_encryption
            approver = Approver(market, connect(self.settings), self.approver, own, memory, **options)
            thread = threading.Thread(target=approver.run, args=(stop, 0.4), daemon=True)
            thread.start()
            try:
                yield approver
            finally:
                stop.set()
                thread.join(300)

    # ------------------------------------------------------------- the client

    def submit(
        self,
        *,
        checkpoints: int = 3,
        pause: float = 0.0,
        units: int = UNITS,
        nonce: int = 0,
        source: Path = SLOW,
        recipe: str = "Slow",
        resources: Resources | None = None,
        **config: Any,
    ) -> str:
        """A job of so many checkpoints, four steps each, of a class of `source`. Returns its id."""
        folder = self.home / "job"
        folder.mkdir(exist_ok=True)
        (folder / "recipe.py").write_bytes(source.read_bytes())
        spec = JobSpec(
            environment=environment_id(),
            recipe=f"recipe.py:{recipe}",
            config={"pause": pause, **config},
            files={"recipe.py": hash_file(folder / "recipe.py")},
            seed=7,
            steps=4 * checkpoints,
            checkpoint_every=4,
            resources=resources or Resources(),
        )
        self.market.put_blob(folder / "recipe.py")
        info = self.market.info()
        bid = Bid(
            client=self.client.address,
            matcher=info.matcher,
            approver=self.approver.address,
            job=to_hex(spec.job_hash()),
            rules=self.rules.struct_hash(),
            checkpoints=checkpoints,
            units=units,
            max_price=2 * PRICE,
            fee=info.fee,
            stake=STAKE,
            valid_until=2**40 - 1,
            nonce=nonce,
        )
        signature = bid.sign(self.chain.domain, self.client)
        return self.market.post_bid(BidIn(bid=bid, signature=signature, spec=spec)).id

    def job(self, id: str) -> JobOut:
        return self.market.job(id)

    def leases(self, job: str) -> list[LeaseOut]:
        return [lease for lease in self.market.leases() if lease.job == job]

    def free(self, account: LocalAccount) -> int:
        return self.chain.account(account.address).free

    # ------------------------------------------------------------- the provider

    def offer(self, **changes: Any) -> ProviderSettings:
        given: dict[str, Any] = {
            "market_url": self.market.url,
            "price_per_hour": 3600 * PRICE,
            "units_per_hour": 3600 * UNITS,
            "max_stake": STAKE,
            "rules_name": "test",
            "rules": self.rules,
            "resources": self.resources,
            "poll_seconds": 0.3,
            "rehearsal_share": 0,  # two processes more for each lease; who tests it says so
        }
        offer = ProviderSettings.model_validate(given | changes)
        write_provider_settings(KEY, offer)
        return offer

    @contextlib.contextmanager
    def agent(self, *, once: bool = False, **changes: Any) -> Iterator[threading.Thread]:
        """An agent in a thread, stopped without ceremony at the end."""
        offer = self.offer(**{"grace_seconds": 20.0, **changes})
        agent = Agent(KEY, offer, connect(self.settings), self.provider, self.encryption, once=once)
        thread = threading.Thread(target=agent.run, daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            agent.stop()
            thread.join(300)
            assert not thread.is_alive()

    def agent_process(self, **changes: Any) -> subprocess.Popen[bytes]:
        """`gpumarket provider start` in a process of its own; its log goes to `home`/agent.log."""
        self.offer(**changes)
        environment = os.environ | {"GPUMARKET_HOME": str(self.home), "GPUMARKET_PASSWORD": PASSWORD}
        with open(self.home / "agent.log", "ab") as log:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("gpumarket")), "provider", "start", "--key", KEY],
                env=environment,
                stderr=log,
                stdout=log,
            )
        self.processes.append(process)
        return process

    def log(self) -> str:
        return (self.home / "agent.log").read_text()

    def folder(self) -> LeaseFolder:
        """Of the provider's only lease."""
        (found,) = Store(KEY).leases()
        return found

    def made(self) -> int:
        """Checkpoints of the provider's only lease, if it has one."""
        folders = list(Store(KEY).leases())
        return folders[0].file.made if folders else 0


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 400) -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.15)
    raise AssertionError(f"{what}: not within {seconds} s")


def terminate(process: subprocess.Popen[bytes], seconds: float) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(seconds)


StageOf = Callable[..., Stage]
FREE = 100 * TOKEN  # of each party in `stage_of`, before


@pytest.fixture
def stage_of(
    chain: Chain, funded: Funded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> Iterator[StageOf]:
    """`stage_of(timeout=360, window=3)`: a stage whose rules have these seconds."""
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    stages: list[Stage] = []

    def make(*, timeout: int = 360, window: int = 3, verification: Verification = UNCHECKED) -> Stage:
        rules = chain.settings.rule_set("unchecked").model_copy(
            update={
                "checkpoint_timeout": timeout, "window": window, "arbiter_fee": 1, "verification": verification.hash()
            }
        )  # fmt: skip
        (matcher,), (client, provider) = funded(1), funded(2, free=FREE)
        (approver,) = funded(1, free=FREE if verification.level != "unchecked" else 0)
        stage = Stage(chain, tmp_path, rules, matcher, client, provider, approver, database_url, verification)
        stages.append(stage.__enter__())
        return stages[-1]

    yield make
    for stage in stages:
        stage.__exit__()


def paid(stage: Stage) -> tuple[int, int]:
    """What the provider has gained and the client has spent, in checkpoints' prices."""
    gained, spent = stage.free(stage.provider) - FREE, FREE - stage.free(stage.client)
    assert gained % PRICE == 0 and spent % PRICE == 0
    return gained // PRICE, spent // PRICE
