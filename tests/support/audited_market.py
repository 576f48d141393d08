"""A market under audited rules, stepped by hand: an approver, and providers that sign what a test says."""

from typing import Any

from eth_account.signers.local import LocalAccount

from contracts.api.bodies import AskResources, CheckpointRecord, JobOut, JobStatus, LeaseOut
from contracts.audits.levels import OPEN
from contracts.chain.events import Challenged
from contracts.chain.lookup import lease_events
from contracts.chain.sending.sender import Sender
from market.approver.service import Approver
from market.client.audit_check import AuditCheck
from tests.support.devnet import rpc
from tests.support.market_parts import TELLS_CLASS, make_record, upload
from tests.support.stepped_market import Lives

ALL = OPEN.model_copy(update={"share_ppm": 1_000_000, "approve_every": 2})  # each checkpoint is replayed
NUMERICS = {"torch": "2.13.0", "threads": 1}  # of TELLS_CLASS
LIE = {"trace_root": "0x" + "66" * 32}  # of a trace that no training gives


class Audited(Lives):
    """`approver` is restarted before each look: nothing that counts is in its memory only."""

    def offer(self, provider: LocalAccount, resources: AskResources = TELLS_CLASS, **changes: Any) -> None:
        self.post_ask(provider, resources, **changes)

    def look(self, approver: Approver | None = None) -> None:
        """A round, after which the market clears what was ordered."""
        approver = approver or self.new_approver()
        approver.approve_reported()
        approver.audit()
        approver.answer_releases()
        rpc(self.chain, "evm_mine")
        self.follow()
        if any(job.status is JobStatus.PENDING for job in self.api.jobs()):
            self.clear()

    def begin(self, *offers: int, checkpoints: int = 4) -> LeaseOut:
        """A lease of the first provider; then others are on offer, too."""
        self.offer(self.providers[0])
        job = self.post_bid()
        assert self.clear() is not None
        for number in offers:
            self.offer(self.providers[number])
        return self.lease_of(job)

    def claim(self, lease: LeaseOut, *records: dict[str, Any]) -> list[CheckpointRecord]:
        """The next checkpoints, each with what is untrue of it."""
        made: list[CheckpointRecord] = []
        reached = lease.start
        before = lease.state.tip
        for index, changes in enumerate(records, reached + 1):
            made.append(self.report(lease, index, before, **changes))
            before = made[-1].tip
        return made

    def replays(self) -> list[JobOut]:
        """Those that run."""
        mine = self.api.jobs(client=self.approver_key.address)
        return [self.api.job(job.id) for job in mine if job.status is JobStatus.RUNNING]

    def answer(self, replay: JobOut, of: CheckpointRecord, **changes: Any) -> None:
        """The auditor trains what was asked for: the same state and trace as the record's, but for `changes`."""
        lease = self.lease_of(replay)
        assert replay.spec.step_of(1) == of.step and replay.spec.checkpoints == 1
        said = {"step": of.step, "state_root": of.state_root, "trace_root": of.trace_root}
        source = self.context.blobs.path(of.state.sha256).read_bytes()
        upload(self.context, lease.provider, source)
        self.hand_in(lease, make_record(lease.bid.job, 1, lease.state.tip, source, **(said | changes)))

    def answer_all(self, *truth: CheckpointRecord, **changes: Any) -> set[str]:
        """All replays that run and have not been answered; returns who gave them."""
        by_step = {record.step: record for record in truth}
        gave = set()
        for replay in self.replays():
            if replay.reported == 0:
                self.answer(replay, by_step[replay.spec.step_of(1)], **changes)
                gave.add(replay.leases[-1].provider)
        return gave

    def contents(self, job: str, kind: type[Any]) -> list[Any]:
        return [out.content for out in self.api.audit_notes(job=job) if isinstance(out.content, kind)]

    def problems(self, job: str) -> list[str]:
        check = AuditCheck(self.api, self.chain, self.api.job(job), lambda _: ALL)
        return [problem for lease in check.leases() for problem in lease.problems]

    def claim_on_chain(self, lease: LeaseOut, *records: CheckpointRecord) -> None:
        call = self.chain.claim(self.terms(lease), records[-1].index, records[-1].tip, [one.root for one in records])
        Sender(self.chain, self.key(lease.provider)).send(call)
        self.follow()

    def grounds(self, lease: LeaseOut) -> list[int]:
        """Of all its challenges."""
        events = lease_events(self.chain, lease.id, lease.opened_block)
        return [event.ground for event in events if isinstance(event, Challenged)]

    def ruled(self, operator: LocalAccount, lease: LeaseOut, verdict: int) -> None:
        """By the arbiter, on what is challenged."""
        dispute = self.chain.dispute(lease.id)
        assert dispute is not None
        Sender(self.chain, operator).send(self.chain.rule(self.rules.arbiter, dispute.id, verdict))
        self.follow()
        self.keep()
