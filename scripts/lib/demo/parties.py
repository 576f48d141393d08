"""The demo's parties: each with a home, keys and processes of its own, as they would be on machines of their own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eth_account.signers.local import LocalAccount

from contracts.settings import Settings, read_config
from contracts.wallet import keys

GPUMARKET = Path(sys.executable).with_name("gpumarket")
ROOT = Path(__file__).resolve().parents[3]


class Failure(Exception):
    """The demo can't go on; says why."""


def _command(liar: str | None) -> list[str]:
    return [str(GPUMARKET)] if liar is None else [sys.executable, "-m", "tests.liars", "as", liar]


class Party:
    """One person or service: runs `gpumarket` commands with its own home."""

    def __init__(self, stage: "Stage", name: str) -> None:
        self.stage, self.name = stage, name
        self.home = stage.home / name
        self.home.mkdir(parents=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.gone: set[str] = set()  # processes that were stopped on purpose
        self._address: str | None = None

    def _environment(self) -> dict[str, str]:
        if self.stage.config and not (self.home / "config.toml").exists():
            shutil.copy(self.stage.config, self.home / "config.toml")
        mine = {"GPUMARKET_HOME": str(self.home), "GPUMARKET_PASSWORD": self.stage.password}
        if self.stage.market_url:
            mine["GPUMARKET_MARKET_URL"] = self.stage.market_url
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("GPUMARKET_")}
        return inherited | mine | {"COLUMNS": "160", "NO_COLOR": "1"}

    def try_run(self, *arguments: str, liar: str | None = None) -> tuple[bool, str]:
        """Whether a command succeeded, and what it printed. `liar` as in `start`."""
        done = subprocess.run(
            [*_command(liar), *arguments],
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode == 0, done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def run(self, *arguments: str, liar: str | None = None) -> str:
        ok, text = self.try_run(*arguments, liar=liar)
        if not ok:
            raise Failure(f"{self.name}: gpumarket {' '.join(arguments)} failed:\n{text}")
        return text

    def start(self, what: str, *arguments: str, liar: str | None = None) -> None:
        """Start a long-running command in a process group of its own, with its output added to a log file. With `liar`
        it is the same command with one part replaced, by that kind in tests/liars.
        """
        with (self.home / f"{what}.log").open("ab") as log:
            self.processes[what] = subprocess.Popen(
                [*_command(liar), *arguments],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, what: str) -> None:
        """kill -9, as a power cut would; the agent gets no chance to say anything."""
        self.gone.add(what)
        self.processes[what].kill()
        self.processes[what].wait()

    def terminate(self, what: str, patience: float = 60) -> None:
        self.gone.add(what)
        process = self.processes[what]
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failure(f"{self.name}'s {what} did not stop within {patience} s of SIGTERM") from None

    def new_key(self) -> str:
        """What `gpumarket wallet new` does, without starting a Python for each. Returns the address."""
        os.environ["GPUMARKET_HOME"] = str(self.home)
        # Play money: each process that opens a key of the usual strength would take most of a second for it.
        self._address = keys.create(self.name, self.stage.password, scrypt_n=1 << 12)
        return self._address

    def account(self) -> LocalAccount:
        os.environ["GPUMARKET_HOME"] = str(self.home)
        return keys.load(self.name, self.stage.password)

    def address(self) -> str:
        if self._address is None:
            raise Failure(f"{self.name} has no key yet")
        return self._address

    def tail(self, what: str, lines: int = 15) -> str:
        return "\n".join((self.home / f"{what}.log").read_text(errors="replace").splitlines()[-lines:])


class Stage:
    """All parties, and where they meet."""

    def __init__(self, home: Path) -> None:
        self.home = home
        os.environ["GPUMARKET_HOME"] = str(home)  # of what is sent by nobody's key here; never this user's own
        self.started = time.monotonic()
        self.password = secrets.token_hex(8)
        self.config: Path | None = None
        self.market_url: str | None = None
        self._parties: dict[str, Party] = {}

    def party(self, name: str) -> Party:
        if name not in self._parties:
            self._parties[name] = Party(self, name)
        return self._parties[name]

    def settings(self) -> Settings:
        assert self.config is not None
        return Settings(**read_config(self.config))

    @staticmethod
    def free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def check_alive(self) -> None:
        """Raises Failure if a process ended that nobody stopped."""
        for party in self._parties.values():
            for what, process in party.processes.items():
                if what not in party.gone and process.poll() is not None:
                    raise Failure(f"{party.name}'s {what} ended with code {process.returncode}:\n{party.tail(what)}")

    def wait_for(self, what: str, ready: Callable[[], bool], party: Party | None = None, patience: float = 120) -> None:
        deadline = time.monotonic() + patience
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline:
                logs = "".join(f"\n{name}:\n{party.tail(name)}" for name in party.processes) if party else ""
                raise Failure(f"waited {patience:.0f} s for {what} in vain{logs}")
            time.sleep(0.1)

    def stop_all(self) -> None:
        """SIGTERM to everything, the chain last; SIGKILL to what does not go."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would leave processes behind
        running = [
            (what, process)
            for party in self._parties.values()
            for what, process in party.processes.items()
            if process.poll() is None
        ]
        for is_chain in (False, True):
            group = [process for what, process in running if (what == "chain") == is_chain]
            for process in group:
                process.send_signal(signal.SIGTERM)
            for process in group:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
