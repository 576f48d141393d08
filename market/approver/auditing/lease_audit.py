"""One lease under audit: its decisions (`Audit`), and all around them that is needed to act on these."""

import threading

from contracts.api.bodies import CheckpointOut
from contracts.audits.cases import OWN, Ruling
from contracts.audits.decision import Audit
from contracts.audits.events import Asked, AuditTerms, ClaimTaken, ReplayEnded
from contracts.audits.replays import Work, said_of
from contracts.orders import Domain
from market.approver.auditing.history import ClaimKept, History, Line, ReplayKept, ReplayOrdered
from market.approver.signing import KnownLease, Signing


class LeaseAudit:
    """Made anew from its history after a restart."""

    def __init__(self, lease: KnownLease, terms: AuditTerms, history: History, domain: Domain) -> None:
        self.lease, self.terms, self._history, self.domain = lease, terms, history, domain
        self.audit = Audit(terms)
        self.claims: dict[tuple[int, str], CheckpointOut] = {}  # by index and tip
        self.ordered: dict[tuple[int, str], ReplayOrdered] = {}  # by index and auditor
        self.handed_in: dict[tuple[int, str], CheckpointOut] = {}
        self.alone_since: dict[int, float] = {}  # when nobody was on offer for a checkpoint; monotonic
        self.lock = threading.RLock()  # its Claims and replays are judged beside each other
        for line in history.read():
            self._take(line)

    @property
    def id(self) -> str:
        return self.lease.id

    def add(self, line: Line) -> None:
        """It has happened, and stays."""
        with self.lock:
            self._history.append(line)
            self._take(line)

    def _take(self, line: Line) -> None:
        match line:
            case ClaimKept(reported, block):
                claim = reported.claim
                self.claims[claim.n, claim.tip] = reported
                self.audit.apply(ClaimTaken(claim.n, claim.tip, block))
            case ReplayOrdered(n, auditor):
                self.ordered[n, auditor] = line
                self.audit.apply(Asked(n, auditor))
            case ReplayKept(n, auditor, reported):
                self.handed_in[n, auditor] = reported
                claimed, record = self.taken(n).checkpoint, reported.checkpoint
                answer = said_of(
                    Work(claimed.state_root, claimed.trace_root, claimed.numerics),
                    Work(record.state_root, record.trace_root, record.numerics),
                )
                self.audit.apply(ReplayEnded(n, auditor, answer))
            case _:
                self.audit.apply(line)

    # ------------------------------------------------------------- state

    def tip_at(self, n: int) -> str | None:
        """Of the Claims that were taken; None beyond them."""
        if n == self.terms.start:
            return self.terms.start_tip
        claim = self.audit.claims.get(n)
        return None if claim is None else claim.tip

    def taken(self, n: int) -> CheckpointOut:
        return self.claims[n, self.audit.claims[n].tip]

    def seconds(self, n: int) -> float:
        """That a checkpoint took, by its maker's word; no lease lasts longer than its timeout without one."""
        return min(self.taken(n).checkpoint.seconds, self.lease.event.terms.nums.timeout)

    @property
    def open_cases(self) -> list[int]:
        return [n for n, case in self.audit.cases.items() if case.ruling is Ruling.OPEN]

    @property
    def owes_own(self) -> list[int]:
        """Checkpoints that this machine was asked to replay, and has not yet."""
        return [n for n, case in self.audit.cases.items() if OWN in case.asked and not case.has_answered(OWN)]

    @property
    def waits_for(self) -> list[ReplayOrdered]:
        """Replays whose auditors have not answered."""
        cases = self.audit.cases
        return [one for (n, auditor), one in self.ordered.items() if not cases[n].has_answered(auditor)]

    @property
    def payable(self) -> list[tuple[int, str]]:
        """Answers whose case is decided, with who gave them: those are approved whose word was the truth."""
        return [(n, auditor) for (n, auditor) in self.handed_in if auditor in self.audit.cases[n].right]

    def is_paid(self, signing: Signing) -> bool:
        """Whether nothing is owed for replays."""
        claims = [self.handed_in[one].claim for one in self.payable]
        return all(signing.reached(signing.lease(claim.lease)).n >= claim.n for claim in claims)

    def job_of(self, ordered: ReplayOrdered) -> str:
        return ordered.body.bid.digest(self.domain)
