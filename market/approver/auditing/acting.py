"""What is due of a lease's audit is done here: asked for, signed, challenged, told; and its outcome written down."""

import time

import structlog

from contracts.api.bodies import CheckpointOut, LeaseState, ListedLease
from contracts.api.info import Info
from contracts.api.problems import Problem
from contracts.audits.cases import OWN, Replayed
from contracts.audits.clocks import last_moment, replay_patience
from contracts.audits.events import (
    Accuse,
    Action,
    Alarm,
    ApprovalSigned,
    Approve,
    Asked,
    AskReplay,
    BlockFinal,
    Challenge,
    ChallengeSent,
    OnChain,
    Refuse,
    Reject,
    ReplayEnded,
    TellUnaudited,
    TellUnreproducible,
    TimeUp,
    Told,
    Upheld,
    WantBlock,
)
from contracts.chain.client import Chain
from contracts.chain.clock import ChainClock
from contracts.finality import at_stake
from market.approver.auditing.alarms import Alarms
from market.approver.auditing.disputes import WITHHELD, BondShort, Disputes, Questioned
from market.approver.auditing.history import ReplayOrdered
from market.approver.auditing.lease_audit import LeaseAudit
from market.approver.auditing.own_replays import OwnReplays
from market.approver.auditing.rejected import Rejected
from market.approver.auditing.replay_bids import ReplayBids, ReserveShort
from market.approver.memory import Signed
from market.approver.metrics import ApproverMetrics
from market.approver.signing import KnownLease, Signing

OWN_SECONDS = 600.0  # that a replay on this machine may take, beside five times what the checkpoint took
NOBODY_SECONDS = 120.0  # after which a checkpoint goes unaudited, if nobody who fits is on offer

log = structlog.get_logger()


class Acting:
    """Of one approver. The caller holds the audit's lock."""

    def __init__(
        self,
        chain: Chain,
        address: str,
        signing: Signing,
        disputes: Disputes,
        rejected: Rejected,
        alarms: Alarms,
        bids: ReplayBids,
        metrics: ApproverMetrics,
        own: OwnReplays | None,
        nobody_seconds: float,
    ) -> None:
        """`own`: replays on this machine; None: it can't train."""
        self._chain, self._address, self._signing = chain, address, signing
        self._disputes, self._rejected, self._alarms = disputes, rejected, alarms
        self._bids, self._metrics = bids, metrics
        self._own, self._nobody_seconds, self._clock = own, nobody_seconds, ChainClock(chain)
        self._posted: set[str] = set()  # jobs of replays

    @property
    def has_own(self) -> bool:
        return self._own is not None

    def close(self) -> None:
        if self._own is not None:
            self._own.close()

    def act(self, audit: LeaseAudit, action: Action, listed: ListedLease | None, info: Info, head: int) -> None:
        match action:
            case WantBlock(number):
                self._read_block(audit, number, head)
            case AskReplay():
                self._ask(audit, action, info)
            case Approve(n, tip, last):
                if last or listed is None or n > listed.state.accepted:  # else its window has passed by itself
                    self._signing.approve(audit.lease, Signed(n, tip, last))
                audit.add(ApprovalSigned(n, last))
            case Refuse(n, tip):
                first = audit.audit.claims.get(n)
                why = f"{first.tip} was claimed first, which binds" if first else "no more Claims are taken"
                self._reject(audit.claims[n, tip], f"a Claim of checkpoint {n} came too late: {why}")
                audit.add(Told(action))
            case Reject(n, tip):
                voices = ", ".join(sorted(set(audit.audit.cases[n].words) - {OWN})) or "the approver's own machine"
                self._reject(audit.claims[n, tip], f"replays come to something else: {voices}")
                audit.add(Told(action))
            case Challenge(n, tip, _):
                if self._challenge(audit.lease, self._questioned(audit, n, tip)):
                    audit.add(ChallengeSent(n))
            case Accuse(n, auditor):
                if self._accuse(audit.handed_in[n, auditor]):
                    audit.add(Told(action))
            case TellUnaudited(n):
                log.warning("approver.unaudited", lease=audit.id, n=n)
                self._metrics.unaudited.labels(self._address).inc()
                audit.add(Told(action))
            case TellUnreproducible(n, ends):
                log.error("approver.unreproducible", lease=audit.id, n=n, ends=ends)
                audit.add(Told(action))
            case Alarm(_, text):
                self._alarms.give(audit.id, text)
                audit.add(Told(action))

    def _read_block(self, audit: LeaseAudit, number: int, head: int) -> None:
        terms = audit.lease.event.terms
        value = at_stake(terms.nums, terms.parties.stake)
        if self._chain.settings.finality.is_final(number, head, value) and (hash := self._chain.block_hash(number)):
            audit.add(BlockFinal(number, hash))

    def _ask(self, audit: LeaseAudit, asked: AskReplay, info: Info) -> None:
        if asked.own:
            audit.add(Asked(asked.n, OWN))
            self._metrics.replays.labels(self._address).inc()
            return
        ordered: ReplayOrdered | None = None
        try:
            ordered = self._bids.order(audit, asked, info)
        except ReserveShort as error:
            self._alarms.give(audit.id, f"{error.message}; {error.hint}")
        if ordered is None:
            since = audit.alone_since.setdefault(asked.n, time.monotonic())
            if time.monotonic() - since >= self._nobody_seconds and not audit.audit.cases[asked.n].words:
                audit.add(TimeUp(asked.n))
            return
        audit.alone_since.pop(asked.n, None)
        audit.add(ordered)
        self._metrics.replays.labels(self._address).inc()
        log.info("approver.replay_ordered", lease=audit.id, n=asked.n, auditor=ordered.auditor)
        self._post(audit, ordered)

    def hear(self, audit: LeaseAudit) -> None:
        """Answers of our own machine, and those who gave none in time."""
        for n in audit.owes_own:
            claim = audit.taken(n)
            limit = min(OWN_SECONDS + 5 * audit.seconds(n), audit.lease.event.terms.nums.window)
            answer = self._own.answer(claim, limit) if self._own else Replayed("not_covered")
            if answer is not None:
                audit.add(ReplayEnded(n, OWN, answer))
        for ordered in audit.waits_for:
            if time.time() > ordered.until:
                log.warning("approver.replay_stalled", lease=audit.id, n=ordered.n, auditor=ordered.auditor)
                audit.add(ReplayEnded(ordered.n, ordered.auditor, Replayed("stalled")))
            elif not self._post(audit, ordered) and self._bids.has_failed(audit.job_of(ordered), ordered.auditor):
                log.warning("approver.replay_fails", lease=audit.id, n=ordered.n, auditor=ordered.auditor)
                audit.add(ReplayEnded(ordered.n, ordered.auditor, Replayed("failed")))

    def may_still_open(self, audit: LeaseAudit) -> bool:
        """Whether a Bid is in force of whom nobody waits for any more."""
        now, orders = self._clock.now(), audit.ordered.items()
        return any(now <= one.body.bid.valid_until for asked, one in orders if asked not in audit.handed_in)

    def _post(self, audit: LeaseAudit, ordered: ReplayOrdered) -> bool:
        """Whether it was not there yet, as far as this process knows."""
        job = audit.job_of(ordered)
        if job in self._posted:
            return False
        try:
            self._bids.post(ordered)
            self._posted.add(job)
        except Problem as problem:
            log.warning("approver.replay_refused", lease=audit.id, n=ordered.n, problem=problem.message)
            if problem.status is not None and problem.status < 500:
                audit.add(ReplayEnded(ordered.n, ordered.auditor, Replayed("stalled")))
        return True

    def watch_time(self, audit: LeaseAudit, listed: ListedLease | None, info: Info) -> None:
        if listed is None:  # the lease is over: what was drawn, and could not be judged, is told as unaudited
            for n in audit.open_cases:
                audit.add(TimeUp(n))
            return
        nums, state = audit.lease.event.terms.nums, listed.state
        is_pending = state.claimed > state.accepted and state.phase in ("active", "closing")
        since = state.t if is_pending else None
        for n in audit.open_cases:
            claim = audit.taken(n)
            patience = replay_patience(audit.seconds(n), info.epoch_seconds)
            due = claim.received.timestamp() + nums.timeout / 2
            on_chain = since if n <= state.claimed else None
            if self._clock.now() > last_moment(pending_since=on_chain, window=nums.window, due=due, patience=patience):
                audit.add(TimeUp(n))

    def pay(self, audit: LeaseAudit) -> None:
        """Replays whose word was the truth are approved as any work is."""
        for n, auditor in audit.payable:
            reported = audit.handed_in[n, auditor]
            lease = self._signing.lease(reported.lease)
            if self._signing.reached(lease).n < reported.claim.n:
                self._signing.approve(lease, Signed(reported.claim.n, reported.claim.tip))

    # ------------------------------------------------------------- what differs

    def look_at_chain(self, audit: LeaseAudit, listed: ListedLease, is_unread: bool) -> None:
        """What is pending there: what was rejected, what is not the Claim that was taken, what nobody has shown."""
        state, known = listed.state, audit.audit.claims.get(listed.state.claimed)
        if state.claimed == state.accepted or state.phase not in ("active", "closing"):
            return
        if audit.audit.rejected is None and known is not None and known.tip == state.tip:
            return
        pending = self._disputes.look(audit.lease).pending
        audit.audit.apply(OnChain(pending))
        for n, tip in sorted(pending.items()):
            taken = audit.audit.claims.get(n)
            if tip in self._rejected.tips(audit.id):
                return
            # One that is not the first, which binds, is on no market: nobody could train it again, or have its bytes.
            is_other = taken is not None and taken.tip != tip
            if is_other or (taken is None and not is_unread and self._is_half_over(audit.lease, state)):
                self._withheld(audit.lease, n, tip)
                return

    def look_whether_paid(self, audit: LeaseAudit, listed: ListedLease | None) -> None:
        """What was found false, and was not challenged in time."""
        n = audit.audit.rejected
        if n is None or (listed is not None and listed.state.accepted < n):
            return
        alarm = Alarm(n, "found false, and paid")
        if alarm not in audit.audit.told and self._alarms.give_if_paid(audit.lease, n, audit.taken(n).claim.tip):
            audit.add(Told(alarm))

    def look_at_replay(self, lease: KnownLease, listed: ListedLease, shown: CheckpointOut | None) -> None:
        """A replay's claim that is pending on chain, of which nothing, or something else, was handed in."""
        state = listed.state
        if state.claimed == state.accepted or state.phase not in ("active", "closing"):
            return
        for n, tip in self._disputes.look(lease).pending.items():
            is_other = shown is not None and shown.claim.tip != tip
            if tip not in self._rejected.tips(lease.id) and (
                is_other or (shown is None and self._is_half_over(lease, state))
            ):
                self._withheld(lease, n, tip)

    def _withheld(self, lease: KnownLease, n: int, tip: str) -> None:
        log.warning("approver.withheld", lease=lease.id, n=n, tip=tip)
        self._challenge(lease, Questioned(n, tip, "", {}, WITHHELD))

    def _is_half_over(self, lease: KnownLease, state: LeaseState) -> bool:
        """The window in which a claim can be challenged: its maker may be about to show it."""
        return self._clock.now() > state.t + lease.event.terms.nums.window / 2

    def hear_arbiter(self, audit: LeaseAudit) -> None:
        """What was rejected, and the arbiter has found true, is right."""
        n = audit.audit.rejected
        if n is not None and (n, audit.taken(n).checkpoint.root) in self._disputes.upheld(audit.lease):
            log.warning("approver.upheld", lease=audit.id, n=n)
            audit.add(Upheld(n))

    def _questioned(self, audit: LeaseAudit, n: int, tip: str) -> Questioned:
        reported = audit.claims[n, tip]
        roots = {m: audit.taken(m).checkpoint.root for m in range(audit.terms.start + 1, n + 1)}
        return Questioned(n, tip, reported.signature, roots)

    def _accuse(self, reported: CheckpointOut) -> bool:
        """A replay that came to something else than the truth. Whether it was challenged, or can't be paid any more."""
        lease, claim = self._signing.lease(reported.lease), reported.claim
        one = Questioned(claim.n, claim.tip, reported.signature, {claim.n: reported.checkpoint.root})
        is_done = self._challenge(lease, one)
        if is_done:  # not before: what it has shown must stay for the arbiter to look at
            self._reject(reported, "other replays of the same checkpoint come to something else")
        return is_done

    def _challenge(self, lease: KnownLease, one: Questioned) -> bool:
        try:
            return self._disputes.challenge(lease, one, self._signing.approval(lease))
        except BondShort as error:
            self._alarms.give(lease.id, f"{error.message}; {error.hint}")
            return False

    def _reject(self, reported: CheckpointOut, why: str) -> None:
        try:
            self._signing.reject(reported, why)
        except Problem as problem:  # the lease is over, or another claim is in its place: it stays written down here
            log.warning("approver.rejection_refused", lease=reported.lease, problem=problem.message)
