"""A market to attack: a process of its own, on a devnet of its own, behind a gate that can silence its node."""

import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from eth_account.signers.local import LocalAccount
from web3.types import RPCEndpoint

from contracts.api.access import Signer
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.devnet import devnet
from contracts.chain.sending.lane import close_lanes
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.orders import new_account
from contracts.settings import Settings, read_config
from scripts.lib.demo.parties import Stage

MEGABYTE = 1 << 20
QUIET_SECONDS = 1.0  # before an attack, in which its market has nothing to do


class Gate:
    """Passes on what goes to a node, and what comes from it; while `silent`, nothing."""

    def __init__(self, node: str) -> None:
        there = urlsplit(node)
        self.silent = threading.Event()
        gate = self

        class Passage(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((there.hostname or "", there.port or 80)) as node:
                    back = threading.Thread(target=gate._pass_on, args=(node, self.request), daemon=True)
                    back.start()
                    gate._pass_on(self.request, node)
                    back.join()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, request_queue_size = True, 256

        self._server = Server(("127.0.0.1", 0), Passage)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                while self.silent.is_set():
                    time.sleep(0.05)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self.silent.clear()
        self._server.shutdown()
        self._server.server_close()


class Victim:
    """The market, and what its strangers need: its address, the chain, and keys with money."""

    def __init__(self, stage: Stage, url: str, pid: int, chain: Chain, gate: Gate) -> None:
        self.stage, self.url, self.pid, self.chain, self.gate = stage, url, pid, chain, gate
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 80
        self._bank = Sender(chain, devnet.accounts()[-1])

    def rich_key(self, tokens: int) -> LocalAccount:
        """A key with so many tokens free in the escrow."""
        key, amount = new_account(), tokens * 10**6
        bank = devnet.accounts()[-1]
        self._bank.send(self.chain.faucet(bank.address, amount))
        self._bank.send(self.chain.token.functions.approve(self.chain.escrow.address, amount))
        self._bank.send(self.chain.deposit(key.address, amount))
        return key

    def api(self, key: LocalAccount | None = None) -> MarketClient:
        return MarketClient(self.url, timeout=60, signer=Signer(key, self.chain.domain) if key else None)

    def memory_mb(self, peak: bool = False) -> float:
        """That the market's process holds now, or has ever held."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB" if peak else r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) / 1024

    def healthz_under(self, attack: Callable[[], None]) -> float:
        """Longest wait for /healthz while it lasts, in seconds."""
        command = [sys.executable, "-m", "tests.bench._prober", self.url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as prober:
            assert prober.stdout is not None
            prober.stdout.readline()
            try:
                time.sleep(QUIET_SECONDS)
                attack()
            finally:
                longest = prober.communicate()[0]
        return float(longest.split()[-1])


@contextmanager
def victim(settings: str = "") -> Iterator[Victim]:
    """`settings`: lines for its market.toml."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that no process is left behind
    with tempfile.TemporaryDirectory(prefix="gpumarket-bench-") as folder:
        stage = Stage(Path(folder))
        gate: Gate | None = None
        try:
            home = stage.party("devnet")
            home.start("chain", "devnet", "--port", "0", "--window", "4", "--checkpoint-timeout", "7200")
            stage.wait_for("the chain", (home.home / "config.toml").is_file, home)
            settings_of_chain = Settings(**read_config(home.home / "config.toml"))
            gate = Gate(settings_of_chain.rpc_url)
            operator = stage.party("operator")
            text = (home.home / "config.toml").read_text().replace(settings_of_chain.rpc_url, gate.url)
            (operator.home / "config.toml").write_text(text)
            operator.new_key()
            port = stage.free_port()
            lines = f'key = "operator"\nport = {port}\nepoch_seconds = 1\n{settings}'
            (operator.home / "market.toml").write_text(lines)
            os.environ["GPUMARKET_HOME"] = str(stage.party("strangers").home)
            chain = connect(settings_of_chain)
            chain.w3.provider.make_request(RPCEndpoint("anvil_setBalance"), [operator.address(), hex(10**20)])
            operator.start("market", "market", "serve")
            url = f"http://127.0.0.1:{port}"
            api = MarketClient(url, attempts=1)
            stage.wait_for("the market", lambda: _answers(api), operator)
            yield Victim(stage, url, operator.processes["market"].pid, chain, gate)
        finally:
            close_lanes()
            if gate is not None:
                gate.close()
            stage.stop_all()


def _answers(api: MarketClient) -> bool:
    try:
        return bool(api.info())
    except UserError:
        return False
