"""The play: what happens on the stage, from the first block to the last comparison."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from web3.types import RPCEndpoint

from contracts.amounts import format_amount, parse_amount
from contracts.api.bodies import JobOut, JobStatus
from contracts.api.client import MarketClient
from contracts.chain.client import Chain, connect
from contracts.chain.devnet import devnet
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from scripts.lib.demo.parties import Failure, Stage

ROOT = Path(__file__).resolve().parents[3]
HOME = ROOT / ".demo"
CLIENTS = {"alice": "digits", "bob": "chargpt"}
RULES = {"digits": "unchecked", "chargpt": "interruptible"}
PROVIDERS = {  # tokens per hour, rules
    "hydro": ("0.60", "unchecked"),
    "solar": ("0.75", "interruptible"),
    "wind": ("0.90", "unchecked"),
}
PLAY_MONEY, DEPOSIT, STAKE = "500", "200", "100"  # tokens
VICTIM_JOB = "alice"
KILL_AFTER = 2  # accepted checkpoints; the kill comes in the middle of the next one
PATIENCE = 600  # seconds for everything after set-up
UNINTERRUPTED = "uninterrupted.json"
ENDED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)

console = Console(highlight=False)


class Demo:
    """Everything that runs, and what was seen of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.chain: Chain
        self.market: MarketClient
        self.jobs: dict[str, str] = {}  # client -> job id
        self.killed: str | None = None  # the provider's address
        self.events: list[str] = []
        self.before: dict[str, int] = {}

    def say(self, text: str) -> None:
        self.events.append(f"{time.monotonic() - self.stage.started:5.1f} s  {text}")
        console.print(self.events[-1], soft_wrap=True)

    # ------------------------------------------------------------- set the stage

    def start_chain(self, timeout: int) -> None:
        party = self.stage.party("devnet")
        party.start(
            "chain", "devnet", "--port", "0", "--block-time", "1", "--window", "4", "--checkpoint-timeout", str(timeout)
        )
        config = party.home / "config.toml"
        self.stage.wait_for("the chain", config.is_file, party)
        self.stage.config = config
        self.chain = connect(self.stage.settings())
        self.say(f"chain {self.chain.settings.rpc_url}, escrow {self.chain.domain.verifying_contract}")

    def make_parties(self) -> None:
        """Keys for everyone, play money and gas for all; jobs from the recipes that ship."""
        names = ["operator", "approver", *CLIENTS, *PROVIDERS]
        with ThreadPoolExecutor(2) as pool:
            making = [pool.submit(self._make_job, client, recipe) for client, recipe in CLIENTS.items()]
            for name in names:
                self._make_rich(self.stage.party(name).new_key())
            for job in making:
                job.result()
        self.before = {name: self.wealth(name) for name in names}
        self.say(f"keys and money for {', '.join(names)}")

    def _make_rich(self, address: str) -> None:
        """What `gpumarket wallet faucet` does."""
        purse = Sender(self.chain, devnet.accounts()[-1])
        purse.send(self.chain.faucet(address, parse_amount(PLAY_MONEY, self.chain.decimals)))
        self.chain.w3.provider.make_request(RPCEndpoint("anvil_setBalance"), [address, hex(10**19)])

    def _make_job(self, client: str, recipe: str) -> None:
        party = self.stage.party(client)
        party.run("recipe", "new", recipe, str(party.home / recipe))
        with open(party.home / recipe / "job.yaml", "a", encoding="utf-8") as job:
            job.write(f"rules: {RULES[recipe]}\n")

    def _deposit(self, client: str) -> None:
        self.stage.party(client).run("wallet", "deposit", DEPOSIT, "--key", client)

    def start_services(self) -> None:
        """Market and approver; while they start, the clients put money into the escrow."""
        operator, approver = self.stage.party("operator"), self.stage.party("approver")
        port = self.stage.free_port()
        self.stage.market_url = f"http://127.0.0.1:{port}"
        approver_address = self.address("approver")
        settings = {"key": "operator", "port": port, "fee": 1000, "epoch_seconds": 1, "poll_seconds": 0.5}
        settings["recommended_approver"] = approver_address
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        (operator.home / "market.toml").write_text("".join(lines))
        operator.start("market", "market", "serve")
        approver.start("approver", "approver", "start", "--key", "approver", "--poll", "0.5")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._deposit, CLIENTS))
        self.market = MarketClient(self.stage.market_url, attempts=1)
        self.stage.wait_for("the market", self._market_answers, operator)
        self.say(f"market {self.stage.market_url}, approver {approver_address}")

    def _market_answers(self) -> bool:
        try:
            self.market.info()
        except UserError:  # not listening yet, or still reading the chain
            return False
        return True

    def start_provider(self, name: str) -> None:
        party, (price, rules) = self.stage.party(name), PROVIDERS[name]
        party.run(
            "provider", "register", "--key", name, "--price", price, "--stake", STAKE, "--rules", rules,
            "--measure-seconds", "1", "--yes",
        )  # fmt: skip
        party.start("agent", "provider", "start", "--key", name)
        self.say(f"provider {name} {self.address(name)} asks {price} an hour, rules {rules!r}")

    def submit_job(self, client: str) -> str:
        party, recipe = self.stage.party(client), CLIENTS[client]
        text = party.run("job", "submit", str(party.home / recipe), "--key", client, "--yes", "-o", "json")
        id: str = json.loads(text)["id"]
        self.say(f"{client} hands in {recipe}: job {id[:12]}")
        return id

    @contextmanager
    def open_market(self) -> Iterator[None]:
        """Two providers, two jobs; one more provider comes while the others train."""
        with ThreadPoolExecutor(4) as pool:
            *first, late = PROVIDERS
            starting = pool.map(self.start_provider, first)
            self.jobs = dict(zip(CLIENTS, pool.map(self.submit_job, CLIENTS), strict=True))
            list(starting)
            comes = pool.submit(self.start_provider, late)
            yield
            comes.result()

    # ------------------------------------------------------------- the play

    def watch(self) -> dict[str, JobOut]:
        """Show the table until both jobs are over; kill the victim's provider on the way."""
        deadline = time.monotonic() + PATIENCE
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                self.stage.check_alive()
                jobs = {client: self.market.job(job) for client, job in self.jobs.items()}
                live.update(self.table(jobs), refresh=True)
                if self.killed is None:
                    self._maybe_kill(jobs[VICTIM_JOB])
                if all(job.status in ENDED for job in jobs.values()):
                    return jobs
                if time.monotonic() > deadline:
                    raise Failure(_not_done(jobs))
                time.sleep(0.5)

    def _maybe_kill(self, job: JobOut) -> None:
        """SIGKILL the agent that trains the job, in the middle of a checkpoint after the one just approved."""
        approved = [one for one in self.market.checkpoints(job.id) if one.status == "approved"]
        if len(approved) < KILL_AFTER or not job.leases:
            return
        time.sleep(0.4 * approved[-1].checkpoint.seconds)
        provider = job.leases[-1].provider
        name = next(name for name in PROVIDERS if self.address(name) == provider)
        self.stage.party(name).kill("agent")
        self.killed = provider
        self.train_again()
        self.say(f"[red]kill -9[/] of provider {name}, in the middle of checkpoint {len(approved) + 1} of {job.name}")

    def table(self, jobs: dict[str, JobOut]) -> Table:
        table = Table("job", "provider", "checkpoints", "state", "accepted", "paid", "loss", box=None, pad_edge=False)
        names = {self.address(name): name for name in PROVIDERS}
        for client, job in jobs.items():
            loss = job.metrics.get("loss")
            first = f"{client}: {job.name} {job.status}"
            if not job.leases:
                table.add_row(first, "", "", job.reason)
            for number, lease in enumerate(job.leases):
                table.add_row(
                    first if number == 0 else "",
                    names[lease.provider] + (" [red](killed)[/]" if lease.provider == self.killed else ""),
                    f"{lease.start + 1}-{lease.end}",
                    lease.finished or lease.state.phase,
                    str(lease.state.accepted),
                    self.tokens(lease.paid),
                    f"{loss:.3f}" if loss is not None and number == len(job.leases) - 1 else "",
                )
        return table

    # ------------------------------------------------------------- the books

    def address(self, name: str) -> str:
        return self.stage.party(name).address()

    def wealth(self, name: str) -> int:
        """All tokens of a party that are not locked in a lease: in its wallet, and free in the escrow."""
        address = self.address(name)
        return self.chain.token_balance(address) + self.chain.account(address).free

    def tokens(self, amount: int) -> str:
        return format_amount(amount, self.chain.decimals)

    def leases_are_over(self) -> bool:
        return not any(True for _ in self.market.leases(live=True))

    def stop_providers(self) -> None:
        alive = [self.stage.party(name) for name in PROVIDERS if self.address(name) != self.killed]
        with ThreadPoolExecutor(len(alive)) as pool:
            list(pool.map(lambda party: party.terminate("agent"), alive))

    def reconcile(self) -> bool:
        operator = self.stage.party("operator")
        ok, text = operator.try_run("reconcile")
        console.print(text.rstrip(), markup=False)
        return ok

    def verify_epochs(self, job: JobOut) -> bool:
        """Have the client check the auctions that placed its job."""
        client, ids = self.stage.party(VICTIM_JOB), {lease.id for lease in job.leases}
        placed = [epoch.number for epoch in self.market.epochs() if ids & {match.lease for match in epoch.matches}]
        with ThreadPoolExecutor(len(placed)) as pool:
            outcomes = list(pool.map(lambda number: client.try_run("epoch", "verify", str(number)), sorted(placed)))
        console.print("\n".join(text.rstrip() for _, text in outcomes), markup=False)
        return all(ok for ok, _ in outcomes)

    def train_again(self) -> None:
        """Train the killed job once more, uninterrupted, while the market waits for its silent provider."""
        party = self.stage.party(VICTIM_JOB)
        job, result = party.home / CLIENTS[VICTIM_JOB], party.home / UNINTERRUPTED
        party.start("uninterrupted", "recipe", "run", str(job), "--json", str(result))
        party.gone.add("uninterrupted")  # it ends by itself

    def bit_identical(self, job: JobOut) -> bool:
        """Whether the uninterrupted run gave the same bits: every checkpoint's losses, state and trace roots."""
        party = self.stage.party(VICTIM_JOB)
        result = party.home / UNINTERRUPTED
        if party.processes["uninterrupted"].wait(300) != 0:
            raise Failure(f"training without interruption failed:\n{party.tail('uninterrupted')}")
        record_of_run = json.loads(result.read_text())
        again = {one["index"]: one for one in record_of_run["checkpoints"]}
        # A checkpoint that the killed provider had made but not handed in was made again: take what was accepted.
        made = {one.checkpoint.index: one.checkpoint for one in self.market.checkpoints(job.id)
                if one.status == "approved"}  # fmt: skip
        table = Table("checkpoint", "trained in the market", "trained again, uninterrupted", "same bits", box=None)
        same = len(made) == len(again) == job.bid.checkpoints
        for index, record in sorted(made.items()):
            other = again[index] | {"metrics": record_of_run["metrics"][str(record.step)]}
            equal = (record.metrics, record.state_root, record.trace_root, record.tip) == (
                other["metrics"], other["state_root"], other["trace_root"], other["tip"],
            )  # fmt: skip
            same = same and equal
            shown = [f"loss {metrics['loss']!r}" for metrics in (record.metrics, other["metrics"])]
            table.add_row(str(index), *shown, "yes" if equal else "[red]NO[/]")
        console.print(table)
        return same


def _not_done(jobs: dict[str, JobOut]) -> str:
    states = "; ".join(f"{job.name} is {job.status}, {job.reason or 'no reason told'}" for job in jobs.values())
    return (
        f"the jobs were not done after {PATIENCE} s: {states}. On a busy machine providers need more time between "
        f"two checkpoints: ./scripts/demo --timeout 60. What each of them did is in {HOME}/*/*.log"
    )
