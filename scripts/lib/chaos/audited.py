"""The tormented market under audit: one provider lies, others replay it, an arbiter rules."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from contracts.api.auditing.notes import ReplayContent, RulingContent
from contracts.api.bodies import CheckpointStatus, JobStatus, JobSummary, LeaseSummary
from contracts.audits.levels import CLOSED
from contracts.chain.devnet.devnet import DevnetTiming
from contracts.chain.lookup import accepted_tips, opened
from contracts.job.provider_wants import USUAL_VOIDS
from contracts.settings import Settings
from scripts.lib.chaos.world import World

LIAR = "liar"
HONEST_UNTIL = 1  # the checkpoint after which that kind makes up what it claims
VERIFICATION = CLOSED.model_copy(update={"share_ppm": 1_000_000, "approve_every": 2})  # every checkpoint is replayed


class AuditedWorld(World):
    providers = ("hydro", "solar", "wind", "tidal", "biogas", LIAR)  # while some train, three must be free to replay
    small_disks = ()
    checkpoints = 4
    at_once = 1  # who trains can't replay: others must be free
    rules = "audited"
    # A window has room for three replays, one after the other, on a machine that has two cores for all of this.
    timing = DevnetTiming(window=150, checkpoint_timeout=600, arbiter_timeout=240)
    liars: ClassVar = {LIAR: "accomplice-challenger"}  # lies, and claims on chain at once, whatever is said of it
    price = "600"  # so high that checkpoints differ by more than the market's least step of a price
    prices: ClassVar = {LIAR: "200"}

    def settings(self, devnet: Settings) -> Settings:
        rules = devnet.rule_set("unchecked").model_copy(update={"verification": VERIFICATION.hash()})
        return devnet.model_copy(
            update={
                "rules": {**devnet.rules, self.rules: rules},
                "verifications": {self.rules: VERIFICATION},
            }
        )

    def prepare(self) -> None:
        self.services["arbiter"] = ("arbiter", ("arbiter", "start", "--devnet", "--poll", "0.5"))
        # Strangers replay: that is what can die, and lie.
        (self._party("approver").home / "market.toml").write_text("[approver]\nreplays_here = false\n")
        self.refused: set[tuple[str, int, str]] = set()  # lease, checkpoint, tip: all that was ever rejected
        super().prepare()
        self._party("approver").run("wallet", "deposit", "2000", "--key", "approver")
        self.start("arbiter")
        self.until("all are on offer", self._all_are_on_offer)  # so that the cheapest, who lies, gets the first job

    def _all_are_on_offer(self) -> bool:
        return len({one.ask.provider for one in self.market.asks(status="open")}) == len(self.providers)

    def change_wants(self, name: str) -> None:
        """One client meets a liar again and again; one with more voids than usual is refused otherwise."""
        file = self._party(name).home / "provider" / name / "provider.toml"
        usual = f"client_voids_at_most = {USUAL_VOIDS}"
        text = file.read_text()
        assert usual in text, f"provider.toml has no {usual!r}"
        file.write_text(text.replace(usual, "client_voids_at_most = 1000"))

    # ------------------------------------------------------------- looking

    def replays(self) -> list[JobSummary]:
        """Jobs of the approver."""
        return list(self.market.jobs(client=self._party("approver").address()))

    def is_over(self) -> bool:
        """Also what the approver has to say when all leases are over."""
        over = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)
        if any(job.status not in over for job in self.replays()) or any(True for _ in self.market.leases(live=True)):
            return False
        kinds = Counter(note.content.kind for job in self.jobs() for note in self.market.audit_notes(job=job.id))
        return kinds["secret"] == kinds["commitment"]

    def observe(self) -> None:
        for job in [*self.jobs(), *self.replays()]:
            for one in self.market.checkpoints(job.id):
                if one.status is CheckpointStatus.REJECTED:
                    self.refused.add((one.lease, one.claim.n, one.claim.tip))

    def problems(self) -> Iterator[str]:
        """What does not hold of the audits, when all is over."""
        self.observe()
        alarmed = self._alarmed()
        for job in [*self.jobs(), *self.replays()]:
            for lease in job.leases:
                yield from self._paid_in_vain(job, lease, alarmed)
        seen = Counter[tuple[str, int, str]]()
        for job in self.jobs():
            for note in self.market.audit_notes(job=job.id):
                if isinstance(note.content, ReplayContent) and note.content.auditor is not None:
                    seen[note.lease, note.content.n, note.content.auditor] += 1
            ok, text = self._party("client").try_run("audit", "verify", job.id)
            if not ok and not self.is_told(job):
                yield f"audit verify of job {job.id}:\n{text}"
        yield from (f"a replay is told {count} times: {one}" for one, count in seen.items() if count > 1)
        for job in self.replays():
            paid = sum(lease.paid for lease in job.leases)
            if paid > max((lease.price for lease in job.leases), default=0):
                yield f"replay {job.id} of one checkpoint has paid {paid}"

    def _paid_in_vain(self, job: JobSummary, lease: LeaseSummary, alarmed: set[str]) -> Iterator[str]:
        """What was refused, or is a lie, and was accepted on chain: that has to be named by an alarm, or said to be
        unaudited.
        """
        event = opened(self.direct, lease.id, near=lease.opened_block)
        tips = accepted_tips(self.direct, event)
        refused = {n for id, n, tip in self.refused if id == lease.id and tips.get(n) == tip}
        lies = set[int]()
        if lease.provider == self._party(LIAR).address():
            lies = {n for n in range(lease.start + 1, lease.state.accepted + 1) if n > HONEST_UNTIL}
        told = {
            note.content.n
            for note in self.market.audit_notes(lease=lease.id)
            if isinstance(note.content, RulingContent) and note.content.ruling in ("unaudited", "held")
        }
        if lease.id not in alarmed:
            yield from (f"checkpoint {n} of lease {lease.id} was refused, and is paid" for n in sorted(refused))
            lies -= told | refused
            yield from (f"checkpoint {n} of lease {lease.id} is a lie, and is paid" for n in sorted(lies))

    def _alarmed(self) -> set[str]:
        """Leases that an alarm has named."""
        log = (self._party("approver").home / "approver.log").read_text(errors="replace")
        lines = [line for line in log.splitlines() if "approver.alarm" in line]
        return {word.removeprefix("lease=") for line in lines for word in line.split() if word.startswith("lease=0x")}

    def is_told(self, job: JobSummary) -> bool:
        return any(lease.id in self._alarmed() for lease in job.leases)

    def outcome(self) -> dict[str, int]:
        rulings = Counter[str]()
        for job in self.jobs():
            for note in self.market.audit_notes(job=job.id):
                if isinstance(note.content, RulingContent):
                    rulings[note.content.ruling] += 1
        verdicts = Counter(lease.verdict or "" for job in [*self.jobs(), *self.replays()] for lease in job.leases)
        return {
            "replays": len(self.replays()),
            "refused": len(self.refused),
            "alarms": len(self._alarmed()),
            **{f"ruled_{name}": count for name, count in sorted(rulings.items())},
            **{f"verdict_{name}": count for name, count in sorted(verdicts.items()) if name},
        }

    def auditor_at_work(self) -> str | None:
        """A provider that has a lease of a replay now."""
        names = {self._party(name).address(): name for name in self.providers}
        live = {lease.id for lease in self.market.leases(live=True)}
        at_work = [lease.provider for job in self.replays() for lease in job.leases if lease.id in live]
        return next((names[one] for one in at_work), None)

    def audit_lines(self) -> list[str]:
        """What the approver has written down of all audits so far, one event each, in no order."""
        folder = self._party("approver").home / "approver"
        found: list[str] = []
        for path in folder.glob("*/audits/**/*.jsonl"):
            with contextlib.suppress(FileNotFoundError):  # just put aside
                found += path.read_text(errors="replace").splitlines()
        return found
