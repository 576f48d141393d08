"""The code blocks of the docs, run as a reader would: each in a terminal of its own, all with one home."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support import ROOT, free_port

# What runs until it is stopped; it ends a block, as whoever types it needs another terminal for the next.
SERVICES = tuple(
    f"gpumarket {service}"
    for service in ("devnet", "market serve", "approver start", "arbiter start", "provider start")
)
NODE, MARKET = 8545, 8600  # ports in the docs


def blocks(page: str, heading: str) -> list[str]:
    """The code blocks of a page's section, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    marks = re.match("#+", heading)
    assert marks and text.count(f"\n{heading}\n") == 1, f"{page} has no one section {heading!r}"
    section = re.split(rf"\n#{{1,{len(marks[0])}}} ", text.partition(f"\n{heading}\n")[2])[0]
    return re.findall(r"^```\w*\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


class Terminals:
    """A machine with nothing on it but what `scripts/setup` has made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {NODE: free_port(), MARKET: free_port()}
        self.market = f"http://127.0.0.1:{self.ports[MARKET]}"
        password = folder / "password"
        password.write_text("sesame\n")
        password.chmod(0o600)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GPUMARKET_", "PYTHON"))}
        self.environment = inherited | {
            "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "GPUMARKET_PASSWORD_FILE": str(password), "ETH_PASSWORD": str(password), "CAST_PASSWORD": "sesame",
            "GPUMARKET_MARKET_PORT": str(self.ports[MARKET]), "GPUMARKET_MARKET_URL": self.market,
            "MARKET": self.market, "ETH_RPC_URL": f"http://127.0.0.1:{self.ports[NODE]}", "COLUMNS": "80",
        }  # fmt: skip
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Terminals":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(300)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def run(self, *parts: str, seconds: float = 800) -> str:
        """Blocks that end, one after the other in one shell. To each question the answer is yes."""
        done = subprocess.run(
            ["bash", "-c", f"yes | (set -e\n{self._here(chr(10).join(parts))}\n)"],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=seconds,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + self.logs()
        return done.stdout

    def start(self, block: str, ready: Callable[[str], bool], seconds: float = 800) -> None:
        """A block that ends with what runs until it is stopped."""
        (service,) = [line for line in block.splitlines() if line.startswith(SERVICES)]
        assert block.rstrip().endswith(service), "nobody gets to what stands behind a command that goes on"
        log = self.folder / f"{len(self._running)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"yes | (set -e\n{self._here(block)}\n)"],
                cwd=self.folder, env=self.environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._running.append(process)
        deadline = time.monotonic() + seconds
        while not ready(log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        return "".join(f"\n--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def _here(self, text: str) -> str:
        """With ports that are free on this machine."""
        text = text.replace("gpumarket devnet\n", f"gpumarket devnet --port {self.ports[NODE]}\n")
        for port, own in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{own}")
        return text
