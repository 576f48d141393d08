"""Makes home_of_2.tar.xz: what a whole market leaves on disk when its power goes.

home_of_0_1.tar.xz, of protocol 1, was made by this file of commit 8996ce0.

    python tests/golden/make_home.py [FILE]

To make another, for what a later version leaves: run this in a checkout of that version, after scripts/setup, with the
name of a new file, and have test_home_of_old.py take both. Of this project it uses nothing but `gpumarket`: so it goes
with any version, and so do the tests that use `Place`, wherever modules have moved to meanwhile. In the archive:

    home/        everybody's GPUMARKET_HOME: settings, keys, intents, receipts, market, approver, provider
    chain.json   the chain, as `gpumarket devnet --state` writes it
    jobs/        folders of the jobs, as `gpumarket job submit` takes them
    facts.json   what a test has to know: addresses to replace, ids of the jobs

Three jobs: `whole` is done; `sealed` too, and only its readers can open it; `halfway` has two of its five checkpoints
accepted, the first of them paid on chain. Its agent was killed in the middle of the third; then the market and the
approver were, too. The agent was stopped once before, and has withdrawn its Ask.

The chain's clock says 2035. Leases and orders go by it, or by the later of the two clocks; so nothing in the archive
grows old until the other clock says 2035, too. (No Bid is good for more than ten years.) The jobs name the environment
of their time: when workers have another one, the lease in the archive can't go on, and another archive has to be made.
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

GPUMARKET = Path(sys.executable).with_name("gpumarket")
OF_PROTOCOL_1, OF_PROTOCOL_2 = (Path(__file__).with_name(f"home_of_{name}.tar.xz") for name in ("0_1", "2"))
PASSWORD = "for tests"
YEARS = 9 * 365 * 86_400  # from when the jobs are submitted to when they are trained, by the chain
CHECKPOINT_TIMEOUT = 300
DEVNET = ("--block-time", "86400", "--window", "4", "--checkpoint-timeout", str(CHECKPOINT_TIMEOUT))
SILENCE = (OSError, http.client.HTTPException)  # of who is not there yet, or not any more
SERVICES = ("chain", "market", "approver", "provider")

# All numbers are multiples of small powers of two, and every result is exact: the bits are the same on any machine.
RECIPE = '''\
"""Takes its time: config["pause"] seconds a step."""

import time

import torch
from torch import nn

from worker.state import load_optimizer_state, optimizer_state


class Exact:
    def __init__(self, config, data):
        self.pause = config["pause"]
        self.model = nn.Linear(16, 16, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.model.weight)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.125, momentum=0.5)
        self.seen = 0

    def step(self, i):
        time.sleep(self.pause)
        self.seen += 1
        x = torch.randint(-4, 5, (8, 16)).to(torch.float64)
        loss = self.model(x).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item(), "seen": self.seen}

    def state_dict(self):
        optimizer = optimizer_state(self.optimizer, self.model)
        return {"model": self.model.state_dict(), "optimizer": optimizer, "seen": self.seen}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
        self.seen = int(state["seen"])
'''
JOB = """\
name: {name}
environment: {environment}
recipe: recipe.py:Exact
config: {{pause: {pause}}}
files: [recipe.py]
seed: 7
steps: {steps}
checkpoint_every: 4
max_price: {max_price} per checkpoint
stake: 20
rules: unchecked
sealed: {sealed}
valid_for: 315360000
"""


class Place:
    """A home and a chain in a folder, and the processes that work with them. As a context manager: all are ended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.jobs = folder, folder / "home", folder / "jobs"
        self.rpc_url = self.market_url = ""
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ticking: threading.Thread | None = None
        self._ended = threading.Event()

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        for what in reversed([*self._running]):
            self.kill(what)
        self._ended.set()
        if self._ticking is not None:
            self._ticking.join()

    # ------------------------------------------------------------- commands

    def run(self, *arguments: str) -> str:
        """What `gpumarket` with these arguments prints, if it succeeds."""
        done = subprocess.run(
            [GPUMARKET, *arguments], env=self._environment(self.home), capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise AssertionError(f"gpumarket {' '.join(arguments)}:\n{done.stdout}{done.stderr}{self.tails()}")
        return done.stdout

    def start(self, what: str, *arguments: str, home: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command that runs until it is stopped; its output is added to WHAT.log."""
        with self.log(what).open("ab") as log:
            self._running[what] = subprocess.Popen(
                [GPUMARKET, *arguments],
                env=self._environment(home or self.home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._running[what]

    def stop(self, what: str) -> None:
        process = self._running.pop(what)
        process.terminate()
        if code := process.wait(300):
            raise AssertionError(f"{what} ended with code {code}{self.tails()}")

    def kill(self, what: str) -> None:
        """As a power cut would."""
        process = self._running.pop(what)
        # Anvil is a process beside the command that starts it.
        process.terminate() if what == "chain" else process.kill()
        process.wait(300)

    def log(self, what: str) -> Path:
        return self.folder / f"{what}.log"

    def events(self, what: str) -> list[dict[str, Any]]:
        """What was logged with --json-logs."""
        return [json.loads(line) for line in self.log(what).read_text().splitlines() if line.startswith("{")]

    def tails(self) -> str:
        """The ends of all logs."""
        logs = [self.log(what) for what in SERVICES if self.log(what).exists()]
        return "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def wait_for(self, what: str, condition: Callable[[], Any], seconds: float = 300) -> Any:
        """The first true value of the condition."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if gone := [name for name in SERVICES if name in self._running and self._running[name].poll() is not None]:
                raise AssertionError(f"{', '.join(gone)} ended by itself{self.tails()}")
            with contextlib.suppress(*SILENCE):
                if value := condition():
                    return value
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {seconds} s{self.tails()}")

    def _environment(self, home: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GPUMARKET_")}
        mine = {"GPUMARKET_HOME": str(home), "GPUMARKET_PASSWORD": PASSWORD}
        return inherited | mine | {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}

    # ------------------------------------------------------------- the chain

    def start_chain(self) -> None:
        """From chain.json, if that is there. In a home of its own: config.toml of ours is older, and stays."""
        own, state = self.folder / "chain", self.folder / "chain.json"
        shutil.rmtree(own, ignore_errors=True)
        self.start("chain", "devnet", "--port", "0", *DEVNET, "--state", str(state), home=own)
        self.wait_for("the chain", (own / "config.toml").exists)
        self.rpc_url = tomllib.loads((own / "config.toml").read_text())["rpc_url"]
        if not (self.home / "config.toml").exists():
            self.home.mkdir(parents=True)
            shutil.copy(own / "config.toml", self.home / "config.toml")
        # Anvil does not remember what its clock was: its next block could be older than its last.
        self.set_clock(self.now() + 1)
        self._ticking = threading.Thread(target=self._tick, daemon=True)
        self._ticking.start()

    def rpc(self, method: str, *parameters: object) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = _fetch(self.rpc_url, json.dumps(body).encode())
        if "result" not in answer:
            raise AssertionError(f"{method}: {answer}")
        return answer["result"]

    def now(self) -> int:
        """The chain's time."""
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def set_clock(self, seconds: int) -> None:
        """The time of the chain's next block; it goes on from there."""
        self.rpc("evm_setTime", seconds)
        self.rpc("evm_mine")

    def _tick(self) -> None:
        """Keeps the chain's clock going, as other people's blocks do."""
        while not self._ended.wait(1):
            # It ends before us.
            with contextlib.suppress(*SILENCE):
                self.rpc("evm_mine")

    # ------------------------------------------------------------- the market

    def start_market(self, port: int = 0) -> None:
        """Returns when it follows the chain."""
        self.log("market").unlink(missing_ok=True)
        self.start("market", "market", "serve", "--port", str(port))

        def url() -> str | None:
            lines = self.log("market").read_text().splitlines()
            return next((line.split()[1] for line in lines if line.startswith("market ")), None)

        self.market_url = self.wait_for("the market", url)
        self.wait_for("the market to follow the chain", lambda: _fetch(f"{self.market_url}/readyz") is None)

    def get(self, path: str) -> Any:
        """An answer of the market."""
        return _fetch(f"{self.market_url}/v1/{path}")

    def checkpoints(self, job: str) -> list[dict[str, Any]]:
        """In order."""
        found: list[dict[str, Any]] = self.get(f"jobs/{job}/checkpoints")["items"]
        return sorted(found, key=lambda one: int(one["checkpoint"]["index"]))

    def approved(self, job: str) -> int:
        return sum(one["status"] == "approved" for one in self.checkpoints(job))


def _fetch(url: str, body: bytes | None = None) -> Any:
    """JSON; None for an empty answer."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


# ------------------------------------------------------------------ the story


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make(place: Place) -> None:
    place.start_chain()
    set_up(place)
    jobs = {
        "whole": submit(place, "whole", steps=8, max_price="2"),
        "sealed": submit(place, "sealed", steps=4, max_price="2", sealed=True),
        # Too little for what the provider asks at first.
        "halfway": submit(place, "halfway", steps=20, max_price="0.5", pause=0.5),
    }
    place.set_clock(place.now() + YEARS)
    register(place, price=3600)
    offer = place.home / "provider" / "rig" / "provider.toml"
    offer.write_text(offer.read_text().replace("poll_seconds = 2.0", "poll_seconds = 0.3"))
    place.start("provider", "provider", "start", "--key", "rig")
    for name in ("whole", "sealed"):
        place.wait_for(name, lambda name=name: place.get(f"jobs/{jobs[name]}")["status"] == "done")
    place.stop("provider")  # it withdraws its Ask
    register(place, price=720)
    place.start("provider", "provider", "start", "--key", "rig")
    halfway = jobs["halfway"]
    place.wait_for("a checkpoint", lambda: place.approved(halfway) == 1)
    # Redeemed is once per half timeout.
    place.set_clock(place.now() + CHECKPOINT_TIMEOUT // 2 + 5)
    place.wait_for("its pay", lambda: place.get(f"jobs/{halfway}")["leases"][0]["state"]["settled"] == 1)
    place.wait_for("another", lambda: lease_file(place).get("approved") == 2)
    for what in ("provider", "market", "approver"):
        place.kill(what)
    lease = lease_file(place)
    if (lease["made"], lease["approved"], lease["settled"]) != (2, 2, 1):
        raise SystemExit(f"the agent was not killed in time; try again: {lease}")
    place.stop("chain")
    facts = {"jobs": jobs, "rpc_url": place.rpc_url, "market_url": place.market_url}
    (place.folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


def set_up(place: Place) -> None:
    for name in ("market", "approver", "me", "rig"):
        place.run("wallet", "new", name)
        place.run("wallet", "faucet", "--key", name)
    place.run("wallet", "deposit", "50", "--key", "me")
    wallets = json.loads(place.run("wallet", "show", "-o", "json"))
    approver = next(one["address"] for one in wallets if one["name"] == "approver")
    settings = {"key": "market", "fee": 1000, "epoch_seconds": 1.0, "poll_seconds": 0.5}
    settings |= {"recommended_approver": approver}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
    (place.home / "market.toml").write_text("".join(lines))
    place.start_market(free_port())
    config = place.home / "config.toml"
    config.write_text(config.read_text().replace("\n", f'\nmarket_url = "{place.market_url}"\n', 1))
    place.start("approver", "approver", "start", "--key", "approver", "--poll", "0.5")


def submit(place: Place, name: str, *, steps: int, max_price: str, pause: float = 0, sealed: bool = False) -> str:
    """Returns the job's id."""
    folder = place.jobs / name
    folder.mkdir(parents=True)
    (folder / "recipe.py").write_text(RECIPE)
    here = json.loads(place.run("recipe", "environments", "-o", "json"))["environments"]
    environment = next(one["id"] for one in here if one["here"])
    fields = {"name": name, "environment": environment, "pause": pause, "steps": steps, "max_price": max_price}
    (folder / "job.yaml").write_text(JOB.format(**fields, sealed=json.dumps(sealed)))
    place.run("recipe", "measure", str(folder))
    id: str = json.loads(place.run("job", "submit", str(folder), "--key", "me", "--yes", "-o", "json"))["id"]
    return id


def register(place: Place, price: int) -> None:
    """For so many tokens an hour, in which there are 3600 checkpoints of one unit."""
    place.run(
        "provider", "register", "--key", "rig", "--price", str(price), "--stake", "100", "--rules", "unchecked",
        "--memory", "4096", "--units-per-hour", "3600", "--yes",
    )  # fmt: skip


def lease_file(place: Place) -> dict[str, Any]:
    """What the agent has written down about the lease of `halfway`; `approved` is added."""
    for path in place.home.glob("provider/rig/leases/*/lease.json"):
        lease: dict[str, Any] = json.loads(path.read_bytes())
        if lease["goal"] == "training":
            return lease | {"approved": lease["approval"]["approval"]["n"] if lease["approval"] else 0}
    return {}


# ------------------------------------------------------------------ the archive


def tidy(place: Place) -> None:
    """Take out what the next start makes again."""
    for path in place.home.rglob("*.sqlite3"):
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in [*place.folder.rglob("*.log"), *place.folder.rglob("*.lock"), *place.folder.rglob("*.sqlite3-*")]:
        path.unlink()


def pack(place: Place, archive: Path) -> None:
    """Times stay as they are; whose the files were is nobody's business."""

    def anybody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(archive, "w:xz", preset=9) as file:
        for name in ("facts.json", "chain.json", "home", "jobs"):
            file.add(place.folder / name, name, filter=anybody)


def unpack(folder: Path, archive: Path) -> tuple[Place, dict[str, Any]]:
    """The place, with nothing running there yet, and its facts."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return Place(folder), json.loads((folder / "facts.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archive", type=Path, nargs="?", default=OF_PROTOCOL_2)
    archive = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as folder, Place(Path(folder)) as place:
        make(place)
        tidy(place)
        pack(place, archive)
    print(f"{archive}: {archive.stat().st_size} bytes")


if __name__ == "__main__":
    main()
