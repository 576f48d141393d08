"""A market of separate processes for benchmarks: chain, market, one provider's agent, one client."""

import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from web3.types import RPCEndpoint

from contracts.api.bodies import JobStatus
from contracts.api.client import MarketClient
from contracts.chain.client import connect
from contracts.chain.devnet import devnet
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from scripts.lib.demo.parties import Stage

TOKENS = 1_000 * 10**6
RULES = "unchecked"
PATIENCE = 600.0  # seconds, for anything


class Market:
    """Commands are the ones that people run. Nobody approves, but for `finish`: approvers work elsewhere."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.client, self.provider = stage.party("client"), stage.party("provider")
        self._operator, self._approver = stage.party("operator"), stage.party("approver")

    def open(self) -> None:
        """Starts chain and market; gives everybody money; registers the provider."""
        home = self.stage.party("devnet")
        home.start("chain", "devnet", "--port", "0", "--window", "4", "--checkpoint-timeout", "7200")
        self.stage.wait_for("the chain", (home.home / "config.toml").is_file, home)
        self.stage.config = home.home / "config.toml"
        chain = connect(self.stage.settings())
        for party in (self.client, self.provider, self._operator, self._approver):
            address = party.new_key()
            Sender(chain, devnet.accounts()[-1]).send(chain.faucet(address, TOKENS))
            chain.w3.provider.make_request(RPCEndpoint("anvil_setBalance"), [address, hex(10**20)])
        port = self.stage.free_port()
        self.stage.market_url = f"http://127.0.0.1:{port}"
        (self._operator.home / "market.toml").write_text(f'key = "operator"\nport = {port}\nepoch_seconds = 1\n')
        self._operator.start("market", "market", "serve")
        self.api = MarketClient(self.stage.market_url, attempts=1)
        self.stage.wait_for("the market", self._answers, self._operator)
        self.client.run("wallet", "deposit", "500", "--key", "client")
        self.provider.run(
            "provider", "register", "--key", "provider", "--price", "1", "--stake", "100", "--rules", RULES,
            "--measure-seconds", "1", "--yes",
        )  # fmt: skip

    def _answers(self) -> bool:
        try:
            return bool(self.api.info())
        except UserError:
            return False

    def submit(self, job: Path) -> str:
        """Hands a job in; its id."""
        options = ("--key", "client", "--approver", self._approver.address(), "--yes", "-o", "json")
        made: str = json.loads(self.client.run("job", "submit", str(job), *options))["id"]
        return made

    def start_agent(self) -> int:
        """The process id. Its log begins anew."""
        (self.provider.home / "agent.log").unlink(missing_ok=True)
        self.provider.start("agent", "provider", "start", "--key", "provider", "--json-logs")
        return self.provider.processes["agent"].pid

    def agent_log(self, event: str, job: str, **fields: Any) -> list[dict[str, Any]]:
        """What the agent logged of a job, with `at` in UTC seconds."""
        lines = (self.provider.home / "agent.log").read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        wanted = fields | {"event": event, "job": job}
        found = [entry for entry in entries if wanted.items() <= entry.items()]
        return [entry | {"at": datetime.fromisoformat(entry["timestamp"]).timestamp()} for entry in found]

    def wait_for_log(self, event: str, job: str, **fields: Any) -> dict[str, Any]:
        def logged() -> bool:
            return bool(self.agent_log(event, job, **fields))

        self.stage.wait_for(f"{event} {fields or ''}", logged, self.provider, PATIENCE)
        return self.agent_log(event, job, **fields)[0]

    def stop_agent(self, job: str) -> None:
        self.finish(job)
        self.provider.terminate("agent", patience=90)

    def finish(self, job: str) -> None:
        """Has all checkpoints approved and paid, so that agent and machine are free for the next job."""
        self._approver.start("approver", "approver", "start", "--key", "approver", "--poll", "0.5")
        done = lambda: self.api.job(job).status is JobStatus.DONE  # noqa: E731
        self.stage.wait_for("the job's end", done, self.provider, PATIENCE)
        self._approver.terminate("approver")


@contextmanager
def market() -> Iterator[Market]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that no process is left behind
    with tempfile.TemporaryDirectory(prefix="gpumarket-bench-") as home:
        stage = Stage(Path(home))
        try:
            opened = Market(stage)
            opened.open()
            yield opened
        finally:
            stage.stop_all()


def make_job(
    opened: Market, folder: Path, *, config: dict[str, Any], checkpoint_every: int, checkpoints: int, **fields: Any
) -> None:
    """chargpt with this config, its work counted."""
    if not folder.exists():
        opened.client.run("recipe", "new", "chargpt", str(folder))
    job = yaml.safe_load((folder / "job.yaml").read_text())
    job["config"] |= config
    job |= {"steps": checkpoint_every * checkpoints, "checkpoint_every": checkpoint_every}
    job |= {"max_price": "50", "rules": RULES} | fields
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    opened.client.run("recipe", "measure", str(folder))
