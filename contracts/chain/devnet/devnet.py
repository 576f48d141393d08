"""A local chain (anvil) with the contracts on it, for development, the demo and tests. Its keys are public."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import requests
from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3 import HTTPProvider, Web3

from contracts.audits.levels import SHIPPED, UNCHECKED
from contracts.chain.client import Bounds
from contracts.chain.devnet.deployment import Deployment, deploy, find_deployment
from contracts.errors import UserError
from contracts.orders import Rules
from contracts.settings import CONFIG_NAME, Settings, read_config, write_config
from contracts.strict_json import read_json, write_json

CHAIN_ID = 31337
MNEMONIC = "test test test test test test test test test test test junk"
ACCOUNTS = 10
STATES = 1_000  # of so many blocks; how deep a reorganisation can be tried
START_TIMEOUT = 20.0  # seconds
# Seconds, as on any devnet: a deployment for real money would have bounds of minutes to days.
BOUNDS = Bounds(1, 7 * 86_400, 1, 86_400, 1, 7 * 86_400)
CONFIG_COMMENT = "Written by `gpumarket devnet`, which replaces it at the next start."
_RECORD = "devnet.json"


@dataclass(frozen=True)
class DevnetTiming:
    """The seconds in a devnet's rule-sets."""

    window: int = 60
    checkpoint_timeout: int = 120
    arbiter_timeout: int = 120
    interruptible_timeout: int = 86_400


FAST = DevnetTiming(window=4, checkpoint_timeout=20, arbiter_timeout=30, interruptible_timeout=120)


def rule_sets(arbiter: str, timing: DevnetTiming, arbiter_fee: int = 1_000_000) -> dict[str, Rules]:
    """One of each level, for providers that stay; and `interruptible`, unchecked, for those that may be
    away for long. Fee in token units.
    """
    unchecked = Rules(
        arbiter=arbiter,
        arbiter_fee=arbiter_fee,
        arbiter_timeout=timing.arbiter_timeout,
        checkpoint_timeout=timing.checkpoint_timeout,
        window=timing.window,
        verification=UNCHECKED.hash(),
    )
    levels = {
        str(level): unchecked.model_copy(update={"verification": verification.hash()})
        for level, verification in SHIPPED.items()
    }
    patient = unchecked.model_copy(update={"checkpoint_timeout": timing.interruptible_timeout})
    return levels | {"interruptible": patient}


@cache
def accounts() -> tuple[LocalAccount, ...]:
    """Anvil's accounts, which anyone knows. 0 deploys, and decides disputes as the arbiter's operator."""
    Account.enable_unaudited_hdwallet_features()
    return tuple(Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{i}") for i in range(ACCOUNTS))


def find_anvil() -> Path:
    """$GPUMARKET_ANVIL, else the checkout's node_modules, else PATH. Raises UserError."""
    hint = "in a checkout, run scripts/setup; or install Foundry (https://getfoundry.sh); or set GPUMARKET_ANVIL"
    given = os.environ.get("GPUMARKET_ANVIL")
    if given:
        if not os.access(given, os.X_OK):
            raise UserError(f"GPUMARKET_ANVIL names {given}, which can't be run", hint)
        return Path(given)
    local = Path(__file__).parents[3] / "node_modules" / ".bin" / "anvil"
    found = str(local) if os.access(local, os.X_OK) else shutil.which("anvil")
    if found is None:
        raise UserError("anvil, the local Ethereum node, is not installed", hint)
    return Path(found)


@dataclass
class Devnet:
    """A running local chain. Use as a context manager, or call `stop`."""

    settings: Settings
    deployment: Deployment
    process: subprocess.Popen[bytes]
    home: Path
    reused: bool  # the contracts came with the state file

    @property
    def operator(self) -> LocalAccount:
        """The key that decides disputes at the devnet's arbiter."""
        return accounts()[0]

    def stop(self) -> None:
        """Ends the chain; it writes its state file first, if it has one. The config stays. Idempotent."""
        _stop(self.process)
        (self.home / _RECORD).unlink(missing_ok=True)

    def __enter__(self) -> "Devnet":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_devnet(
    home: Path,
    port: int = 0,
    *,
    block_time: float | None = None,
    timing: DevnetTiming = FAST,
    rules: Mapping[str, Rules] | None = None,
    bounds: Bounds = BOUNDS,
    state: Path | None = None,
) -> Devnet:
    """Starts anvil on loopback, deploys the contracts, writes config.toml and a log into `home`.

    `port` 0 takes a free one. Every transaction makes a block at once; with `block_time` (seconds) empty blocks
    come in between, else the chain's clock stands still from one transaction to the next. `state` is read at the
    start if it exists and written at the end. Returns when the contracts are there. Raises UserError.
    """
    _check_home(home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    port = port or _free_port()
    _check_port(port)
    process, url = _start_anvil(home, port, block_time, state)
    try:
        w3 = _direct(url, 30)
        _wait_until_up(w3, process, home)
        found = find_deployment(w3, accounts()[0].address)
        deployment = found or deploy(w3, accounts()[0], bounds)
        settings = Settings(
            rpc_url=url,
            chain_id=CHAIN_ID,
            escrow=deployment.escrow,
            token=deployment.token,
            epoch_log=deployment.epoch_log,
            arbiter=deployment.arbiter,
            deploy_block=deployment.block,
            confirmations_base=0,  # its blocks come when they are wanted, and nobody takes them back
            confirmations_per=0,
            confirmations_max=0,
            rules=dict(rules or rule_sets(deployment.arbiter, timing)),
        )
        write_config(home / CONFIG_NAME, settings, CONFIG_COMMENT)
        record = {"pid": process.pid, "rpc_url": url}
        (home / _RECORD).write_text(write_json(record), encoding="utf-8")
    except BaseException:
        _stop(process)
        raise
    return Devnet(settings, deployment, process, home, found is not None)


def running(home: Path) -> dict[str, Any] | None:
    """`pid` and `rpc_url` of the living devnet that `home` belongs to; None if there is none (any more)."""
    try:
        record: dict[str, Any] = read_json((home / _RECORD).read_text(encoding="utf-8"))
        os.kill(record["pid"], 0)
        alive = _direct(record["rpc_url"], 2).is_connected()
    except (OSError, ValueError, KeyError):
        return None
    return record if alive else None


def _direct(url: str, timeout: float) -> Web3:
    """To a node that this machine runs, whatever proxy the environment has for others."""
    session = requests.Session()
    session.trust_env = False
    return Web3(HTTPProvider(url, request_kwargs={"timeout": timeout}, session=session))


def _check_home(home: Path) -> None:
    record = running(home)
    if record is not None:
        raise UserError(
            f"a devnet is running for {home} already: process {record['pid']}, {record['rpc_url']}",
            f"use it, stop it (Ctrl-C where it runs, or kill {record['pid']}), or give this one its own GPUMARKET_HOME",
        )
    config = home / CONFIG_NAME
    if config.exists() and CONFIG_COMMENT not in config.read_text(encoding="utf-8", errors="replace"):
        read_config(config)
        raise UserError(
            f"{config} was not written by a devnet, and would be replaced",
            "move it away, or give the devnet its own GPUMARKET_HOME",
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} is not free: {error.strerror}", "choose another with --port") from error


def _start_anvil(
    home: Path, port: int, block_time: float | None, state: Path | None
) -> tuple[subprocess.Popen[bytes], str]:
    command = [str(find_anvil()), "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN_ID)]
    command += ["--mnemonic", MNEMONIC, "--accounts", str(ACCOUNTS)]
    # All in memory: an older anvil would keep only 10 there, and going back to one on its disk loses contracts' code.
    command += ["--prune-history", str(STATES)]
    if block_time is not None:
        # Transactions are mined at once; the interval keeps the chain's clock going between them.
        command += ["--block-time", f"{block_time:g}", "--mixed-mining"]
    if state is not None:
        command += ["--state", str(state)]
    log: IO[bytes]
    with open(home / "devnet.log", "wb") as log:
        # In a session of its own: a Ctrl-C in the terminal is ours to pass on.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return process, f"http://127.0.0.1:{port}"


def _wait_until_up(w3: Web3, process: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not w3.is_connected():
        if process.poll() is not None or time.monotonic() > deadline:
            log = (home / "devnet.log").read_text(encoding="utf-8", errors="replace").strip()
            problem = f"stopped with code {process.poll()}" if process.poll() is not None else "doesn't answer"
            raise UserError(
                f"anvil {problem}: {log.splitlines()[-1] if log else 'no output'}", f"see {home}/devnet.log"
            )
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)  # upon which anvil writes its state
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
