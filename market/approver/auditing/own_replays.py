"""Replays on the approver's own machine, by the command that anybody has: `gpumarket replay`."""

import math
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from pebble import ThreadPool

from contracts.api.bodies import CheckpointOut
from contracts.audits.cases import FAILED, Outcome, Replayed
from contracts.audits.replays import Work, said_of
from contracts.settings import CONFIG_NAME, Settings, write_config
from contracts.strict_json import read_json
from contracts.wallet import encryption_keys, keys

QUEUE_SECONDS = 120.0  # that a replay waits for those before it; then others are asked
KEY = "approver"  # its name in the home that a replay gets
_OUTCOMES: dict[str, Outcome] = {"withheld": "unavailable", "not_here": "not_covered"}

log = structlog.get_logger()


def is_able() -> bool:
    """Whether what a replay needs is installed here."""
    return find_spec("worker") is not None and find_spec("torch") is not None


class OwnReplays:
    """One at a time: a replay may take the whole machine. What has to wait for long is left to others."""

    def __init__(self, settings: Settings, market: str, key: LocalAccount, own: PrivateKey, folder: Path) -> None:
        """`folder`: where replays work."""
        self._settings, self._market, self._key, self._own, self._folder = settings, market, key, own, folder
        self._threads = ThreadPool(max_workers=1)
        self._lock = threading.Lock()
        self._waits: dict[str, float] = {}  # until when, monotonic; by the claim's tip
        self._runs: str | None = None  # the claim's tip
        self._ended: dict[str, Replayed] = {}  # by the claim's tip
        self._process: subprocess.Popen[bytes] | None = None

    def answer(self, claim: CheckpointOut, seconds: float) -> Replayed | None:
        """What it came to; None while it is under way. Begins it, if it is not yet. `seconds` it may take."""
        tip = claim.claim.tip
        with self._lock:
            if tip in self._ended:
                return self._ended.pop(tip)
            if tip != self._runs and tip not in self._waits:
                self._waits[tip] = time.monotonic() + QUEUE_SECONDS
                self._threads.schedule(self._run, args=[claim, seconds])
            if time.monotonic() > self._waits.get(tip, math.inf):
                del self._waits[tip]
                return Replayed("stalled")
        return None

    def close(self) -> None:
        """Ends what is under way: it begins anew after a restart."""
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
        self._threads.stop()
        self._threads.join()

    def _run(self, claim: CheckpointOut, seconds: float) -> None:
        with self._lock:
            if self._waits.pop(claim.claim.tip, None) is None:
                return  # nobody waits for it any more
            self._runs = claim.claim.tip
        try:
            answer = self._replay(claim, seconds)
        except Exception:  # whatever it is, it says nothing about the claim
            log.exception("approver.replay_failed", job=claim.job, n=claim.claim.n)
            answer = Replayed("stalled")
        with self._lock:
            self._ended[claim.claim.tip], self._runs = answer, None

    def _replay(self, claim: CheckpointOut, seconds: float) -> Replayed:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="home-") as home:
            found = self._command(Path(home), claim, seconds)
        verdict = found.get("verdict", "")
        log.info("approver.replayed", job=claim.job, n=claim.claim.n, verdict=verdict, why=found.get("why", ""))
        if verdict in ("equal", "differs"):
            record, mine = claim.checkpoint, found["replayed"]
            claimed = Work(record.state_root, record.trace_root, record.numerics)
            return said_of(claimed, Work(mine["state_root"], mine["trace_root"], mine["numerics"]))
        if verdict == "failed" and found.get("spoiled"):
            return Replayed("differs", FAILED)
        return Replayed(_OUTCOMES.get(verdict, "unavailable" if verdict else "stalled"))

    def _command(self, home: Path, claim: CheckpointOut, seconds: float) -> dict[str, Any]:
        """What it printed. It gets a home of its own, with this key in it under a password that nobody else has."""
        password = secrets.token_hex(16)
        write_config(home / CONFIG_NAME, self._settings, "For one replay.")
        keys.write_wallet_key(home, KEY, self._key, password)
        encryption_keys.write_encryption_key(home, KEY, self._own, password)
        command = [str(Path(sys.executable).with_name("gpumarket")), "replay", claim.job, str(claim.claim.n)]
        command += ["--tip", claim.claim.tip, "--market", self._market, "--key", KEY, "-o", "json"]
        environment = os.environ | {"GPUMARKET_HOME": str(home), "GPUMARKET_PASSWORD": password}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with self._lock:
            self._process = process
        try:
            out, problem = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            out, problem = process.communicate()
            log.warning("approver.replay_slow", job=claim.job, n=claim.claim.n, seconds=seconds)
            return {}
        finally:
            with self._lock:
                self._process = None
        if not out.strip():
            log.warning("approver.replay_failed", job=claim.job, n=claim.claim.n, said=problem.decode()[-500:])
            return {}
        found: dict[str, Any] = read_json(out)
        return found
