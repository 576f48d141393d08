"""`gpumarket market serve` as a process, for tests of what an operator starts, stops and kills."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.settings import CONFIG_NAME
from contracts.wallet import keys


@pytest.fixture
def home(chain: Chain, devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with the devnet's config and a key for the matcher."""
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.setenv("GPUMARKET_PASSWORD", "open sesame")
    (tmp_path / CONFIG_NAME).write_bytes((devnet.home / CONFIG_NAME).read_bytes())
    keys.create("market", scrypt_n=2)
    return tmp_path


@contextmanager
def serving(*options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The running command and its URL."""
    command = [sys.executable, "-m", "contracts.cli.main", "market", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("market "), process.communicate()[1]
        yield process, line.split()[1]
    finally:
        process.kill()
        process.communicate()


def wait_until_ready(api: MarketClient) -> None:
    deadline = time.monotonic() + 300
    while api._http.get("/readyz").status_code != 204:
        assert time.monotonic() < deadline
        time.sleep(0.05)
