"""The market that the chaos run torments: real processes with homes of their own, to be killed and started again."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import psutil
from sqlalchemy.exc import SQLAlchemyError
from web3.exceptions import Web3Exception
from web3.types import RPCEndpoint

from contracts.amounts import parse_amount
from contracts.api.bodies import JobSummary
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.devnet import devnet
from contracts.chain.devnet.devnet import DevnetTiming
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.settings import CONFIG_NAME, Settings, write_config
from market.maintenance import reconcile
from market.maintenance.retention import Keep
from market.runtime.settings import load_market_settings
from market.store.blobs import BlobStore
from market.store.db import Database
from scripts.lib.chaos.chain import FrailChain
from scripts.lib.chaos.proxy import Proxy
from scripts.lib.demo.parties import Failure, Party, Stage

DISK_MB = 96
JOB_MB = 24  # of it for a job


def clear(home: Path) -> None:
    """What a former run left, with its disks if it was killed."""
    for disk in psutil.disk_partitions(all=True):
        if Path(disk.mountpoint).is_relative_to(home):
            subprocess.run(["umount", "-l", disk.mountpoint], check=True)
    shutil.rmtree(home, ignore_errors=True)


class World:
    """All processes, and the money at the start."""

    providers: tuple[str, ...] = ("hydro", "solar", "wind")
    small_disks: tuple[str, ...] = ("operator", "wind")  # homes that are small file systems, where we may mount some
    checkpoints = 5  # of each job, a few seconds each
    at_once = 3  # jobs that are there from the start; the others come one by one
    rules = "unchecked"
    liars: ClassVar[Mapping[str, str]] = {}  # providers, and of which kind
    price = "0.60"  # of an hour
    prices: ClassVar[Mapping[str, str]] = {}  # of those that ask for another one
    timing = DevnetTiming(window=4, checkpoint_timeout=60, arbiter_timeout=30, interruptible_timeout=120)

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        self.stage, self.say = Stage(home), say
        self.over = False  # the run gives up: no more attempts
        self.chain_died = 0  # how often the chain forgot its newest blocks
        self.mounts: list[Path] = []
        self.services = {  # process -> (party, command)
            "market": ("operator", ("market", "serve")),
            "approver": ("approver", ("approver", "start", "--key", "approver", "--poll", "0.5")),
        } | {name: (name, ("provider", "start", "--key", name)) for name in self.providers}
        self.chain = FrailChain(self._party("chain").home, self.timing)
        self.chain_door = Proxy(self.chain.port)
        settings = self.settings(self.chain.devnet.settings)
        self.direct: Chain = connect(settings)
        shown = settings.model_copy(update={"rpc_url": f"http://127.0.0.1:{self.chain_door.port}"})
        self.stage.config = home / CONFIG_NAME
        write_config(self.stage.config, shown, "Written by scripts/chaos.")
        port = self.stage.free_port()
        self.market_door = Proxy(port)
        self.stage.market_url = f"http://127.0.0.1:{self.market_door.port}"
        self.market = MarketClient(f"http://127.0.0.1:{port}", timeout=20, attempts=1)
        self._market_port = port

    def settings(self, devnet: Settings) -> Settings:
        """What all parties are told of the chain."""
        return devnet

    def _party(self, name: str) -> Party:
        return self.stage.party(name)

    # ------------------------------------------------------------- setting up

    def prepare(self) -> None:
        """Keys, money, small disks, services, providers."""
        self._mount(self._party("operator").home)
        for name in ("client", "operator", "approver", *self.providers):
            address = self._party(name).new_key()
            Sender(self.direct, devnet.accounts()[-1]).send(
                self.direct.faucet(address, parse_amount("5000", self.direct.decimals))
            )
            self.direct.w3.provider.make_request(RPCEndpoint("anvil_setBalance"), [address, hex(10**20)])
        self._party("client").run("wallet", "deposit", "4000", "--key", "client")
        settings = {"key": "operator", "port": self._market_port, "fee": 1000, "epoch_seconds": 1, "poll_seconds": 0.5}
        settings["recommended_approver"] = self._party("approver").address()
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        (self._party("operator").home / "market.toml").write_text("".join(lines))
        for service in ("market", "approver"):
            self.start(service)
        self.until("the market answers", self.market_answers)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._enlist, self.providers))

    def _enlist(self, name: str) -> None:
        self._party(name).run(
            "provider", "register", "--key", name, "--price", self.prices.get(name, self.price), "--stake", "100",
            "--rules", self.rules, "--measure-seconds", "1", "--yes",
        )  # fmt: skip
        self.change_wants(name)
        if name in self.small_disks:
            self._move_to_small_disk(self._party(name).home, name)
        self.start(name)

    def change_wants(self, name: str) -> None:
        """Of a provider that has registered."""

    def _move_to_small_disk(self, home: Path, key: str) -> None:
        """After `register`, which takes no machine with so little room for jobs."""
        settings = home / "provider" / key / "provider.toml"
        lines = [line for line in settings.read_text().splitlines() if not line.startswith("disk_mb")]
        settings.write_text("\n".join([f"disk_mb = {JOB_MB}", *lines]) + "\n")
        with tempfile.TemporaryDirectory() as kept:
            shutil.copytree(home, kept, dirs_exist_ok=True)
            self._mount(home)
            shutil.copytree(kept, home, dirs_exist_ok=True)

    def _mount(self, home: Path) -> None:
        """A small disk that can be filled. Without the right to mount, that kind of bad luck is left out."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "gpumarket-chaos", str(home)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            self.mounts.append(home)

    def submit(self, number: int) -> str:
        """One small job; returns its id. It is handed in once, however often the market is away."""
        client = self._party("client")
        folder, name = client.home / f"job-{number}", f"chaos-{number}"
        if not folder.exists():
            client.run("recipe", "new", "digits", str(folder))
            text = (folder / "job.yaml").read_text()
            for old, new in (
                ("name: digits", f"name: {name}"),
                ("seed: 1\n", f"seed: {number}\n"),
                ("steps: 600", f"steps: {100 * self.checkpoints}"),
                ("valid_for: ", f"rules: {self.rules}\nvalid_for: "),
            ):
                assert old in text, f"the example's job.yaml has no {old!r}"
                text = text.replace(old, new)
            (folder / "job.yaml").write_text(text)
        text = "the run was over"
        for _ in range(60):
            if self.over:
                break
            ok, text = client.try_run("job", "submit", str(folder), "--key", "client", "--yes", "-o", "json")
            if ok:
                return str(json.loads(text)["id"])
            time.sleep(1)
            try:  # the answer may have been lost on its way
                mine = [job.id for job in self.jobs() if job.name == name]
            except UserError:
                continue
            if mine:
                return mine[0]
        raise Failure(f"job {number} could not be handed in:\n{text}")

    # ------------------------------------------------------------- processes

    def start(self, service: str) -> None:
        party, command = self.services[service]
        self._party(party).start(service, *command, liar=self.liars.get(service))

    def process(self, service: str) -> "subprocess.Popen[bytes]":
        return self._party(self.services[service][0]).processes[service]

    def kill(self, service: str) -> None:
        self._party(self.services[service][0]).kill(service)

    def sandboxes(self) -> list[psutil.Process]:
        """The outermost processes of all sandboxes that run now."""
        found = []
        for name in self.providers:
            if self.process(name).poll() is not None:
                continue
            for child in psutil.Process(self.process(name).pid).children(recursive=True):
                try:
                    if child.name() == "bwrap":
                        found.append(child)
                except psutil.NoSuchProcess:
                    continue
        return found

    def revive(self) -> list[str]:
        """Starts what does not run, whoever ended it; returns the names."""
        dead = [service for service in self.services if self._is_dead(service)]
        for service in dead:
            self.start(service)
        return dead

    def _is_dead(self, service: str) -> bool:
        process = self._party(self.services[service][0]).processes.get(service)
        return process is not None and process.poll() is not None

    def stop_all(self) -> None:
        for service in self.services:
            process = self._party(self.services[service][0]).processes.get(service)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for service in self.services:
            process = self._party(self.services[service][0]).processes.get(service)
            if process is not None:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
        self.chain_door.close()
        self.market_door.close()
        self.chain.stop()
        for mount in self.mounts:
            kept = mount.with_name(mount.name + "-kept")
            subprocess.run(["cp", "-r", str(mount), str(kept)], capture_output=True)
            subprocess.run(["umount", "-l", str(mount)], capture_output=True)

    # ------------------------------------------------------------- looking

    def market_answers(self) -> bool:
        try:
            self.market.info()
        except UserError:
            return False
        return True

    def until(self, what: str, ready: Callable[[], bool], patience: float = 180) -> None:
        deadline = time.monotonic() + patience
        while not ready():
            self.revive()
            if time.monotonic() > deadline:
                raise Failure(
                    f"waited {patience:.0f} s in vain until {what}; the market's last words:\n{self.tail('market')}"
                )
            time.sleep(0.2)

    def differences(self) -> list[str]:
        """What `gpumarket reconcile` does, without starting a Python for each; the trouble it has counts, too."""
        os.environ["GPUMARKET_HOME"] = str(self._party("operator").home)
        try:
            settings = load_market_settings()
            db = Database(settings.database_url)
            try:
                blobs = BlobStore(settings.blob_dir, settings.max_blob_bytes)
                checks = reconcile.reconcile(self.direct, db, blobs, Keep.of(settings))
            finally:
                db.close()
        except (UserError, OSError, Web3Exception, SQLAlchemyError) as error:
            return [f"{type(error).__name__}: {error}"]
        return [f"{check.name}: {one}" for check in checks for one in check.differences]

    def jobs(self) -> list[JobSummary]:
        """The client's."""
        return list(self.market.jobs(client=self._party("client").address()))

    def observe(self) -> None:
        """After each event."""

    def is_over(self) -> bool:
        """Whether nothing is under way beside the client's jobs."""
        return True

    def is_told(self, job: JobSummary) -> bool:
        """Whether an operator was told that this job may come to nothing."""
        return False

    def problems(self) -> Iterator[str]:
        """What does not hold in the end, beside the client's jobs."""
        yield from ()

    def outcome(self) -> dict[str, int]:
        return {}

    def reconcile(self) -> None:
        """As an operator would. Raises Failure if anything differs."""
        self._party("operator").run("reconcile")

    def pull(self, job: str) -> None:
        """Downloads and verifies a job's newest checkpoint. Raises Failure."""
        client = self._party("client")
        client.run("job", "pull", job, str(client.home / f"result-{job[2:12]}"))

    def tail(self, service: str) -> str:
        return self._party(self.services[service][0]).tail(service, 25)

    def status(self) -> dict[str, Any]:
        return {service: self.process(service).poll() for service in self.services}
