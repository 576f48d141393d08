"""`gpumarket market serve` as a process: it starts, answers, stops on a signal, and goes on where it was."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.wallet import keys
from tests.support.devnet import rpc
from tests.support.market_process import serving, wait_until_ready


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_and_stop(home: Path, number: signal.Signals) -> None:
    with serving() as (process, url), MarketClient(url) as api:
        wait_until_ready(api)
        assert api.info().matcher == keys.address("market")
        process.send_signal(number)
        assert process.wait(300) == 0
    assert (home / "market" / "market.sqlite3").exists()


def test_a_restart_goes_on(home: Path, chain: Chain, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", database_url)
    for _ in range(2):
        with serving() as (process, url), MarketClient(url) as api:
            wait_until_ready(api)
            # On PostgreSQL the second has to wait for the first one's time to pass.
            deadline = time.monotonic() + 300
            while api.info().block != chain.w3.eth.block_number:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.kill()
        rpc(chain, "anvil_mine", 3)


def test_a_wrong_chain_id(home: Path) -> None:
    command = [sys.executable, "-m", "contracts.cli.main", "market", "serve"]
    environment = {**os.environ, "GPUMARKET_CHAIN_ID": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "has chain id 31337, expected 1" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "market" / "market.sqlite3").exists()


def test_a_second_market_in_one_home(home: Path) -> None:
    with serving():
        command = [sys.executable, "-m", "contracts.cli.main", "market", "serve", "--port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "a market is running on" in done.stderr


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "contracts.cli.main", "market", "serve", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "hint: choose another" in done.stderr


@pytest.mark.long  # maintenance/test_reindex.py runs the command, too
def test_reindex(home: Path) -> None:
    command = [sys.executable, "-m", "contracts.cli.main", "market", "reindex", "--yes"]
    with serving() as (_, url), MarketClient(url) as api:
        wait_until_ready(api)
        refused = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 1 and "a market is running on" in refused.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "4 rule_set" in done.stdout, done.stderr
