"""One reported checkpoint, looked at: rejected, approved, or taken into its lease's audit."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog

from contracts.api.auditing.sold_class import sold_class
from contracts.api.bodies import CheckpointOut, CheckpointRecord, CheckpointStatus
from contracts.api.client import MarketClient
from contracts.api.grants import get_state
from contracts.api.records import root_of
from contracts.audits.coverage import problem_with_class
from contracts.chain.client import Chain
from contracts.chain.lookup import accepted_tips
from contracts.job.early_stop import Stop
from contracts.job.sealing import NotOpened
from contracts.terms import Phase
from contracts.types import to_hex
from market.approver.auditing.auditing import Auditing
from market.approver.auditing.disputes import WITHHELD, WRONG
from market.approver.auditing.lease_audit import LeaseAudit
from market.approver.auditing.rejected import Rejected
from market.approver.checks import problem_with_claim, problem_with_stop
from market.approver.job_keys import JobKeys
from market.approver.memory import Signed
from market.approver.signing import KnownLease, Signing

log = structlog.get_logger()


class Judging:
    def __init__(
        self,
        market: MarketClient,
        chain: Chain,
        signing: Signing,
        auditing: Auditing,
        rejected: Rejected,
        job_keys: JobKeys,
        problem_with_state: Callable[[Path, CheckpointRecord], str | None],
    ) -> None:
        self._market, self._chain, self._signing, self._auditing = market, chain, signing, auditing
        self._rejected, self._job_keys, self._problem_with_state = rejected, job_keys, problem_with_state

    def judge(self, reported: CheckpointOut) -> bool:
        """Whether what else was reported of the lease is out of date by that."""
        lease = self._signing.lease(reported.lease)
        audit = self._auditing.of(lease)
        return self._judge(lease, reported) if audit is None else self._judge_audited(lease, audit, reported)

    def _judge(self, lease: KnownLease, reported: CheckpointOut) -> bool:
        n, signed = reported.claim.n, self._signing.reached(lease)
        before = self._signing.accepted_otherwise(lease, signed) or signed
        if n <= signed.n and before is signed:
            self._signing.post_signed(lease, signed, reported.claim)
            return True
        is_replay = self._auditing.is_replay(lease)
        if n != before.n + 1 or (is_replay and self._auditing.is_handed_in(lease.out.job)):
            return False  # the one before it comes first; and a replay waits for what its case comes to
        form = problem_with_claim(reported, lease.event.terms, lease.out.spec, self._chain.domain, n, before.tip)
        if form and before is signed and not self._signing.is_posted(lease, signed):
            return False  # it may follow what was put in the place of what was signed
        if form or self._is_bad(lease, reported, None):
            if form:
                self._reject(reported, form, self._ground(lease, reported))
        elif self._chain.state(reported.lease).phase not in (Phase.ACTIVE, Phase.CLOSING):
            log.info("approver.too_late", lease=reported.lease, n=n)
        elif is_replay and (problem := self._problem_with_class(lease, reported)):
            self._reject(reported, problem, WRONG)
        elif is_replay and not lease.is_with_whom_it_may:
            log.warning("approver.other_auditor", lease=lease.id, provider=lease.event.provider)
        elif is_replay:
            self._rejected.forget(lease.id, reported.claim.tip)
            self._auditing.replayed(reported)
        else:
            self._rejected.forget(lease.id, reported.claim.tip)
            self._signing.approve(lease, Signed(n, reported.claim.tip))
        return False

    def _judge_audited(self, lease: KnownLease, audit: LeaseAudit, reported: CheckpointOut) -> bool:
        """A Claim that is right as far as its bytes tell is taken; whether it was trained, replays tell."""
        claim, signed = reported.claim, self._signing.reached(lease)
        taken = audit.audit.claims.get(claim.n)
        if taken is not None and taken.tip == claim.tip:
            if claim.n <= signed.n:
                self._signing.post_signed(lease, signed, claim)
            return False
        if taken is None and claim.n != audit.audit.claimed + 1:
            self._take_accepted(lease, audit, reported)
            if claim.n != audit.audit.claimed + 1:
                return False  # the one before it comes first
        before = audit.tip_at(claim.n - 1) or ""
        form = problem_with_claim(reported, lease.event.terms, lease.out.spec, self._chain.domain, claim.n, before)
        if form:
            self._reject(reported, form, self._ground(lease, reported))
        elif problem := self._problem_with_class(lease, reported):
            self._reject(reported, problem, WRONG)
        elif taken is not None or not self._is_bad(lease, reported, audit):
            self._rejected.forget(lease.id, claim.tip)
            self._auditing.take(audit, reported)
        return False

    def _take_accepted(self, lease: KnownLease, audit: LeaseAudit, reported: CheckpointOut) -> None:
        """What leads to a Claim, and the chain has accepted while this program was away: it is listed no more."""
        on_chain = accepted_tips(self._chain, lease.event)
        for out in self._market.checkpoints(reported.job):
            claim = out.claim
            is_next = claim.lease == lease.id and claim.n == audit.audit.claimed + 1
            if is_next and claim.n < reported.claim.n and on_chain.get(claim.n) == claim.tip:
                self._auditing.take(audit, out)

    def _is_bad(self, lease: KnownLease, reported: CheckpointOut, audit: LeaseAudit | None) -> bool:
        """Whether it was rejected for what it says or what its bytes are."""
        if problem := self._problem_with_stop(reported, lease.out.spec.stop, audit):
            self._reject(reported, problem, None)
            return True
        if problem := self._problem_with_bytes(lease, reported):
            self._reject(reported, problem, WITHHELD)
            return True
        return False

    @staticmethod
    def _ground(lease: KnownLease, reported: CheckpointOut) -> int | None:
        """Of what is rejected for its form: a root that is not that of the record's parts is of bytes nobody has. Of
        another form an arbiter could only say that it is true.
        """
        is_its_root = to_hex(root_of(reported.checkpoint, lease.out.spec)) == reported.checkpoint.root
        return None if is_its_root else WITHHELD

    def _reject(self, reported: CheckpointOut, problem: str, ground: int | None) -> None:
        claim = reported.claim
        self._rejected.remember(claim.lease, claim.n, claim.tip, ground)
        self._signing.reject(reported, problem)

    def _problem_with_class(self, lease: KnownLease, reported: CheckpointOut) -> str | None:
        verification, asked = self._auditing.verification(lease), lease.out.spec.resources.threads
        told = sold_class(self._market.ask(lease.event.ask), self._chain.domain, lease.event.ask)
        return problem_with_class(reported.checkpoint.numerics, verification, told, asked)

    def _problem_with_stop(self, reported: CheckpointOut, stop: Stop | None, audit: LeaseAudit | None) -> str | None:
        """A job that has stopped early has no use for another checkpoint."""
        if stop is None:
            return None
        taken = audit.claims if audit else {}
        before: dict[int, dict[str, float]] = {
            out.checkpoint.index: out.checkpoint.metrics
            for out in self._market.checkpoints(reported.job)
            if out.status is CheckpointStatus.APPROVED or (out.claim.n, out.claim.tip) in taken
        }
        n = reported.claim.n
        return problem_with_stop(stop, [before.get(index, {}) for index in range(1, n)], reported.checkpoint.metrics)

    def _problem_with_bytes(self, lease: KnownLease, reported: CheckpointOut) -> str | None:
        record = reported.checkpoint
        job_key = self._job_keys.of(lease.event.terms.parties) if record.sealed else None
        with tempfile.TemporaryDirectory(prefix="gpumarket-approver-") as folder:
            path = Path(folder) / "state.safetensors"
            try:
                get_state(self._market, record, path, job=reported.job, job_key=job_key)
            except NotOpened as error:
                return error.message
            problem = self._problem_with_state(path, record)
        if problem and record.sealed:  # a rejection is public, and a problem may name tensors
            log.warning("approver.bad_state", lease=reported.lease, n=record.index, problem=problem)
            return "what is sealed is not the state that the record commits to"
        return problem
