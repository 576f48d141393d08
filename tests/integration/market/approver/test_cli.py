"""`gpumarket approver start` as a process, before its market, with the key of today and the one before it."""

import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.wallet import keys
from tests.support import free_port
from tests.support.devnet import rpc
from tests.support.market_process import serving


def test_one_process_serves_an_old_key_and_a_new_one(home: Path, chain: Chain) -> None:
    """Leases name their approver for good, so a key that is replaced is needed until its last lease is over."""
    addresses = {keys.create(name, scrypt_n=2) for name in ("old", "new")}
    for address in addresses:
        rpc(chain, "anvil_setBalance", address, hex(10**18))
    market, port = free_port(), free_port()
    (home / "market.toml").write_text(f'[approver]\nkeys = ["old", "new"]\npoll_seconds = 0.1\nmetrics_port = {port}\n')
    url = f"http://127.0.0.1:{market}"
    command = [sys.executable, "-m", "contracts.cli.main", "approver", "start", "--market", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        waiting = [process.stderr.readline() for _ in addresses]  # of each key one line, and no more
        assert all("approver.waits_for_market" in line and url in line for line in waiting), waiting
        assert rounds_of(port) == set()
        second = subprocess.run(command, capture_output=True, text=True, timeout=300)  # it would draw from other blocks
        assert second.returncode == 1 and "an approver of the key 'old' runs already" in second.stderr
        with serving("--port", str(market)), MarketClient(url) as api:
            deadline = time.monotonic() + 300
            while rounds_of(port) != addresses:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, rounds_of(port)
                time.sleep(0.1)
            assert all(api.encryption_key(address) for address in addresses)
            process.send_signal(signal.SIGTERM)
            output, log = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, log
    assert "waits_for_market" not in log and log.count("approver.goes_on") == len(addresses)
    assert all(address in output for address in addresses)


def rounds_of(port: int) -> set[str]:
    """Approvers that have looked at the market, by their metrics."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=300) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return set()
    name = "gpumarket_approver_last_round_timestamp_seconds{"
    return {line.split('"')[1] for line in lines if line.startswith(name)}
