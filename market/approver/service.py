"""The approver's loop: check what is reported and sign it, release those who stop, redeem for those who vanished."""

import contextvars
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from pebble import ThreadPool

from contracts.api.bodies import (
    ApprovalIn,
    CheckpointOut,
    CheckpointRecord,
    CheckpointStatus,
    LeaseOut,
    ListedLease,
    RejectionIn,
    ReportOut,
)
from contracts.api.client import MarketClient
from contracts.api.grants import get_state
from contracts.api.problems import Code, Problem
from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY
from contracts.chain.events import Opened
from contracts.chain.lookup import accepted_tips, opened, verify_lease
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.job.early_stop import Stop
from contracts.job.sealing import NotOpened
from contracts.orders import Approval, Claim, Rejection
from contracts.terms import Phase
from market.approver.checks import problem_with_claim, problem_with_state, problem_with_stop
from market.approver.job_keys import JobKeys
from market.approver.memory import Memory, Signed
from market.approver.metrics import ApproverMetrics
from market.approver.state_checks import SlowCheck
from market.approver.turns import LeaseTurn, Turns

ROUND_SECONDS = 1.0  # in which a round waits for what it has begun to check; what takes longer holds up nothing

log = structlog.get_logger()


@dataclass(frozen=True)
class KnownLease:
    """A lease whose terms were read on chain and compared with what the market says."""

    event: Opened
    out: LeaseOut


class Approver:
    """Checks and signs for the leases that name `key` as their approver."""

    def __init__(
        self,
        market: MarketClient,
        chain: Chain,
        key: LocalAccount,
        own: PrivateKey,
        memory: Memory,
        sender: Sender | None = None,
        metrics: ApproverMetrics | None = None,
        check_state: Callable[[Path, CheckpointRecord], str | None] = problem_with_state,
        at_once: int = 4,
    ) -> None:
        """`own` is the encryption key that sealed jobs' keys are granted to. `check_state` may raise SlowCheck.

        `at_once`: leases that are looked at beside each other.
        """
        self._market, self._chain, self._key, self._memory = market, chain, key, memory
        self._sender = sender or Sender(chain, key)
        self._known: dict[str, KnownLease] = {}
        self._job_keys = JobKeys(market, chain, key, own)
        self._metrics = metrics or ApproverMetrics()
        self._problem_with_state = check_state
        self._turns, self._threads = Turns(at_once, self._provider_of), ThreadPool(max_workers=at_once)
        self._skipped: dict[str, str] = {}  # why, by lease, as it was logged last
        self._under_way: dict[Future[None], LeaseTurn] = {}
        self._waits = False  # for the market

    def run(self, stop: threading.Event, poll_seconds: float) -> None:
        """Rounds until `stop`. What fails is logged and tried again; nothing is signed by halves."""
        address = self._key.address
        with structlog.contextvars.bound_contextvars(approver=address):
            while not stop.is_set():
                if self._market_answers() and self._round():
                    self._metrics.looked.labels(address).set_to_current_time()
                stop.wait(poll_seconds)
        self._threads.stop()

    def _market_answers(self) -> bool:
        """Whether there is a market to work for; it may start later than this. Told once, not in each round."""
        try:
            self._market.info()
        except UserError as error:
            self._metrics.troubles.labels(self._key.address).inc()
            if not self._waits:
                log.warning("approver.waits_for_market", market=self._market.url, problem=error.message)
            self._waits = True
            return False
        if self._waits:
            log.info("approver.goes_on", market=self._market.url)
        self._waits = False
        return True

    def _round(self) -> bool:
        """Each part, whatever became of the one before. Whether all went well."""
        went_well = [
            self._guarded(part)
            for part in (
                self._job_keys.publish,
                self.grant_keys,
                self._approve_for_a_while,
                self.answer_releases,
                self.redeem_for_vanished,
            )
        ]
        return all(went_well)

    def _approve_for_a_while(self) -> None:
        self.approve_reported(ROUND_SECONDS)

    def _guarded(self, part: Callable[[], None]) -> bool:
        try:
            part()
            return True
        except UserError as error:
            log.warning("approver.retry", part=part.__name__, problem=error.message)
        except Exception:  # a bug or an outage in one round must not end the service
            log.exception("approver.failed", part=part.__name__)
        self._metrics.troubles.labels(self._key.address).inc()
        return False

    @contextmanager
    def _apart(self, lease: str) -> Iterator[None]:
        """One lease's trouble is not another's: it may have gone in a reorganisation, or be made to find a bug."""
        try:
            yield
        except NODE_AWAY:
            raise  # the chain is silent: so it is for all others
        except SlowCheck as error:
            self._metrics.slow.labels(self._key.address).inc()
            log.warning("approver.slow_check", lease=lease, problem=error.message)
            raise
        except UserError as error:
            self._metrics.troubles.labels(self._key.address).inc()
            if self._skipped.get(lease) != error.message:  # said once: it may be so in each round
                self._skipped[lease] = error.message
                log.warning("approver.skipped", lease=lease, problem=error.message, hint=error.hint)
        except Exception:
            self._metrics.troubles.labels(self._key.address).inc()
            log.exception("approver.failed", lease=lease)

    # ------------------------------------------------------------- progress

    def approve_reported(self, seconds: float | None = None) -> None:
        """Look at what is reported, each lease beside the others. What takes longer than `seconds` goes on by itself,
        and what it comes to is seen the next time; None: all is waited for.
        """
        ends = None if seconds is None else time.monotonic() + seconds
        waiting = self._turns.of(self._market.pending_progress(self._key.address))
        while True:
            for turn in self._turns.begin(waiting):
                run = contextvars.copy_context().run
                self._under_way[self._threads.schedule(run, args=[self._take_turn, turn])] = turn
                waiting.remove(turn)
            left = None if ends is None else max(0.0, ends - time.monotonic())
            done, _ = wait(self._under_way, left, return_when=FIRST_COMPLETED)
            for future in done:
                self._turns.end(self._under_way.pop(future), too_slow=isinstance(future.exception(), SlowCheck))
            for future in done:
                if isinstance(error := future.exception(), Exception) and not isinstance(error, SlowCheck):
                    raise error  # the chain is silent
            if not done:
                return

    def _take_turn(self, turn: LeaseTurn) -> None:
        """Raises SlowCheck, and what the chain raises that is silent."""
        for reported in turn.reported:
            with self._apart(reported.lease), structlog.contextvars.bound_contextvars(job=reported.job):
                if self._judge(reported):
                    return

    def _judge(self, reported: CheckpointOut) -> bool:
        """Whether what else was reported of the lease is out of date by that."""
        lease, n = self._lease(reported.lease), reported.claim.n
        signed = self._reached(lease)
        before = self._accepted_otherwise(lease, signed) or signed
        if n <= signed.n and before is signed:
            self._post_signed(lease, signed, reported.claim)
            return True
        if n != before.n + 1:
            return False  # the one before it comes first
        problem = problem_with_claim(reported, lease.event.terms, lease.out.spec, self._chain.domain, n, before.tip)
        if problem and before is signed and not self._is_posted(lease, signed):
            return False  # it may follow what was put in the place of what was signed
        problem = (
            problem
            or self._problem_with_stop(reported, lease.out.spec.stop)
            or self._problem_with_bytes(lease, reported)
        )
        if problem:
            self._reject(reported, problem)
        elif self._chain.state(reported.lease).phase not in (Phase.ACTIVE, Phase.CLOSING):
            log.info("approver.too_late", lease=reported.lease, n=n)
        else:
            self._approve(lease, Signed(n, reported.claim.tip))
        return False

    def _is_posted(self, lease: KnownLease, signed: Signed) -> bool:
        """Whether the market has the Approval, if there is one."""
        newest = self._market.lease(lease.event.lease).approval
        return signed.n == lease.event.terms.nums.start or (newest is not None and newest.approval.n >= signed.n)

    def _problem_with_stop(self, reported: CheckpointOut, stop: Stop | None) -> str | None:
        """A job that has stopped early has no use for another checkpoint."""
        if stop is None:
            return None
        before: dict[int, dict[str, float]] = {
            out.checkpoint.index: out.checkpoint.metrics
            for out in self._market.checkpoints(reported.job)
            if out.status is CheckpointStatus.APPROVED
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

    def _reject(self, reported: CheckpointOut, problem: str) -> None:
        claim = reported.claim
        log.warning("approver.rejects", lease=claim.lease, n=claim.n, problem=problem)
        rejection = Rejection(lease=claim.lease, n=claim.n, tip=claim.tip, reason=problem[:500])
        signature = rejection.sign(self._chain.domain, self._key)
        self._market.post_rejection(RejectionIn(rejection=rejection, signature=signature))
        self._metrics.rejected.labels(self._key.address).inc()

    # ------------------------------------------------------------- sealed jobs

    def grant_keys(self) -> None:
        """Those who work on sealed jobs get their keys."""
        for out in self._market.leases(approver=self._key.address, live=True):
            if not out.sealed or not self._job_keys.is_due(out.id):
                continue
            with self._apart(out.id):
                lease = self._lease(out.id)
                if self._chain.state(out.id).phase is Phase.ACTIVE:
                    self._job_keys.grant(lease.event)

    # ------------------------------------------------------------- releases

    def answer_releases(self) -> None:
        """A provider that stops gets an Approval(last) of what it has finished, and may close at once."""
        for report in self._market.release_requests(self._key.address):
            with self._apart(report.report.lease):
                self._release(report)

    def _release(self, report: ReportOut) -> None:
        lease = self._lease(report.report.lease)
        if report.report.signer(self._chain.domain, report.signature) != lease.event.provider:
            log.warning("approver.forged_release", lease=report.report.lease)
            return
        reached = self._reached(lease)
        accepted = self._accepted_otherwise(lease, reached)
        if accepted is not None and accepted.n > reached.n:
            reached = accepted
        self._approve(lease, Signed(reached.n, reached.tip, last=True))

    # ------------------------------------------------------------- vanished workers

    def redeem_for_vanished(self) -> None:
        """A lease that is closing pays its newest Approval before the job moves, even if its worker is gone."""
        for out in self._market.leases(approver=self._key.address, live=True):
            if out.state.phase == "closing" and out.approval is not None:
                with self._apart(out.id):
                    self._redeem(out, out.approval)

    def _redeem(self, out: ListedLease, body: ApprovalIn) -> None:
        approval, state = body.approval, self._chain.state(out.id)
        if state.phase is Phase.CLOSING and approval.n > state.accepted and approval.n >= state.claimed:
            lease = self._lease(out.id)
            redeem = self._chain.redeem(lease.event.terms, approval, body.signature)
            self._sender.send(redeem, key=f"redeem {out.id} {approval.n}")
            self._metrics.redeemed.labels(self._key.address).inc()
            log.info("approver.redeemed_for_provider", lease=out.id, n=approval.n, provider=out.provider)

    # ------------------------------------------------------------- signing

    def _lease(self, id: str) -> KnownLease:
        if id not in self._known:
            out = self._market.lease(id)
            event = opened(self._chain, id, near=out.opened_block)
            verify_lease(self._chain, out, event)
            if event.terms.parties.approver != self._key.address:
                raise UserError(f"lease {id} names {event.terms.parties.approver} as its approver, not this key")
            self._known[id] = KnownLease(event, out)
        return self._known[id]

    def _provider_of(self, lease: str) -> str:
        """As far as it is known: the lease itself, before it was looked at."""
        known = self._known.get(lease)
        return lease if known is None else known.event.provider

    def _reached(self, lease: KnownLease) -> Signed:
        """How far the lease is approved: by memory, or not at all."""
        return self._memory.recall(lease.event.lease) or Signed(lease.event.terms.nums.start, lease.event.tip)

    def _accepted_otherwise(self, lease: KnownLease, signed: Signed) -> Signed | None:
        """What the chain has accepted without this approver's word, beyond what it has signed or in place of that."""
        state = self._chain.state(lease.event.lease)
        if state.accepted < max(signed.n, lease.event.terms.nums.start + 1):
            return None
        if (state.accepted, state.claimed, state.tip_hex) == (signed.n, signed.n, signed.tip):
            return None
        n, tip = max(accepted_tips(self._chain, lease.event).items())
        return None if (n, tip) == (signed.n, signed.tip) else Signed(n, tip)

    def _approve(self, lease: KnownLease, signed: Signed) -> None:
        self._memory.remember(lease.event.lease, signed)
        self._post_approval(lease, signed)
        self._metrics.approved.labels(self._key.address).inc()
        log.info("approver.approved", lease=lease.event.lease, n=signed.n, last=signed.last)

    def _post_signed(self, lease: KnownLease, signed: Signed, reported: Claim) -> None:
        """An Approval that the market has not got. The Claim that was signed comes back by it, if it was replaced."""
        try:
            self._post_approval(lease, signed)
        except Problem as problem:
            if problem.code != Code.COMMITMENT_MISMATCH:
                raise
            raise UserError(
                f"checkpoint {signed.n} was approved with the tip {signed.tip}; its maker has put others in place of "
                f"that ({reported.n} is {reported.tip}), and two tips of one checkpoint are never signed",
                "its maker can hand the first one in again",
            ) from problem

    def _post_approval(self, lease: KnownLease, signed: Signed) -> None:
        approval = Approval(lease=lease.event.lease, n=signed.n, tip=signed.tip, last=signed.last)
        signature = approval.sign(self._chain.domain, self._key)
        self._market.post_approval(ApprovalIn(approval=approval, signature=signature))
