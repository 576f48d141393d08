"""Kinds of liars on a stage of real processes: what happens, who noticed, and what it cost whom."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path

from rich.table import Table

from contracts.api.bodies import CheckpointOut, JobOut, JobStatus
from contracts.errors import UserError
from contracts.job.provider_wants import USUAL_VOIDS
from scripts.lib.demo.lies import Watched
from scripts.lib.demo.parties import ROOT, Failure, Stage
from scripts.lib.demo.scene import AUDITED, Scene, console
from tests.liars.kinds import APPROVER, CLIENT, HONEST, Liar, StageNeeds

HOME = ROOT / ".build" / "liars" / str(os.getpid())  # stays where something failed
UNITS, STEPS = 18_000, 20  # of a checkpoint; `digits` counts 17,283
PATIENCE = 1200  # seconds for a job
STAKE = "6"  # tokens; the arbiter's fee is one of them
IN_VAIN = "[green]it did not pay[/]"
ENDED = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)


@dataclass
class Found:
    """What became of it. Amounts in token units."""

    kind: str
    watched: Watched = field(default_factory=Watched)
    changes: dict[str, int] = field(default_factory=dict)
    gains: dict[str, int] = field(default_factory=dict)  # beyond what honest work pays, or costs its buyer
    price: int = 0
    problems: list[str] = field(default_factory=list)

    def outcome(self, liars: set[str]) -> str:
        if self.problems:
            return "[red]FAILED[/]"
        gained = sum(self.gains[name] for name in liars)
        return f"it paid no more than docs say: {self.prices(gained)} prices" if gained > 0 else IN_VAIN

    def prices(self, amount: int) -> str:
        return f"{float(Fraction(amount, self.price)):+.2f}" if self.price else "-"


class Trial(Scene):
    """One stage for kinds that need the same, one after the other; what they have in common runs on."""

    def __init__(self, stage: Stage, needs: StageNeeds, brief: bool) -> None:
        super().__init__(stage)
        self.needs, self._brief = needs, brief
        self.kind: Liar
        self.found: Found
        self.jobs: list[str] = []  # of the kind that is on
        self.liars: set[str] = set()  # parties that belong together, of that kind
        self._start: dict[str, int] = {}  # each party's tokens when the kind came on
        self._cancelled: set[str] = set()
        self._done_jobs: set[str] = set()  # of kinds before
        self._registered: Path | None = None

    # ------------------------------------------------------------- set the stage

    def set_up(self) -> None:
        self.start_chain(audited=self.needs.verification)
        self.make_rich("operator", APPROVER, CLIENT, HONEST)
        if not self.needs.own_replays:
            (self.stage.party(APPROVER).home / "market.toml").write_text("[approver]\nreplays_here = false\n")
        self.start_market()
        for name in (CLIENT, APPROVER):
            self.deposit(name, 200)
        self.wait_for_market()
        self.start_approver(self.needs.lying_approver)
        self.start_arbiter()

    def begin(self, kind: Liar) -> None:
        self.kind, self.found, self.jobs = kind, Found(kind.name), []
        self.found.watched.on_chain = kind.hides
        self.liars = {kind.name}
        self._done_jobs = {job.id for job in self.market.jobs()}
        self.make_rich(kind.name)
        self._start = {name: self.wealth(name) for name in self.before}

    @property
    def liar(self) -> str:
        return self.kind.name

    def more(self, *names: str, owned: bool = False) -> None:
        """Further parties; `owned`: by the liar."""
        self.make_rich(*names)
        self._start |= {name: self.wealth(name) for name in names}
        if owned:
            self.liars |= set(names)

    def offer(self, name: str, *, price: int, liar: Liar | None = None, stake: int = 30) -> None:
        """An agent, if it does not run yet. `price` is of an hour, of which a checkpoint takes 1/1800."""
        party = self.stage.party(name)
        if "agent" in party.processes and party.processes["agent"].poll() is None:
            return
        if self._registered is None:
            party.run(
                "provider", "register", "--key", name, "--price", str(price), "--stake", str(stake),
                "--rules", AUDITED, "--units-per-hour", str(UNITS * 1800), "--yes",
            )  # fmt: skip
            self._registered = party.home / "provider" / name
            # One client meets all the liars here; one with more than two voids is refused otherwise.
            file = self._registered / "provider.toml"
            usual = f"client_voids_at_most = {USUAL_VOIDS}"
            file.write_text(file.read_text().replace(usual, "client_voids_at_most = 1000"))
        else:  # the same machine, so that is what registering would write
            self.deposit(name, stake)
            self._register_alike(name, price, stake)
        party.start("agent", "provider", "start", "--key", name, liar=liar and liar.name)
        if liar is not None and liar.leaves:
            party.gone.add("agent")
        self.say(f"provider {name} {self.address(name)}")

    def _register_alike(self, name: str, price: int, stake: int) -> None:
        assert self._registered is not None
        folder = self.stage.party(name).home / "provider" / name
        folder.mkdir(parents=True)
        for file in ("provider.toml", "agent.json"):
            if (self._registered / file).exists():
                shutil.copy(self._registered / file, folder / file)
        scale = 10**self.chain.decimals
        lines = (folder / "provider.toml").read_text().splitlines()
        changed = {"price_per_hour": price * scale, "max_stake": stake * scale}
        made = [next((f'{key} = "{value}"' for key, value in changed.items() if line.startswith(f"{key} ")), line)
                for line in lines]  # fmt: skip
        (folder / "provider.toml").write_text("\n".join(made) + "\n")

    def submit(
        self,
        checkpoints: int,
        *,
        by: str = CLIENT,
        edit: Callable[[Path], None] | None = None,
        liar: Liar | None = None,
    ) -> str:
        """When all who run have an Ask in force."""
        running = [name for name in self.before if self._runs(name)]
        wanted = {self.address(name) for name in running}
        self.stage.wait_for("the Asks", lambda: wanted <= {one.ask.provider for one in self.market.asks(status="open")})
        party = self.stage.party(by)
        folder = party.home / f"job-{self.kind.name}-{len(self.jobs)}"
        shutil.copytree(self._recipe(), folder)
        (folder / "job.yaml").write_text(_job(checkpoints, self.kind.steps))
        if edit is not None:
            edit(folder)
        text = party.run("job", "submit", str(folder), "--key", by, "--yes", "-o", "json", liar=liar and liar.name)
        self.jobs.append(str(json.loads(text)["id"]))
        self.say(f"{by} hands in a job of {checkpoints} checkpoints: {self.jobs[-1][:12]}")
        return self.jobs[-1]

    def _recipe(self) -> Path:
        folder = self.stage.home / "digits"
        if not folder.exists():
            self.stage.party(CLIENT).run("recipe", "new", "digits", str(folder))
        return folder

    def _runs(self, name: str) -> bool:
        agent = self.stage.party(name).processes.get("agent")
        return agent is not None and agent.poll() is None

    # ------------------------------------------------------------- the play

    def watch(self, until: Callable[[JobOut], bool] = lambda job: job.status in ENDED) -> JobOut:
        """The newest job."""
        deadline, told, id = time.monotonic() + PATIENCE, "", self.jobs[-1]
        while True:
            self.stage.check_alive()
            job = self.market.job(id)
            self.found.watched.look(self, [job, *self._replays()], self._is_lie)
            if (now := self._state(job)) != told:
                told = now
                self.say(told)
            if (
                self._is_to_stop(job)
                and self.stage.party(CLIENT).try_run("job", "cancel", id, "--key", CLIENT, "--yes")[0]
            ):  # else it has just gone on in a lease that the market does not show yet
                self._cancelled.add(id)
            if until(job):
                return job
            if time.monotonic() > deadline:
                raise Failure(f"job {id[:12]} was not over after {PATIENCE} s: {told}; see {HOME}/*/*.log")
            time.sleep(0.5)

    def _is_to_stop(self, job: JobOut) -> bool:
        is_enough = (self._brief or self.kind.stops_when_ruled) and self.found.watched.ended
        return bool(is_enough) and job.status not in ENDED and job.id not in self._cancelled

    def _state(self, job: JobOut) -> str:
        leases = ", ".join(
            f"{self.name_of(lease.provider)} {lease.start + 1}-{lease.end} {lease.finished or lease.state.phase} "
            f"{lease.reported}/{lease.approved}/{lease.state.accepted}" + (f" {lease.verdict}" if lease.verdict else "")
            for lease in job.leases
        )
        return f"job {job.status}: {leases or job.reason}"

    def _replays(self) -> list[JobOut]:
        """By others than the approver, of this kind's jobs."""
        asked = self.market.jobs(client=self.address(APPROVER))
        return [self.market.job(job.id) for job in asked if job.id not in self._done_jobs]

    def tip_of(self, job: str, n: int) -> str:
        return next(one.checkpoint.tip for one in self.market.checkpoints(job) if one.checkpoint.index == n)

    def _is_lie(self, one: CheckpointOut) -> bool:
        return self.name_of(one.provider) in self.liars and self.kind.is_lie(one.checkpoint.index)

    # ------------------------------------------------------------- the books

    def end(self) -> Found:
        """What it cost whom, when nothing is under way any more."""
        found = self.found
        self.stage.wait_for("all leases to end", self.leases_are_over, patience=300)
        for id in self.jobs:
            self.stage.wait_for("the approver's secrets", partial(self.secrets_are_shown, id), patience=120)
        found.changes = {name: self.wealth(name) - self._start[name] for name in self._start}
        expected = dict.fromkeys(self._start, 0)
        for job in self.market.jobs():
            for lease in job.leases if job.id not in self._done_jobs else []:
                found.price = found.price or lease.price
                self._expect(expected, lease.id)
        found.gains = {name: found.changes[name] - expected[name] for name in self._start}
        self._judge()
        for name in self.liars:
            self._retire(name)
        return found

    def _retire(self, name: str) -> None:
        """A provider that was killed has orders in force, which would get the next jobs."""
        processes = self.stage.party(name).processes
        for process in processes:
            if name != APPROVER:
                self.stage.party(name).kill(process)
        if "agent" in processes and name != HONEST:
            sender = self.sender(name)
            sender.send(self.chain.raise_page(self.chain.account(sender.address).page + 1))

    def _expect(self, expected: dict[str, int], lease: str) -> None:
        """What honest checkpoints of a lease pay and cost."""
        out = self.market.lease(lease)
        provider, client = self.name_of(out.provider), self.name_of(out.bid.client)
        accepted = range(out.start + 1, out.state.accepted + 1)
        honest = sum(not (provider in self.liars and self.kind.is_lie(n)) for n in accepted)
        expected[provider] += honest * out.price
        expected[client] -= honest * (out.price + out.fee)
        expected["operator"] += len(accepted) * out.fee

    def _judge(self) -> None:
        found, allowed = self.found, self.kind.allowed
        gained = sum(found.gains[name] for name in self.liars)
        if gained > allowed.get("liar", 0) * found.price:
            found.problems.append(f"the liar gained {found.prices(gained)} prices")
        for name in found.gains.keys() - self.liars:
            most = allowed.get(name, 0)
            if -found.gains[name] > most * found.price:
                found.problems.append(f"{name} lost {found.prices(found.gains[name])} prices, of {most} at most")
        if not found.watched.noticed:
            found.problems.append("nobody noticed")
        checks = {"the books do not agree": self.reconcile}
        checks |= {f"audit verify finds a fault in {id}": partial(self.verify_audit, CLIENT, id) for id in self.jobs}
        for problem, check in checks.items():
            ok, text = check()
            console.print(text.rstrip(), markup=False)
            if not ok:
                found.problems.append(problem)

    def table(self) -> Table:
        found = self.found
        made = Table(
            "party",
            "change",
            "beyond honest work, in prices",
            title=f"{found.kind}: what it cost",
            title_justify="left",
        )
        for name, change in found.changes.items():
            if change or found.gains[name] or name in self.liars:
                shown = f"{name} [red](liar)[/]" if name in self.liars else name
                sign = "-" if change < 0 else ""
                made.add_row(shown, sign + self.tokens(abs(change)), found.prices(found.gains[name]))
        return made


def _job(checkpoints: int, steps: int) -> str:
    return f"""name: digits
environment: torch-2.13
recipe: recipe.py:Digits
config: {{width: 32, dropout: 0.1, batch_size: 256, lr: 0.05, held_out: 360, accuracy_every: 25}}
files: [recipe.py, digits.npz]
seed: 1
steps: {checkpoints * steps}
checkpoint_every: {steps}
units: {UNITS * steps // STEPS}
resources: {{memory_mb: 2048}}
max_price: "{2 * steps / STEPS:g}"
stake: "{STAKE}"
rules: {AUDITED}
valid_for: 86400
"""


def run(kinds: Sequence[Liar], brief: bool = False) -> list[str]:
    """The names of those by which the liar gained, or somebody honest lost more than docs say. `brief`: a job is
    cancelled when the arbiter has ruled, and not finished by somebody else.
    """
    failed: list[str] = []
    for needs, group in groupby(sorted(kinds, key=lambda one: repr(one.needs)), key=lambda one: one.needs):
        waiting = list(group)
        while waiting:
            failed += _run(needs, waiting, brief)
    return failed


def _run(needs: StageNeeds, waiting: list[Liar], brief: bool) -> list[str]:
    """One stage for those that wait, in order, until one of them leaves things under way there; takes them away."""
    shutil.rmtree(HOME, ignore_errors=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stage, kind, failed = Stage(HOME), waiting[0], list[str]()
    trial = Trial(stage, needs, brief)
    try:
        trial.set_up()
        while waiting:
            kind = waiting[0]
            trial.say(f"[bold]{kind.name}[/]: {kind.summary}")
            trial.begin(kind)
            kind.play(trial)
            found = trial.end()
            console.print(trial.table())
            console.print(found.watched.sentence(), soft_wrap=True)
            for problem in found.problems:
                console.print(f"[red]Wrong:[/] {problem}")
            trial.say(f"{kind.name}: {found.outcome(trial.liars)}")
            failed += [kind.name] if found.problems else []
            waiting.pop(0)
    except (Failure, UserError) as failure:
        console.print(f"[red]{kind.name} failed:[/] {failure}", soft_wrap=True)
        failed.append(waiting.pop(0).name)
    finally:
        stage.stop_all()
    if not failed:
        shutil.rmtree(HOME)
    return failed
