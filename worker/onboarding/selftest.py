"""What a provider needs of its machine, its market and its chain: each looked at, with the way to mend it."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from contracts.amounts import format_amount
from contracts.api.client import MarketClient
from contracts.chain.asking.node import NodeTrouble
from contracts.chain.client import Chain, connect
from contracts.chain.errors import NODE_AWAY
from contracts.chain.node_limits import find_limits
from contracts.chain.sending.fees import format_ether
from contracts.clocks import SET_IT, clock_difference
from contracts.errors import UserError
from contracts.settings import home, load_settings
from contracts.types import MB
from contracts.wallet import keys
from worker.agent.asks import check_market_terms, gas_today
from worker.agent.gas import CLAIM, REDEEM
from worker.agent.sweep import stake_needed
from worker.driver.nvml import GpuHealth, NoAnswer, named, read_gpus
from worker.machine.hardware import measure_throughput
from worker.machine.troubles import environment_trouble, judge_sold
from worker.onboarding.repeats import REPEATED_STEPS, train_twice
from worker.sandbox.bubblewrap import HOW_TO_MEND
from worker.sandbox.leaks import sandbox_leaks
from worker.sandbox.podman import chosen_sandbox
from worker.settings import ProviderSettings
from worker.training.environment import environment_id

Verdict = Literal["ok", "warn", "fail", "skip"]

WRITE_BYTES = 64 << 20
SLOW_DISK = 50 << 20  # bytes a second
HOT_CELSIUS = 85
SLOWER = 0.8  # of the registered speed
CLOCK_SECONDS = 30.0  # reports are good for 5 minutes, pauses and timeouts need less
GAS_LEASES = 20  # transactions that the gas money should last for


@dataclass(frozen=True)
class Finding:
    name: str
    verdict: Verdict
    found: str
    mend: str = ""


class Selftest:
    """Of one registered key. Changes nothing, and sends nothing to market or chain but questions."""

    def __init__(self, key: str, settings: ProviderSettings, measure_seconds: float) -> None:
        """`measure_seconds` 0: don't measure the speed."""
        self._key, self._settings, self._measure_seconds = key, settings, measure_seconds
        self._chain: Chain | None = None
        self._market_clock: float | None = None  # seconds that this machine's is ahead of it

    def run(self) -> Iterator[Finding]:
        """One after the other; a check that breaks is a failure with the reason."""
        checks: dict[str, Callable[[], Finding]] = {
            "python": self._python,
            "sandbox": self._sandbox,
            "disk": self._disk,
            "gpu": self._gpu,
            "keystore": self._keystore,
            "chain": self._reach_chain,
            "node": self._node,
            "market": self._market,
            "clock": self._clock,
            "gas money": self._gas_money,
            "stake": self._stake,
            "repeats": self._repeats,
            "speed": self._speed,
        }
        for name, check in checks.items():
            try:
                yield check()
            except UserError as error:
                yield Finding(name, "fail", error.message, error.hint or "")
            except NodeTrouble as error:
                yield Finding(name, "fail", error.message, error.hint)
            except NODE_AWAY as error:
                yield Finding(name, "fail", f"{type(error).__name__}: {error}"[:200], "is the node well?")
            except OSError as error:
                yield Finding(name, "fail", str(error))

    # ------------------------------------------------------------- the machine

    def _python(self) -> Finding:
        if trouble := environment_trouble(self._settings):
            return Finding("python", "fail", trouble.what, trouble.mend)
        found = f"Python {sys.version.split()[0]}, torch {version('torch')}, environment {environment_id()}"
        return Finding("python", "ok", found)

    def _sandbox(self) -> Finding:
        """Runs a program inside that tries to get out."""
        runtime = chosen_sandbox(self._settings.sandbox, self._settings.image)
        mend = HOW_TO_MEND[runtime.kind]
        problem = runtime.problem()
        if problem:
            return Finding("sandbox", "fail", f"{problem}; only shipped recipes would run", mend)
        leaks = sandbox_leaks(runtime)
        if leaks:
            return Finding("sandbox", "fail", f"a program inside {'; '.join(leaks)}", mend)
        return Finding("sandbox", "ok", f"{runtime.kind}: no network, no home, no other process, no variables")

    def _disk(self) -> Finding:
        folder = home()
        free = shutil.disk_usage(folder).free // MB
        wanted = self._settings.all_disk_mb or self._settings.disk_mb * self._settings.max_active
        speed = write_speed(folder)
        found = f"{free:,} MB free in {folder}, written at {speed / MB:,.0f} MB/s"
        if free < wanted:
            return Finding(
                "disk",
                "fail",
                f"{found}; jobs may take {wanted:,} MB",
                "free some, or set a smaller disk_mb in provider.toml",
            )
        if speed < SLOW_DISK:
            return Finding("disk", "warn", found, "checkpoints are written to it: a faster disk trains faster")
        return Finding("disk", "ok", found)

    def _gpu(self) -> Finding:
        cpu = self._settings.resources.device
        try:
            gpus = read_gpus()
        except NoAnswer as error:
            if self._settings.device == "cuda":
                return Finding("gpu", "fail", error.message, error.hint or "")
            mend = f"{error.hint}. Then register anew, to sell the GPU"
            return Finding("gpu", "warn", f"this lot trains on the CPU ({cpu}); but {error.message}", mend)
        if self._settings.device == "cpu":
            return Finding("gpu", "skip", f"none is offered: this lot trains on the CPU ({cpu})")
        return judge_gpus(list(gpus or ()), self._settings)

    def _repeats(self) -> Finding:
        if not self._measure_seconds:
            return Finding("repeats", "skip", "not tried: nothing is measured")
        part = "the CPU" if self._settings.device == "cpu" else "the GPU"
        if unlike := train_twice(self._settings):
            found = f"{part} does not repeat itself: of the same steps, trained twice, step {unlike.step} differs: "
            mend = "look for memory that fails, heat and overclocking; replays would make liars of you: offer nothing"
            return Finding("repeats", "fail", found + unlike.what, mend)
        return Finding("repeats", "ok", f"{REPEATED_STEPS} steps on {part}, trained twice: the same bit for bit")

    def _speed(self) -> Finding:
        if not self._measure_seconds:
            return Finding("speed", "skip", "not measured")
        settings = self._settings
        seconds, device = self._measure_seconds, settings.device
        found = measure_throughput(
            seconds, device=device, threads=settings.threads, gpus=settings.gpu_names
        ).units_per_hour
        share = found / settings.units_per_hour
        text = f"{found:,} units an hour, {share:.0%} of what is registered"
        if share < SLOWER:
            return Finding(
                "speed",
                "warn",
                text,
                "is the machine busy, hot, or throttled? Leases may be late; register anew if it stays",
            )
        return Finding("speed", "ok", text)

    # ------------------------------------------------------------- key, chain, market

    def _keystore(self) -> Finding:
        path = keys.keystore_path(self._key)
        keys.check_private(path, "the keystore")
        if file := os.environ.get("GPUMARKET_PASSWORD_FILE"):
            keys.check_private(Path(file), "the password file")
        if path.parent.stat().st_mode & 0o022:
            return Finding("keystore", "fail", f"others may write to {path.parent}", f"chmod 700 {path.parent}")
        return Finding("keystore", "ok", f"{path}, for its owner only")

    def _reach_chain(self) -> Finding:
        self._chain = connect(load_settings())
        block = self._chain.w3.eth.get_block("latest")
        return Finding("chain", "ok", f"chain {self._chain.domain.chain_id}, block {block['number']}")

    def _node(self) -> Finding:
        """Leases are found in the logs of its blocks."""
        if self._chain is None:
            return Finding("node", "skip", "no chain")
        limits = find_limits(self._chain)
        found = f"logs of {limits.blocks:,} blocks and {limits.batch} questions at a time"
        if limits.slow:
            mend = "it will do, but looking for leases takes long: a node that allows more (docs/operations.md)"
            return Finding("node", "warn", found, mend)
        return Finding("node", "ok", found)

    def _market(self) -> Finding:
        with MarketClient(self._settings.market_url, attempts=1) as client:
            info = client.info()
            self._market_clock = client.clock_ahead
        if self._chain is None:
            return Finding("market", "skip", "it answers; there is no chain to compare it with")
        check_market_terms(info, self._chain, self._settings)
        return Finding(
            "market", "ok", f"{self._settings.market_url}, the same escrow, and the rules '{self._settings.rules_name}'"
        )

    def _clock(self) -> Finding:
        if self._market_clock is not None and abs(self._market_clock) > CLOCK_SECONDS:
            off = clock_difference(self._market_clock, 0, "the market's clock", CLOCK_SECONDS)
            return Finding("clock", "fail", f"this machine's is {off}", SET_IT)
        if self._chain is None:
            return Finding("clock", "skip", "no chain to compare it with")
        # A chain without traffic lags behind; one that is ahead tells for sure.
        ahead = self._chain.now() - time.time()
        if ahead > CLOCK_SECONDS:
            off = clock_difference(0, ahead, "the chain's newest block", CLOCK_SECONDS)
            return Finding("clock", "fail", f"this machine's is {off}", SET_IT)
        if ahead < -3600:
            return Finding(
                "clock", "warn", f"the newest block is {-ahead:.0f} s old", "is the node in sync? Is the clock right?"
            )
        return Finding("clock", "ok", f"{-ahead:.0f} s after the newest block")

    def _gas_money(self) -> Finding:
        if self._chain is None:
            return Finding("gas money", "skip", "no chain")
        address = keys.address(self._key)
        balance = self._chain.w3.eth.get_balance(self._chain.w3.to_checksum_address(address))
        one = max(CLAIM, REDEEM) * gas_today(self._chain, self._settings.money).wei
        count = balance // max(1, one)
        found = f"{format_ether(balance)} ETH: {count:,} transactions at today's price"
        mend = f"send some of the chain's coin to {address}; on a devnet: gpumarket wallet faucet --key {self._key}"
        verdict: Verdict = "fail" if not count else "warn" if count < GAS_LEASES else "ok"
        return Finding("gas money", verdict, found, "" if verdict == "ok" else mend)

    def _stake(self) -> Finding:
        if self._chain is None:
            return Finding("stake", "skip", "no chain")
        chain, account = self._chain, self._chain.account(keys.address(self._key))
        needed = stake_needed(self._settings)
        found = f"{chain.format_amount(account.free)} free, {account.active} leases"
        if account.active == 0 and account.free < self._settings.max_stake:
            missing = format_amount(self._settings.max_stake - account.free, chain.decimals)
            mend = f"gpumarket wallet deposit {missing} --key {self._key}, or register a smaller --max-stake"
            return Finding("stake", "fail", f"{found}: the market would refuse the Ask", mend)
        if account.active == 0 and account.free < needed:
            return Finding(
                "stake", "warn", f"{found}: not for {self._settings.max_active} leases at a time", "deposit more"
            )
        return Finding("stake", "ok", found)


# ------------------------------------------------------------------ what is really there


def write_speed(folder: Path) -> float:
    """Bytes a second to disk, synced."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.monotonic()
        for _ in range(WRITE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return WRITE_BYTES / max(time.monotonic() - began, 1e-6)


def judge_gpus(gpus: list[GpuHealth], settings: ProviderSettings) -> Finding:
    """Pure: whether the sold ones of these GPUs are what the Ask sells, and well."""
    if trouble := judge_sold(gpus, settings):
        return Finding("gpu", "fail", trouble.what, trouble.mend)
    sold = [gpu for name in settings.gpu_names if (gpu := named(gpus, name))]
    found = "; ".join(f"{gpu.index}: {gpu.name}, {gpu.free_mb:,} of {gpu.memory_mb:,} MB free" for gpu in sold)
    found += f"; driver {sold[0].driver}" if sold else ""
    hot = [gpu for gpu in sold if gpu.celsius is not None and gpu.celsius >= HOT_CELSIUS]
    if hot:
        return Finding(
            "gpu", "warn", f"{hot[0].label} has {hot[0].celsius} °C", "look after fans and dust: it will throttle"
        )
    # Of memory that is the machine's all programs have their part.
    used = [gpu for gpu in sold if not gpu.unified and gpu.free_mb < gpu.memory_mb * 0.9]
    if used:
        return Finding("gpu", "warn", f"{found}", f"something else uses {used[0].label}'s memory: jobs may not fit")
    return Finding("gpu", "ok", found)
