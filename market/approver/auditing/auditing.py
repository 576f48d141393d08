"""All audits of one approver, round by round: what is due of each is done, and what came of it is written down."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import structlog
from eth_account.signers.local import LocalAccount

from contracts.api.bodies import CheckpointOut, ListedLease
from contracts.api.client import MarketClient
from contracts.api.info import Info
from contracts.audits.draw import lease_secret
from contracts.audits.events import Action, AuditTerms, NoMoreClaims
from contracts.audits.levels import BY_HASH
from contracts.audits.verification import Verification
from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY
from contracts.errors import UserError
from market.approver.auditing.acting import Acting
from market.approver.auditing.disputes import Disputes
from market.approver.auditing.history import ClaimKept, History, ReplayKept, ReplayOrdered
from market.approver.auditing.lease_audit import LeaseAudit
from market.approver.auditing.notes import Notes
from market.approver.metrics import ApproverMetrics
from market.approver.signing import KnownLease, Signing

STEPS_A_ROUND = 50  # of one lease: events make further ones due

log = structlog.get_logger()


class Auditing:
    def __init__(
        self,
        market: MarketClient,
        chain: Chain,
        key: LocalAccount,
        signing: Signing,
        acting: Acting,
        disputes: Disputes,
        metrics: ApproverMetrics,
        folder: Path,
    ) -> None:
        """`folder`: of the histories."""
        self._market, self._chain, self._key, self._signing = market, chain, key, signing
        self._acting, self._disputes, self._metrics, self._folder = acting, disputes, metrics, folder
        self._notes = Notes(market, chain, key)
        self._audits: dict[str, LeaseAudit] = {}  # by lease, those that are not over
        self._replays: dict[str, tuple[LeaseAudit, ReplayOrdered]] = {}  # by the replay's job
        self._verifications = dict(BY_HASH)
        self._unloaded: set[str] | None = None  # leases; None: nobody has looked yet
        self._lock = threading.Lock()  # leases are judged beside each other
        self._looked_at_money = False

    # ------------------------------------------------------------- which leases

    def load(self) -> None:
        """What former processes have begun. One that can't be read holds up no other: it is tried again."""
        with self._lock:
            if self._unloaded is None:
                self._unloaded = {path.stem for path in self._folder.glob("*.jsonl")}
            for lease in sorted(self._unloaded):
                try:
                    self._add(self._signing.lease(lease))
                    self._unloaded.discard(lease)
                except NODE_AWAY:
                    raise
                except Exception as error:  # whatever is in that file, others are audited
                    log.warning("approver.audit_not_loaded", lease=lease, problem=str(error))

    def of(self, lease: KnownLease) -> LeaseAudit | None:
        """The lease's audit; None under rules that replay nothing, and for replays. Raises UserError."""
        self.load()
        with self._lock:
            if lease.id in self._audits:
                return self._audits[lease.id]
            if self.verification(lease).level == "unchecked" or lease.out.job in self._replays:
                return None
            if self._unloaded and lease.event.client == self._key.address:
                raise UserError(
                    f"lease {lease.id} may be a replay of an audit that could not be read yet", "it is tried again"
                )
            return self._add(lease)

    @property
    def has_any(self) -> bool:
        self.load()
        return bool(self._audits)

    def is_replay(self, lease: KnownLease) -> bool:
        self.load()
        return lease.out.job in self._replays

    def _add(self, lease: KnownLease) -> LeaseAudit:
        event, history = lease.event, History(self._folder / f"{lease.id}.jsonl")
        if not history.is_there:
            self._check_is_new(lease)
        terms = AuditTerms(
            lease=lease.id,
            provider=event.provider,
            start=event.terms.nums.start,
            end=event.terms.nums.end,
            start_tip=event.tip,
            secret=self._secret(lease.id),
            verification=self.verification(lease),
            parties=frozenset({event.client, self._key.address}),
            has_own=self._acting.has_own,
        )
        audit = LeaseAudit(lease, terms, history, self._chain.domain)
        self._know_replays(audit)
        self._audits[lease.id] = audit
        return audit

    def _check_is_new(self, lease: KnownLease) -> None:
        """Raises UserError if something was taken of it before: to begin anew would question honest work."""
        drawn = any(note.content.kind == "batch" for note in self._market.audit_notes(lease=lease.id))
        if drawn or self._signing.approval(lease) is not None or self._market.lease(lease.id).approval is not None:
            raise UserError(
                f"the history of the audit of lease {lease.id} is gone from {self._folder}",
                "restore it from a backup; until then nothing of the lease is approved or questioned",
            )

    def _know_replays(self, audit: LeaseAudit) -> None:
        self._replays |= {audit.job_of(ordered): (audit, ordered) for ordered in audit.ordered.values()}

    def verification(self, lease: KnownLease) -> Verification:
        """What the lease's rules commit to. Raises UserError if nobody shows it."""
        wanted = lease.out.rules.verification
        if wanted not in self._verifications:
            for rule_set in self._market.info().rules:
                if rule_set.verification is not None:
                    self._verifications[rule_set.verification.hash()] = rule_set.verification
        if wanted not in self._verifications:
            raise UserError(
                f"the rules of lease {lease.id} commit to the verification {wanted}, which the market does not show",
                "it can't be audited before that is there: see [verifications] in the market's config.toml",
            )
        return self._verifications[wanted]

    def _secret(self, lease: str) -> bytes:
        return lease_secret(bytes(self._key.key), self._chain.domain, lease)

    # ------------------------------------------------------------- what happens

    def follow(self, lease: KnownLease) -> None:
        """Begins the audit of a live lease, if there is to be one, by a commitment to its draws."""
        self.of(lease)
        if self.verification(lease).level != "unchecked":
            self._notes.commit(lease.id, self._secret(lease.id))

    def take(self, audit: LeaseAudit, reported: CheckpointOut) -> None:
        """A Claim whose bytes were checked, or a second one of a checkpoint."""
        claim, head = reported.claim, int(self._chain.w3.eth.block_number)
        with audit.lock:
            if (claim.n, claim.tip) not in audit.claims:
                audit.add(ClaimKept(reported, head))

    def replayed(self, reported: CheckpointOut) -> None:
        """A replay was handed in, and its bytes are what it says."""
        audit, ordered = self._replays[reported.job]
        with audit.lock:
            audit.add(ReplayKept(ordered.n, ordered.auditor, reported))
        log.info("approver.replay_answered", lease=audit.id, n=ordered.n, auditor=ordered.auditor)

    def is_taken(self, reported: CheckpointOut) -> bool:
        """Whether a Claim was looked at and is waited for to be judged."""
        audit = self._audits.get(reported.lease)
        if audit is not None:
            return (reported.claim.n, reported.claim.tip) in audit.claims
        return reported.job in self._replays and self.is_handed_in(reported.job)

    def claimed(self, lease: str) -> int | None:
        """The highest checkpoint whose Claim was taken; None for a lease that is not under audit."""
        audit = self._audits.get(lease)
        return None if audit is None else audit.audit.claimed

    def is_handed_in(self, job: str) -> bool:
        audit, ordered = self._replays[job]
        return (ordered.n, ordered.auditor) in audit.handed_in

    def ends(self, audit: LeaseAudit) -> None:
        """No further Claim of the lease is to be taken."""
        if not audit.audit.ended:
            audit.add(NoMoreClaims())

    # ------------------------------------------------------------- rounds

    def round(
        self,
        live: Mapping[str, ListedLease],
        unread: Collection[str],
        apart: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """`live`: leases as they are now. `unread`: those with Claims that are still to be looked at."""
        self.load()
        info, head = self._market.info(), int(self._chain.w3.eth.block_number)
        for audit in list(self._audits.values()):
            with apart(audit.id), structlog.contextvars.bound_contextvars(job=audit.lease.out.job), audit.lock:
                self._round(audit, live, audit.id in unread, info, head)
        for out in live.values():
            if out.job in self._replays and out.id not in unread:
                with apart(out.id):
                    audit, ordered = self._replays[out.job]
                    shown = audit.handed_in.get((ordered.n, ordered.auditor))
                    lease = self._signing.lease(out.id)
                    if lease.is_with_whom_it_may:  # else what it hands in is not taken
                        self._acting.look_at_replay(lease, out, shown)
        self._keep_bonds(live)

    def _now(self, audit: LeaseAudit, live: Mapping[str, ListedLease]) -> ListedLease | None:
        """The lease; None if it is over. One that began after the list was read is not in it."""
        if audit.id in live:
            return live[audit.id]
        out = self._market.lease(audit.id)
        return out if out.finished is None else None

    def _round(
        self, audit: LeaseAudit, live: Mapping[str, ListedLease], is_unread: bool, info: Info, head: int
    ) -> None:
        listed = self._now(audit, live)
        if (listed is None or listed.state.phase != "active") and not is_unread:
            self.ends(audit)
        self._acting.hear(audit)
        failed: list[UserError] = []  # told at the end: it holds up nothing that others wait for
        if listed is not None:
            self._acting.hear_arbiter(audit)
            with _kept(failed):
                self._acting.look_at_chain(audit, listed, is_unread)
        with _kept(failed):
            self._acting.look_whether_paid(audit, listed)
        tried: set[Action] = set()
        for _ in range(STEPS_A_ROUND):
            due = [action for action in audit.audit.due() if action not in tried]
            if not due or (listed is None and audit.audit.ended):
                break
            tried.add(due[0])
            with _kept(failed):
                self._acting.act(audit, due[0], listed, info, head)
            self._know_replays(audit)
        self._acting.watch_time(audit, listed, info)
        with _kept(failed):
            self._acting.pay(audit)
        self._notes.publish(audit)
        if listed is None:
            self._close(audit, live)
        if failed:
            raise failed[0]

    def _close(self, audit: LeaseAudit, live: Mapping[str, ListedLease]) -> None:
        """The lease is over: its secret is shown, and its history is put aside when its replays are over, too."""
        if audit.waits_for or audit.owes_own or not audit.is_paid(self._signing):
            return
        self._notes.reveal(audit.id, audit.terms.secret)
        replays = {audit.job_of(ordered) for ordered in audit.ordered.values()}
        if any(out.job in replays for out in live.values()) or self._acting.may_still_open(audit):
            return
        self._notes.forget(audit.id)
        done = self._folder / "over"
        done.mkdir(exist_ok=True, mode=0o700)
        path = self._folder / f"{audit.id}.jsonl"
        if path.exists():
            path.replace(done / path.name)
        del self._audits[audit.id]

    def look_at_money(self) -> None:
        """Once: a market with audited rules, and nothing in the escrow to pay a replay or a bond with, is told."""
        if self._looked_at_money:
            return
        audited = [one.name for one in self._market.info().rules if one.level != "unchecked"]
        if audited and self._chain.account(self._key.address).free == 0:
            log.warning(
                "approver.no_money",
                rules=audited,
                problem=f"{self._key.address} has nothing free in the escrow: it can order no replay and no challenge",
                hint="gpumarket wallet deposit AMOUNT --key NAME",
            )
        self._looked_at_money = True

    def _keep_bonds(self, live: Mapping[str, ListedLease]) -> None:
        """Tells what is missing to challenge in each live lease."""
        open_ones = [audit for audit in self._audits.values() if audit.id in live]
        needed = sum(self._disputes.bond(audit.lease, audit.terms.verification.approve_every) for audit in open_ones)
        missing = max(0, needed - self._chain.account(self._key.address).free) if open_ones else 0
        self._metrics.bond_missing.labels(self._key.address).set(missing)


@contextmanager
def _kept(failed: list[UserError]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        failed.append(error)
