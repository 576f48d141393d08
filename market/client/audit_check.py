"""Whether a job was audited as its rules promise, from the approver's notes, the chain, and what replays came to."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from contracts.api.auditing.notes import (
    AuditNoteOut,
    BatchContent,
    CommitmentContent,
    ReplayContent,
    RulingContent,
    SecretContent,
    check_note,
)
from contracts.api.bodies import CheckpointOut, JobOut, LeaseSummary
from contracts.api.client import MarketClient
from contracts.audits.draw import Batch, Drawable, recheck
from contracts.audits.replays import Work, replay_of, said_of
from contracts.audits.verification import Verification
from contracts.chain.client import Chain
from contracts.chain.lookup import accepted_tips, lease_events, opened, tips_on_chain
from contracts.types import from_hex, to_hex


@dataclass
class LeaseNotes:
    """What an approver has told of one lease. `strange`: notes that are not by its key, each a sentence."""

    lease: str
    approver: str
    commitment: tuple[CommitmentContent, AuditNoteOut] | None = None
    secret: SecretContent | None = None
    batches: list[BatchContent] = field(default_factory=list)
    replays: list[ReplayContent] = field(default_factory=list)
    rulings: dict[int, str] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)

    @property
    def drawn(self) -> list[int]:
        return sorted(n for batch in self.batches for n in batch.drawn)

    def is_void(self, n: int) -> bool:
        """Whether nothing hangs on checkpoint n any more: of what follows on a lie, or can't be told, nobody asks."""
        false = [other for other, ruling in self.rulings.items() if ruling == "false"]
        return n > min(false, default=n) or "unreproducible" in self.rulings.values()


def read_notes(market: MarketClient, chain: Chain, lease: str, approver: str) -> LeaseNotes:
    """Their signatures checked."""
    found = LeaseNotes(lease, approver)
    for out in market.audit_notes(lease=lease):
        if problem := check_note(out, chain.domain, approver):
            found.strange.append(problem)
            continue
        match out.content:
            case CommitmentContent() as content:
                found.commitment = found.commitment or (content, out)
            case SecretContent() as content:
                found.secret = found.secret or content
            case BatchContent() as content:
                found.batches.append(content)
            case ReplayContent() as content:
                found.replays.append(content)
            case RulingContent() as content:
                found.rulings[content.n] = content.ruling
    found.batches.sort(key=lambda batch: batch.claims[0].n)
    return found


@dataclass
class LeaseFindings:
    lease: str
    level: str
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # what can't be told yet, or is as it may be
    drawn: list[int] = field(default_factory=list)
    judged: int = 0


class AuditCheck:
    """Of one job. The market is believed in nothing but what it has received when."""

    def __init__(
        self, market: MarketClient, chain: Chain, job: JobOut, verification: Callable[[str], Verification | None]
    ) -> None:
        """`verification`: of rules, by their hash."""
        self._market, self._chain, self._job, self._verification = market, chain, job, verification
        self._claims: dict[tuple[str, int], CheckpointOut] = {
            (out.lease, out.claim.n): out for out in market.checkpoints(job.id)
        }

    def leases(self) -> Iterator[LeaseFindings]:
        for lease in self._job.leases:
            yield self._lease(lease)

    def _lease(self, lease: LeaseSummary) -> LeaseFindings:
        verification = self._verification(self._job.bid.rules)
        found = LeaseFindings(lease.id, "unchecked" if verification is None else verification.level)
        if verification is None or verification.level == "unchecked":
            found.remarks.append("its rules promise no replays")
            return found
        event = opened(self._chain, lease.id, near=lease.opened_block)
        notes = read_notes(self._market, self._chain, lease.id, event.terms.parties.approver)
        found.problems += notes.strange
        found.drawn, found.judged = notes.drawn, len(notes.rulings)
        if self._is_replay(event.client, event.terms.parties.approver):
            found.remarks.append("it is a replay itself, if its approver ordered it: it is judged by comparison")
        found.problems += self._commitment(notes)
        found.problems += self._blocks(notes, lease)
        tips = tips_on_chain(event, lease_events(self._chain, lease.id, event.at.block)).tips
        found.problems += self._paid_all_the_same(notes, accepted_tips(self._chain, event))
        for batch in notes.batches:
            for claim in batch.claims:
                if tips.get(claim.n, claim.tip) != claim.tip:
                    found.remarks.append(
                        f"checkpoint {claim.n} was judged with the tip {claim.tip}; the chain has {tips[claim.n]}"
                    )
        covered = max((batch.claims[-1].n for batch in notes.batches), default=lease.start)
        if lease.state.accepted > covered:
            found.remarks.append(
                f"checkpoints {covered + 1} to {lease.state.accepted} were accepted by the passing of their window: "
                "nobody judged them"
            )
        for replay in notes.replays:
            found.problems += self._replay(replay)
        found.problems += self._draws(notes, verification, lease, found.remarks)
        return found

    def _paid_all_the_same(self, notes: LeaseNotes, accepted: Mapping[int, str]) -> Iterator[str]:
        claims = {claim.n: claim.tip for batch in notes.batches for claim in batch.claims}
        for n, ruling in sorted(notes.rulings.items()):
            if ruling == "false" and accepted.get(n) == claims.get(n, ""):
                yield f"checkpoint {n} was found false, and is paid: unchallenged in time, or the arbiter was silent"

    def _is_replay(self, client: str, approver: str) -> bool:
        return client == approver and self._job.bid.checkpoints == 1

    def _commitment(self, notes: LeaseNotes) -> Iterator[str]:
        if notes.commitment is None:
            yield "its approver has published no commitment to its draws"
            return
        _, out = notes.commitment
        first = min((one.received for (lease, _), one in self._claims.items() if lease == notes.lease), default=None)
        if first is not None and out.received > first:
            yield f"the commitment came at {out.received:%Y-%m-%d %H:%M:%S}, after the first Claim ({first:%H:%M:%S})"

    def _blocks(self, notes: LeaseNotes, lease: LeaseSummary) -> Iterator[str]:
        for batch in notes.batches:
            hash = self._chain.block_hash(batch.block)
            if hash != batch.block_hash:
                yield (
                    f"the batch of checkpoints {batch.claims[0].n} to {batch.claims[-1].n} was drawn by block "
                    f"{batch.block} with the hash {batch.block_hash}; the chain has {hash or 'no such block'}"
                )
            if batch.block <= lease.opened_block:
                yield f"block {batch.block} of a draw is not after the lease's opening in {lease.opened_block}"

    def _draws(
        self, notes: LeaseNotes, verification: Verification, lease: LeaseSummary, remarks: list[str]
    ) -> list[str]:
        if notes.secret is None or notes.commitment is None:
            if lease.finished is None:
                remarks.append("it is not over: its approver shows the secret of the draws then")
                return []
            return ["it is over, and its approver does not show the secret of the draws"] if notes.batches else []
        batches = [
            Batch(tuple(Drawable(one.n, one.tip) for one in batch.claims), batch.block_hash) for batch in notes.batches
        ]
        secret = from_hex(notes.secret.secret)
        judged = {n for n in notes.drawn if n in notes.rulings or notes.is_void(n)}
        found = recheck(
            secret, notes.commitment[0].commitment, lease.id, batches, judged, verification.share_ppm,
            verification.approve_every,
        )  # fmt: skip
        unaudited = [n for n, ruling in notes.rulings.items() if ruling == "unaudited"]
        remarks += [f"checkpoint {n} was drawn, and nobody could replay it in time" for n in sorted(unaudited)]
        return found

    def _replay(self, said: ReplayContent) -> Iterator[str]:
        """Whether a replay by another provider is there, of the right stretch, and came to what is said of it."""
        if said.job is None or said.outcome not in ("equal", "differs"):
            return
        job = self._market.job(said.job)
        if job.bid.digest(self._chain.domain) != said.job or to_hex(job.spec.job_hash()) != job.bid.job:
            yield f"the market shows something else than the replay {said.job} of checkpoint {said.n}"
            return
        claims = [one for (_, n), one in self._claims.items() if n == said.n]
        made = [one for one in self._market.checkpoints(said.job) if one.provider == said.auditor]
        if not claims or not made:
            yield f"the replay of checkpoint {said.n} by {said.auditor} is not there"
            return
        record = made[-1].checkpoint
        work = Work(record.state_root, record.trace_root, record.numerics)
        for claim in claims:
            asked = replay_of(self._job.spec, said.n, claim.checkpoint.numerics, said.auditor or "")
            if to_hex(asked.job_hash()) != job.bid.job:
                continue
            one = claim.checkpoint
            if said_of(Work(one.state_root, one.trace_root, one.numerics), work).outcome == said.outcome:
                return
        yield (
            f"the replay of checkpoint {said.n} by {said.auditor} is said to be {said.outcome}; what it handed in "
            "tells something else, or is of another stretch"
        )
