"""The play: what happens on the stage, from the first block to the last comparison."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rich.live import Live
from rich.table import Table

from contracts.api.bodies import CheckpointOut, JobOut, JobStatus
from contracts.audits.levels import CLOSED
from scripts.lib.demo.lies import Watched
from scripts.lib.demo.parties import ROOT, Failure, Stage
from scripts.lib.demo.scene import ARBITER, AUDITED, Scene, console

HOME = ROOT / ".demo"
CLIENTS = {"alice": "digits", "bob": "chargpt", "carol": "digits"}
RULES = {"digits": "unchecked", "chargpt": "interruptible"}
STEPS = {"digits": 400, "chargpt": 40}  # four checkpoints and two: less than the recipes ship with
PROVIDERS = {  # tokens per hour, rules
    "hydro": ("0.60", "unchecked"),
    "solar": ("0.75", "interruptible"),
    "smog": ("60", AUDITED),
    "tide": ("66", AUDITED),
    "wind": ("0.90", "unchecked"),
}
LIED_TO, LIAR, HONEST = "carol", "smog", "tide"
LIE, HONEST_UNTIL = "lazy-later", 1  # the kind of liar is one of tests/liars
# Of carol's job each checkpoint is replayed, one at a time; a lie convicts, as the recipe is a reviewed one.
VERIFICATION = CLOSED.model_copy(update={"share_ppm": 1_000_000, "approve_every": 1})
# Two checkpoints of a token each, so that a stake of six tells; 60 of them an hour.
SMALL_SPEED = 60 * 18_000
# Work units per hour, said and not measured, which would take ten seconds of a core each.
SPEEDS = dict.fromkeys(PROVIDERS, 100_000_000) | {"smog": SMALL_SPEED, "tide": SMALL_SPEED}
SMALL_JOB = f"""name: small
environment: torch-2.13
recipe: recipe.py:Digits
config: {{width: 32, dropout: 0.1, batch_size: 256, lr: 0.05, held_out: 360, accuracy_every: 25}}
files: [recipe.py, digits.npz]
seed: 1
steps: 40
checkpoint_every: 20
units: 18000
resources: {{memory_mb: 2048}}
max_price: "2"
stake: "6"
rules: {AUDITED}
"""
DEPOSIT, STAKE = 200, "100"  # tokens
VICTIM_JOB = "alice"
KILL_AFTER = 2  # accepted checkpoints; the kill comes in the middle of the next one
PATIENCE = 1200  # seconds for everything after set-up
UNINTERRUPTED = "uninterrupted.json"
ENDED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)


class Demo(Scene):
    """Everything that runs, and what was seen of it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.jobs: dict[str, str] = {}  # client -> job id
        self.killed: str | None = None  # the provider's address
        self.lie = Watched()

    # ------------------------------------------------------------- set the stage

    def start_chain_of(self, silence: int) -> None:
        self.start_chain("--window", "4", "--checkpoint-timeout", str(silence), audited=VERIFICATION)
        self.before[ARBITER] = self.wealth(ARBITER)

    def make_parties(self) -> None:
        """Keys for everyone, play money and gas for all; jobs from the recipes that ship."""
        names = ["operator", "approver", *CLIENTS, *PROVIDERS]
        with ThreadPoolExecutor(2) as pool:
            making = [pool.submit(self._make_job, client, recipe) for client, recipe in CLIENTS.items()]
            self.make_rich(*names)
            for job in making:
                job.result()
        self.say(f"keys and money for {', '.join(names)}")

    def _make_job(self, client: str, recipe: str) -> None:
        party = self.stage.party(client)
        party.run("recipe", "new", recipe, str(party.home / recipe))
        if client == LIED_TO:
            (party.home / recipe / "job.yaml").write_text(SMALL_JOB, encoding="utf-8")
            return
        file = party.home / recipe / "job.yaml"
        lines = [
            f"steps: {STEPS[recipe]}" if one.startswith("steps:") else one for one in file.read_text().splitlines()
        ]
        file.write_text("\n".join([*lines, f"rules: {RULES[recipe]}\n"]), encoding="utf-8")

    def start_services(self) -> None:
        """Market, approver and arbiter; while they start, those who pay put money into the escrow."""
        self.start_market()
        self.start_approver()
        for who in (*CLIENTS, "approver"):
            self.deposit(who, DEPOSIT)
        self.wait_for_market()
        self.start_arbiter()

    def start_provider(self, name: str) -> None:
        party, (price, rules) = self.stage.party(name), PROVIDERS[name]
        party.run(
            "provider", "register", "--key", name, "--price", price, "--stake", STAKE, "--rules", rules,
            "--units-per-hour", str(SPEEDS[name]), "--yes",
        )  # fmt: skip
        party.start("agent", "provider", "start", "--key", name, liar=LIE if name == LIAR else None)
        self.say(f"provider {name} {self.address(name)} asks {price} an hour, rules {rules!r}")

    def submit_job(self, client: str) -> str:
        party, recipe = self.stage.party(client), CLIENTS[client]
        text = party.run("job", "submit", str(party.home / recipe), "--key", client, "--yes", "-o", "json")
        id: str = json.loads(text)["id"]
        self.say(f"{client} hands in {recipe}: job {id[:12]}")
        return id

    @contextmanager
    def open_market(self) -> Iterator[None]:
        """Providers and jobs; one comes while the others train."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.start_provider, (LIAR, HONEST)))
            self.stage.wait_for("the liar's Ask", lambda: any(self.market.asks(provider=self.address(LIAR))))
            lied_to = pool.submit(self.submit_job, LIED_TO)  # it goes to the cheaper one of the two
            first = [pool.submit(self.start_provider, name) for name in ("hydro", "solar")]
            others = [client for client in CLIENTS if client != LIED_TO]
            jobs = dict(zip(others, pool.map(self.submit_job, others), strict=True))
            self.jobs = jobs | {LIED_TO: lied_to.result()}
            for one in first:
                one.result()
            last = pool.submit(self.start_provider, "wind")
            yield
            last.result()

    # ------------------------------------------------------------- the play

    def watch(self) -> dict[str, JobOut]:
        """Show the table until all jobs are over; kill the victim's provider on the way."""
        deadline = time.monotonic() + PATIENCE
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                self.stage.check_alive()
                jobs = {client: self.market.job(job) for client, job in self.jobs.items()}
                live.update(self.table(jobs), refresh=True)
                self.lie.look(self, [jobs[LIED_TO]], self.is_lie)
                if self.killed is None:
                    self._maybe_kill(jobs[VICTIM_JOB])
                if all(job.status in ENDED for job in jobs.values()):
                    return jobs
                if time.monotonic() > deadline:
                    raise Failure(_not_done(jobs))
                time.sleep(1)

    def is_lie(self, one: CheckpointOut) -> bool:
        return one.provider == self.address(LIAR) and one.checkpoint.index > HONEST_UNTIL

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

    def stop_providers(self) -> None:
        alive = [self.stage.party(name) for name in PROVIDERS if self.address(name) != self.killed]
        with ThreadPoolExecutor(len(alive)) as pool:
            list(pool.map(lambda party: party.terminate("agent"), alive))

    def verify_epochs(self, job: JobOut) -> tuple[bool, str]:
        """Have the client check the auctions that placed its job."""
        client, ids = self.stage.party(VICTIM_JOB), {lease.id for lease in job.leases}
        placed = [epoch.number for epoch in self.market.epochs() if ids & {match.lease for match in epoch.matches}]
        with ThreadPoolExecutor(len(placed)) as pool:
            outcomes = list(pool.map(lambda number: client.try_run("epoch", "verify", str(number)), sorted(placed)))
        return all(ok for ok, _ in outcomes), "\n".join(text.rstrip() for _, text in outcomes)

    def train_again(self) -> None:
        """Train the killed job once more, uninterrupted, while the market waits for its silent provider."""
        party = self.stage.party(VICTIM_JOB)
        job, result = party.home / CLIENTS[VICTIM_JOB], party.home / UNINTERRUPTED
        party.start("uninterrupted", "recipe", "run", str(job), "--no-rehearsal", "--json", str(result))
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
