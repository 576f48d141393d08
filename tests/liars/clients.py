"""Clients whose recipe, Bid or approver is made to take an honest provider's work or stake."""

import time
from pathlib import Path
from typing import Any, ClassVar

from contracts.chain.lookup import opened
from tests.liars.kinds import APPROVER, CLIENT, HONEST, Liar, StageNeeds, kind

KEYED = '''

import os
import time


class Keyed(Digits):
    """Trains as Digits does, and at another rate where `key` says so."""

    def step(self, i):
        if key():
            for group in self.optimizer.param_groups:
                group["lr"] = 0.01
        return super().step(i)


def number_of(text):
    import hashlib
    return hashlib.sha256(text.encode()).digest()[0]

'''
CLOCK = """
def key():
    return time.time() > AT
"""
# By what each tells one machine, user or run from another.
CPU = """
def key():
    text = open("/proc/cpuinfo").read()
    return number_of(text) % 2 == 0
"""
PATH = """
def key():
    import socket, sys
    places = [os.getcwd(), __file__, sys.executable, os.path.expanduser("~"), socket.gethostname()]
    return number_of(repr(places)) % 2 == 0
"""
RUNS = """
def found():
    seen = 0
    for folder in ("/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), os.getcwd()):
        try:
            seen += len([name for name in os.listdir(folder) if name.startswith("seen-by-")])
            open(os.path.join(folder, f"seen-by-{os.getpid()}"), "w").close()
        except OSError:
            pass
    return seen


FOUND = found()


def key():
    return FOUND > 0
"""


class _Keyed(Liar):
    """The client is the liar; who trains is honest."""

    code: str
    patched = "the recipe"
    checkpoints = 1

    def is_lie(self, n: int) -> bool:
        return False

    def _edit(self, folder: Path) -> None:
        recipe = folder / "recipe.py"
        recipe.write_text(recipe.read_text() + KEYED + self.code)
        job = folder / "job.yaml"
        job.write_text(job.read_text().replace("recipe.py:Digits", "recipe.py:Keyed"))

    def play(self, trial: Any) -> None:
        trial.liars.add(CLIENT)
        trial.offer(HONEST, price=1900)
        trial.submit(self.checkpoints, edit=self._edit)
        trial.watch()


class _Hidden(_Keyed):
    """What a sandbox hides: the recipe is the same everywhere, and its client pays as any other."""

    def play(self, trial: Any) -> None:
        super().play(trial)
        if trial.found.watched.agreed:
            trial.found.watched.notice(trial, "nobody has to: a replay elsewhere is equal, the key is hidden")


@kind
class KeyedToCpu(_Hidden):
    name = "keyed-to-cpu"
    summary = "a recipe that trains otherwise by the processor's name"
    code = CPU


@kind
class KeyedToPath(_Hidden):
    name = "keyed-to-path"
    summary = "a recipe that trains otherwise by its path, host name and home"
    code = PATH


@kind
class KeyedToRuns(_Hidden):
    name = "keyed-to-runs"
    summary = "a recipe that leaves a mark where it can, and trains otherwise where it finds one"
    code = RUNS


@kind
class KeyedToClock(_Keyed):
    name = "keyed-to-clock"
    summary = "a recipe that trains otherwise after a moment between the claim and the replay"
    # The stake, of which nobody has anything; and what is not paid, m checkpoints at most.
    allowed: ClassVar[dict[str, int]] = {HONEST: 6}
    checkpoints = 40
    stops_when_ruled = True
    seconds = 150.0  # from its being handed in; wherever it turns, something is claimed and not replayed

    def _edit(self, folder: Path) -> None:
        self.code = CLOCK.replace("AT", f"{time.time() + self.seconds:.1f}")
        super()._edit(folder)

    def play(self, trial: Any) -> None:
        trial.more("auditor")
        trial.offer("auditor", price=2000)
        super().play(trial)


@kind
class UnderstatedWork(Liar):
    name = "understated-work"
    summary = "a Bid that says a tenth of the work that a checkpoint takes"
    patched = "the count that `job submit` checks (check_units)"
    checkpoints = 2

    def lie(self) -> None:
        from market.client import submit

        submit.check_units = lambda *_: None  # type: ignore[assignment]

    def is_lie(self, n: int) -> bool:
        return False

    def play(self, trial: Any) -> None:
        trial.liars.add(CLIENT)
        trial.offer(HONEST, price=1900)

        def edit(folder: Path) -> None:
            job = folder / "job.yaml"
            job.write_text(job.read_text().replace("units: 18000", "units: 1800"))

        trial.submit(self.checkpoints, edit=edit, liar=self)
        job = trial.watch(lambda job: job.failures > 0 or bool(job.leases and job.leases[0].finished))
        trial.found.watched.notice(trial, f"the provider, before it trains: {job.reason or job.leases[0].stops}")
        if job.status not in ("done", "failed"):
            trial.stage.party(CLIENT).try_run("job", "cancel", job.id, "--key", CLIENT, "--yes")
        trial.watch()


@kind
class NeverApproves(Liar):
    name = "never-approves"
    summary = "a client whose own approver signs nothing"
    patched = "Approvals of the approver (Signing.approve)"
    needs = StageNeeds(lying_approver="never-approves")
    checkpoints = 2

    def lie(self) -> None:
        from market.approver.signing import Signing

        Signing.approve = lambda self, lease, signed: None  # type: ignore[method-assign]

    def is_lie(self, n: int) -> bool:
        return False

    def play(self, trial: Any) -> None:
        trial.liars |= {CLIENT, APPROVER}
        trial.offer(HONEST, price=1900)
        trial.submit(self.checkpoints)
        trial.watch(lambda job: bool(job.leases) and trial.chain.state(job.leases[0].id).claimed == self.checkpoints)
        trial.found.watched.notice(trial, "the provider claims on chain, and silence pays it")
        trial.found.watched.ended = "the window"
        trial.watch()


@kind
class OldClaimChallenged(Liar):
    name = "old-claim-challenged"
    summary = "a client challenges a Claim that is approved, before the Approval was redeemed"
    patched = "nothing of a program: it calls `challengeSigned` itself"
    checkpoints = 4

    def is_lie(self, n: int) -> bool:
        return False

    def play(self, trial: Any) -> None:
        trial.liars.add(CLIENT)
        trial.found.watched.looks = False
        trial.offer(HONEST, price=1900)
        id = trial.submit(self.checkpoints)
        job = trial.watch(lambda job: job.approved >= 2)
        out = trial.market.lease(job.leases[0].id)
        event = opened(trial.chain, out.id, near=out.opened_block)
        first = next(one for one in trial.market.checkpoints(id) if one.checkpoint.index == 1)
        call = trial.chain.challenge_signed(
            event.terms, out.rules, event.tip, [], [first.checkpoint.root], 1, first.signature, 0
        )
        trial.sender(CLIENT).send(call)
        trial.say("client challenges checkpoint 1, of which the Approval is not on chain yet")
        trial.watch(lambda job: bool(trial.found.watched.ended))
        trial.found.watched.notice(trial, "the provider redeems its Approval in the dispute")
        trial.watch()
