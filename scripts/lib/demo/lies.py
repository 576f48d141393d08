"""What becomes of a lie: when it was told, who noticed it after how long, and how it was ruled on."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from contracts.api.auditing.notes import ReplayContent
from contracts.api.bodies import CheckpointOut, CheckpointStatus, JobOut
from contracts.chain.events import Challenged, Claimed, Event, Resolved
from contracts.chain.lookup import lease_events
from contracts.terms import Verdict
from scripts.lib.demo.scene import Scene


@dataclass
class Watched:
    """Seconds are from when the lie was told."""

    noticed: str = ""  # by whom, and by what
    seconds: float | None = None
    ended: str = ""  # how the arbiter ruled, or what else ended it
    ruled: float | None = None
    agreed: int = 0  # replays that came out equal
    told: float | None = None  # monotonic
    on_chain: bool = False  # it is told by a claim there
    looks: bool = True  # for who notices; else somebody calls `notice`

    def look(self, scene: Scene, jobs: list[JobOut], is_lie: Callable[[CheckpointOut], bool]) -> None:
        """At what they have come to; call it again and again."""
        now = time.monotonic()
        lies = [one for job in jobs for one in scene.market.checkpoints(job.id) if is_lie(one)]
        events = list(_events(scene, jobs))
        replays = [
            note.content
            for job in jobs
            for note in scene.market.audit_notes(job=job.id)
            if isinstance(note.content, ReplayContent)
        ]
        agreed = sum(one.outcome == "equal" for one in replays)
        if agreed > self.agreed:
            scene.say(f"[green]a replay agrees[/] with what was claimed: {agreed} so far")
            self.agreed = agreed
        seen = Claimed | Challenged if self.on_chain else Challenged
        if self.told is None and (lies or any(isinstance(one, seen) for one in events)):
            self.told = now
        if self.told is None:
            return
        if self.looks and not self.noticed and (why := _noticed(scene, lies, replays, events)):
            self.notice(scene, why)
        ruled = [one for one in events if isinstance(one, Resolved)]
        if ruled and not self.ended:
            self.ended, self.ruled = f"the arbiter: {Verdict(ruled[-1].verdict).said}", now - self.told
            scene.say(f"[green]ruled[/] after {self.ruled:.0f} s: {self.ended}")

    def notice(self, scene: Scene, why: str) -> None:
        if not self.noticed:
            self.noticed, self.seconds = why, 0.0 if self.told is None else time.monotonic() - self.told
            scene.say(f"[green]noticed[/] after {self.seconds:.0f} s: {why}")

    def sentence(self) -> str:
        after = "never" if self.seconds is None else f"after {self.seconds:.0f} s"
        end = f"; {self.ended}" + ("" if self.ruled is None else f" after {self.ruled:.0f} s") if self.ended else ""
        return f"noticed {after}: {self.noticed or 'by nobody'}{end}"


def _events(scene: Scene, jobs: list[JobOut]) -> Iterator[Event]:
    for lease in (lease for job in jobs for lease in job.leases):
        yield from lease_events(scene.chain, lease.id, lease.opened_block)


def _noticed(scene: Scene, lies: list[CheckpointOut], replays: list[ReplayContent], events: list[Event]) -> str:
    for one in replays:
        if one.outcome == "differs":
            who = "the approver's own replay" if one.auditor is None else f"a replay by {scene.name_of(one.auditor)}"
            return f"{who} of checkpoint {one.n} differs"
    for claim in lies:
        if claim.status is CheckpointStatus.REJECTED:
            return f"the approver: {claim.reason}"
    for event in events:
        if isinstance(event, Challenged):
            ground = "withheld" if event.ground else "wrong"
            return f"{scene.name_of(event.challenger)} challenges checkpoint {event.k} as {ground}"
    return ""
