"""The approver's loop: check what is reported and sign it, release those who stop, redeem for those who vanished."""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from pathlib import Path

import structlog
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from pebble import ThreadPool

from contracts.api.bodies import (
    ApprovalIn,
    CheckpointOut,
    CheckpointRecord,
    ListedLease,
    ReportOut,
)
from contracts.api.client import MarketClient
from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.terms import Phase
from market.approver.auditing.acting import NOBODY_SECONDS, Acting
from market.approver.auditing.alarms import Alarms
from market.approver.auditing.auditing import Auditing
from market.approver.auditing.disputes import Disputes
from market.approver.auditing.own_replays import OwnReplays
from market.approver.auditing.rejected import Rejected
from market.approver.auditing.replay_bids import ReplayBids
from market.approver.checks import problem_with_state
from market.approver.job_keys import JobKeys
from market.approver.judging import Judging
from market.approver.memory import Memory, Signed
from market.approver.metrics import ApproverMetrics
from market.approver.signing import Signing
from market.approver.state_checks import SlowCheck
from market.approver.turns import LeaseTurn, Turns

ROUND_SECONDS = 1.0  # in which a round waits for what it has begun to check; what takes longer holds up nothing

log = structlog.get_logger()


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
        replays_here: bool = False,
        nobody_seconds: float = NOBODY_SECONDS,
        replay_price_most: int | None = None,
    ) -> None:
        """`own` is the encryption key that sealed jobs' keys are granted to. `check_state` may raise SlowCheck.

        `at_once`: leases that are looked at beside each other. `replays_here`: this machine can train.
        `nobody_seconds`: after which a drawn checkpoint goes unaudited, if nobody who fits is on offer.
        `replay_price_most`: that one by another provider may cost, in token units, beside the fee.
        """
        self._market, self._chain, self._key, self._memory = market, chain, key, memory
        self._sender = sender or Sender(chain, key)
        self._job_keys = JobKeys(market, chain, key, own)
        self._metrics = metrics or ApproverMetrics()
        self._signing = Signing(market, chain, key, memory, self._metrics)
        disputes, own_replays = Disputes(chain, self._sender, self._metrics), None
        if replays_here:
            own_replays = OwnReplays(chain.settings, market.url, key, own, memory.folder / "replays")
        alarms = Alarms(disputes, self._metrics, key.address)
        self._rejected = Rejected(memory.folder / "rejected", self._signing, disputes, alarms)
        self._acting = Acting(
            chain, key.address, self._signing, disputes, self._rejected, alarms,
            ReplayBids(market, chain, key, self._sender, self._job_keys, replay_price_most), self._metrics,
            own_replays, nobody_seconds,
        )  # fmt: skip
        self._auditing = Auditing(
            market, chain, key, self._signing, self._acting, disputes, self._metrics, memory.folder / "audits"
        )
        self._judging = Judging(
            market, chain, self._signing, self._auditing, self._rejected, self._job_keys, check_state
        )
        self._turns, self._threads = Turns(at_once, self._signing.provider_of), ThreadPool(max_workers=at_once)
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
        self._acting.close()

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
                self._auditing.look_at_money,
                self._job_keys.publish,
                self.grant_keys,
                self._approve_for_a_while,
                self.audit,
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
        return self._judging.judge(reported)

    # ------------------------------------------------------------- audits

    def audit(self) -> None:
        """What is drawn is replayed, what differs is challenged; and what was rejected, wherever it is claimed."""
        live = {out.id: out for out in self._market.leases(approver=self._key.address, live=True)}
        for out in live.values():
            with self._apart(out.id):
                self._auditing.follow(self._signing.lease(out.id))
                self._rejected.question(out)
        if self._auditing.has_any:
            self._auditing.round(live, self._unread(), self._apart)
        self._rejected.forget_others(set(live), self._apart)

    def _unread(self) -> set[str]:
        """Leases with Claims that nobody has looked at yet."""
        waiting = self._market.pending_progress(self._key.address)
        return {one.lease for one in waiting if not self._auditing.is_taken(one) and not self._is_void(one)}

    def _is_void(self, reported: CheckpointOut) -> bool:
        """Whether it is built on what was rejected: nobody will ever take it."""
        claimed = self._auditing.claimed(reported.lease)
        rejected = self._rejected.checkpoints(reported.lease)
        return claimed is not None and any(claimed < n < reported.claim.n for n in rejected)

    # ------------------------------------------------------------- sealed jobs

    def grant_keys(self) -> None:
        """Those who work on sealed jobs get their keys."""
        for out in self._market.leases(approver=self._key.address, live=True):
            if not out.sealed or not self._job_keys.is_due(out.id):
                continue
            with self._apart(out.id):
                lease = self._signing.lease(out.id)
                if not lease.is_with_whom_it_may:
                    raise UserError(
                        f"the market opened sealed lease {out.id} for {lease.event.provider}, and its job names others",
                        "it gets no key; give it by hand if you know better: gpumarket job grant",
                    )
                if self._chain.state(out.id).phase is Phase.ACTIVE:
                    self._job_keys.grant(lease.event)

    # ------------------------------------------------------------- releases

    def answer_releases(self) -> None:
        """A provider that stops gets an Approval(last) of what it has finished, and may close at once."""
        reports = list(self._market.release_requests(self._key.address))
        unread = self._unread() if reports else set()
        for report in reports:
            with self._apart(report.report.lease):
                self._release(report, report.report.lease in unread)

    def _release(self, report: ReportOut, is_unread: bool) -> None:
        lease = self._signing.lease(report.report.lease)
        if report.report.signer(self._chain.domain, report.signature) != lease.event.provider:
            log.warning("approver.forged_release", lease=report.report.lease)
            return
        if (audit := self._auditing.of(lease)) is not None:
            if not is_unread:
                self._auditing.ends(audit)
            return
        reached = self._signing.reached(lease)
        accepted = self._signing.accepted_otherwise(lease, reached)
        if accepted is not None and accepted.n > reached.n:
            reached = accepted
        self._signing.approve(lease, Signed(reached.n, reached.tip, last=True))

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
            lease = self._signing.lease(out.id)
            redeem = self._chain.redeem(lease.event.terms, approval, body.signature)
            self._sender.send(redeem, key=f"redeem {out.id} {approval.n}")
            self._metrics.redeemed.labels(self._key.address).inc()
            log.info("approver.redeemed_for_provider", lease=out.id, n=approval.n, provider=out.provider)
