"""Approvers, auditors and challengers that would profit by a word."""

import sys
from collections.abc import Callable
from typing import Any, ClassVar

from contracts.chain.events import Claimed
from contracts.chain.lookup import lease_events, opened
from contracts.terms import Phase
from tests.liars.kinds import APPROVER, HONEST, SURE, Liar, StageNeeds, kind
from tests.liars.providers import OtherRate, claims_at_once, instead, made_up


def is_approver() -> bool:
    """Of two liars of one kind, whose process this is."""
    return sys.argv[3:4] == ["approver"]


def own_replays_say(answer: Callable[[], Any]) -> None:
    from market.approver.auditing.own_replays import OwnReplays

    OwnReplays.answer = lambda self, claim, seconds: answer()  # type: ignore[method-assign]


def made_up_from(first: int) -> None:
    def change(training: Any, taken: Any, numerics: Any) -> Any:
        return (made_up(taken) if taken.index >= first else taken), numerics

    instead(change)


@kind
class ColludingApprover(Liar):
    name = "colluding-approver"
    summary = "a provider that trains nothing, and an approver that finds all its replays equal"
    patched = "what the agent commits to; the approver's own replays (OwnReplays.answer)"
    needs = StageNeeds(lying_approver="colluding-approver")
    # One lease: its client chose that approver.
    allowed: ClassVar[dict[str, int]] = {"client": 4, "liar": 4}
    stops_when_ruled = True

    def lie(self) -> None:
        from contracts.audits.cases import Replayed

        if is_approver():
            own_replays_say(lambda: Replayed("equal"))
        else:
            made_up_from(1)

    def play(self, trial: Any) -> None:
        trial.liars.add(APPROVER)
        trial.found.watched.looks = False
        trial.offer(HONEST, price=1900)
        trial.offer(trial.liar, price=1800, liar=self)
        job = trial.submit(self.checkpoints)
        trial.watch(lambda job: job.approved >= 1)
        ok, text = trial.stage.party("client").try_run("replay", job, "1", "--key", "client")
        if not ok and "differs" in text:
            trial.found.watched.notice(trial, "the client's own replay of checkpoint 1 differs (`gpumarket replay`)")
            trial.found.watched.ended = "the client cancels, and names another approver"
        trial.watch()


@kind
class FalseAccuser(Liar):
    name = "false-accuser"
    summary = "an approver that rejects and challenges what was trained"
    patched = "its own replays (OwnReplays.answer), and how much they count (Case.voices)"
    needs = StageNeeds(lying_approver="false-accuser")
    checkpoints = 2
    stops_when_ruled = True

    def lie(self) -> None:
        from contracts.audits import cases

        voices = cases.Case.voices.fget

        def loud(self: Any) -> Any:
            found = voices(self)
            for auditor, root in self.words.items():
                found[root] += 5 if auditor == cases.OWN else 0
            return found

        cases.Case.voices = property(loud)  # type: ignore[assignment, method-assign]
        own_replays_say(lambda: cases.Replayed("differs", "0x" + "66" * 32))

    def is_lie(self, n: int) -> bool:
        return False

    def play(self, trial: Any) -> None:
        trial.liars.add(APPROVER)
        trial.found.watched.looks = False
        trial.offer(HONEST, price=1900)
        trial.submit(self.checkpoints)
        trial.watch(lambda job: bool(trial.found.watched.ended))
        if "true" in trial.found.watched.ended:
            trial.found.watched.notice(trial, "the arbiter's own runs gave what was claimed")
        trial.watch()


@kind
class Accomplice(Liar):
    name = "accomplice-challenger"
    summary = "a friend challenges the lie first, for the challenger's share of the stake"
    patched = "what the agent commits to and when it claims; the friend calls `challenge`"
    honest_until = 1

    def lie(self) -> None:
        made_up_from(2)
        claims_at_once()

    def play(self, trial: Any) -> None:
        trial.more("friend", owned=True)
        trial.deposit("friend", 50)
        trial.offer(HONEST, price=1900)
        trial.offer(trial.liar, price=1800, liar=self)
        trial.submit(self.checkpoints)
        trial.watch(lambda job: _pending(trial, job, 2))
        challenge(trial, "friend", 2)
        trial.watch()


def _pending(trial: Any, job: Any, n: int) -> bool:
    if not job.leases:
        return False
    state = trial.chain.state(job.leases[0].id)
    return bool(state.phase in (Phase.ACTIVE, Phase.CHALLENGED) and state.claimed >= n > state.accepted)


def challenge(trial: Any, who: str, k: int) -> None:
    """What is pending in the newest job's first lease."""
    job = trial.market.job(trial.jobs[-1])
    out = trial.market.lease(job.leases[0].id)
    event = opened(trial.chain, out.id, near=out.opened_block)
    events = lease_events(trial.chain, out.id, event.at.block)
    roots = [root for one in events if isinstance(one, Claimed) for root in one.roots]
    state = trial.chain.state(out.id)
    tip = event.tip if state.accepted == out.start else trial.tip_of(job.id, state.accepted)
    pending = roots[state.accepted - out.start :]
    call = trial.chain.challenge(event.terms, out.rules, tip, pending, k, 0)
    trial.sender(who).send(call)
    trial.say(f"{who} challenges checkpoint {k}")


@kind
class LazyAuditor(Liar):
    name = "lazy-auditor"
    summary = "an auditor that makes up what a replay came to"
    patched = "what the agent commits to (Training._commit)"
    needs = StageNeeds(verification=SURE, own_replays=False)
    checkpoints = 1

    def lie(self) -> None:
        made_up_from(1)

    def play(self, trial: Any) -> None:
        trial.more("auditor-1", "auditor-2")
        trial.offer(HONEST, price=1800)
        trial.offer("auditor-1", price=2000)
        trial.offer("auditor-2", price=2000)
        trial.offer(trial.liar, price=1900, liar=self, stake=300)  # so that it is drawn, mostly first
        for _ in range(3):
            trial.submit(self.checkpoints)
            trial.watch()
            if trial.found.watched.told:
                break
        trial.watch(lambda job: bool(trial.found.watched.ended))


@kind
class OwnedAuditor(Liar):
    name = "owned-auditor"
    summary = "a provider with another learning rate, and an auditor of its own that replays with it, too"
    patched = OtherRate.patched + ", of both"
    checkpoints = 1

    def lie(self) -> None:
        OtherRate().lie()

    def play(self, trial: Any) -> None:
        trial.more("own-auditor", owned=True)
        trial.offer(HONEST, price=2000)
        trial.offer(trial.liar, price=1800, liar=self)
        trial.offer("own-auditor", price=1950, liar=self, stake=300)
        trial.submit(self.checkpoints)
        trial.watch()
