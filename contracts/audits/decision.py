"""An approver's audit of one lease: what is due, from what has happened. Pure; a fold, so a restart forgets nothing.

`Audit.apply` takes an event, `Audit.due` tells the actions that stand out. Whoever performs them reports it by an event
(Asked, ApprovalSigned, ChallengeSent, Told), so an action is due until it is done, and once. Claims come in here when
their bytes are there and hash to what was claimed: that check is the approver's, as before.

- The first Claim of a checkpoint binds. Another one is refused, and stays evidence.
- A batch is approved when all that was drawn of it is judged, and none of it before.
- What was rejected is never approved, nor anything built on it; and it is challenged again when it is claimed again.
  But the arbiter's word is above all replays: what it finds true is approved, and whoever said otherwise is accused.
- Who replays n sees neither n-1's nor n+1's answer from within: neighbours exclude each other's auditors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from contracts.audits import draw
from contracts.audits.cases import OWN, Case, Ruling
from contracts.audits.events import (
    Accuse,
    Action,
    Alarm,
    ApprovalSigned,
    Approve,
    Asked,
    AskReplay,
    AuditTerms,
    BlockFinal,
    Challenge,
    ChallengeSent,
    ClaimTaken,
    Event,
    NoMoreClaims,
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


@dataclass
class Audit:
    """One lease. Make it anew from all of its events after a restart: `audited`."""

    terms: AuditTerms
    claims: dict[int, ClaimTaken] = field(default_factory=dict)
    refused: dict[tuple[int, str], None] = field(default_factory=dict)  # second Claims, in order
    batches: list[draw.Batch] = field(default_factory=list)  # those that were drawn from
    drawn: tuple[int, ...] = ()
    cases: dict[int, Case] = field(default_factory=dict)  # of the drawn ones
    blocks: dict[int, str] = field(default_factory=dict)
    ended: bool = False
    approved: int = -1  # the highest; -1: start
    closed: bool = False  # approved as the last
    rejected: int | None = None  # the lowest
    challenge_due: bool = False
    told: frozenset[Action] = frozenset()

    def __post_init__(self) -> None:
        if self.approved < 0:
            self.approved = self.terms.start

    def copy(self) -> "Audit":
        """Another one that goes its own way."""
        return Audit(
            self.terms, dict(self.claims), dict(self.refused), list(self.batches), self.drawn, dict(self.cases),
            dict(self.blocks), self.ended, self.approved, self.closed, self.rejected, self.challenge_due, self.told,
        )  # fmt: skip

    # -------------------------------------------------------------- events

    def apply(self, event: Event) -> None:
        """The same twice changes nothing. Raises ValueError for a Claim beyond the next, or outside the lease."""
        match event:
            case ClaimTaken():
                self._claim(event)
            case BlockFinal(number, hash):
                self.blocks.setdefault(number, hash)
            case NoMoreClaims():
                self.ended = True
            case Asked(n, auditor) if n in self.cases:
                self.cases[n] = self.cases[n].ask(auditor)
            case ReplayEnded(n, auditor, answer) if self._is_undecided(n):
                self.cases[n] = self.cases[n].answer(auditor, answer)
            case ReplayEnded(n, auditor, answer) if n in self.cases:
                self.cases[n] = self.cases[n].answer_late(auditor, answer)
            case TimeUp(n) if n in self.cases and self.cases[n].ruling is Ruling.OPEN:
                self.cases[n] = replace(self.cases[n], time_is_up=True)
            case ApprovalSigned(n, last):
                self.approved, self.closed = max(self.approved, n), self.closed or last
            case ChallengeSent(n) if n == self.rejected:
                self.challenge_due = False
            case Upheld(n) if n in self.cases:
                self.cases[n] = replace(self.cases[n], upheld=True)
                if self.rejected == n:
                    self.rejected, self.challenge_due = None, False
            case Told(action):
                self.told |= {action}
            case OnChain(tips):
                self._seen_on_chain(tips)
        self._draw()
        self._judge()

    def _claim(self, claim: ClaimTaken) -> None:
        known = self.claims.get(claim.n)
        if known is not None and known.tip == claim.tip:
            return
        if not self.terms.start < claim.n <= self.terms.end:
            raise ValueError(f"checkpoint {claim.n} is not of this lease, {self.terms.start + 1} to {self.terms.end}")
        if known is not None or self._takes_no_more:
            self.refused[claim.n, claim.tip] = None
            return
        if claim.n != self.claimed + 1:
            raise ValueError(f"checkpoint {claim.n} is claimed, and {self.claimed + 1} was not yet")
        self.claims[claim.n] = claim

    def _seen_on_chain(self, tips: Mapping[int, str]) -> None:
        if self.rejected is not None and tips.get(self.rejected) == self.claims[self.rejected].tip:
            self.challenge_due = True

    def _draw(self) -> None:
        while (batch := self._next_batch()) and (block := self.blocks.get(batch[-1].block + 1)):
            verification = self.terms.verification
            closed = draw.Batch(tuple(draw.Drawable(one.n, one.tip) for one in batch), block)
            found = draw.drawn(
                self.terms.secret, self.terms.lease, closed, verification.share_ppm, verification.approve_every
            )
            self.batches.append(closed)
            self.drawn += found
            for n in found:
                self.cases.setdefault(n, Case())

    def _judge(self) -> None:
        false = min((n for n, case in self.cases.items() if case.ruling is Ruling.FALSE), default=None)
        if false is not None and (self.rejected is None or false < self.rejected):
            self.rejected, self.challenge_due = false, True

    # -------------------------------------------------------------- state

    @property
    def claimed(self) -> int:
        """The highest checkpoint whose Claim was taken."""
        return max(self.claims, default=self.terms.start)

    @property
    def unjudged(self) -> int:
        """Checkpoints behind the provider that may still go unpaid; at `approve_every` an agent stops and claims on
        chain.
        """
        return self.claimed - self.approved

    @property
    def _takes_no_more(self) -> bool:
        return self.ended or self.rejected is not None or self._is_given_up

    @property
    def _is_given_up(self) -> bool:
        return self.terms.verification.unreproducible == "end" and self._unreproducible is not None

    @property
    def _unreproducible(self) -> int | None:
        return min((n for n, case in self.cases.items() if case.ruling is Ruling.UNREPRODUCIBLE), default=None)

    def _next_batch(self) -> list[ClaimTaken]:
        """The Claims that are to be drawn from next, if they are all there."""
        begun = self.batches[-1].claims[-1].n if self.batches else self.terms.start
        whole = begun + self.terms.verification.approve_every
        last = min(whole, self.claimed)
        is_closed = last == whole or self.ended or last == self.terms.end
        return [self.claims[n] for n in range(begun + 1, last + 1)] if is_closed else []

    def _is_undecided(self, n: int) -> bool:
        """Whether a further answer counts. What is decided stays: a late word changes no Approval and no Rejection."""
        open_ones = (Ruling.OPEN, Ruling.HELD, Ruling.UNAUDITED)
        return n in self.cases and n > self.approved and self.cases[n].ruling in open_ones

    @property
    def _goes_on_unaudited(self) -> bool:
        return self._unreproducible is not None and not self._is_given_up

    def _passes(self, n: int) -> bool:
        """Whether a drawn checkpoint may be approved."""
        ruling = self.cases[n].ruling
        if self._goes_on_unaudited and ruling in (Ruling.OPEN, Ruling.HELD, Ruling.UNREPRODUCIBLE):
            return True
        return ruling in (Ruling.GOOD, Ruling.UNAUDITED)

    # -------------------------------------------------------------- actions

    def due(self) -> list[Action]:
        """All that stands out, in the order in which it is to be done."""
        found: list[Action] = [*self._challenges(), *self._approvals(), *self._words()]
        if (batch := self._next_batch()) and self.rejected is None:
            found.append(WantBlock(batch[-1].block + 1))
        if self._unreproducible is None:
            found += self._replays()
        return [action for action in found if action not in self.told]

    def _challenges(self) -> Iterable[Action]:
        if self.rejected is None:
            return
        n, tip = self.rejected, self.claims[self.rejected].tip
        if self.challenge_due:  # before its maker is told: what it has shown must stay for the arbiter to look at
            yield Challenge(n, tip, self.cases[n].truth or "")
        else:
            yield Reject(n, tip)

    def _approvals(self) -> Iterable[Action]:
        if self.closed:
            return
        reached, is_last = self.terms.start, False
        for batch in self.batches:
            if not all(self._passes(one.n) for one in batch.claims if one.n in self.cases):
                is_last = self._is_given_up and self._unreproducible in [one.n for one in batch.claims]
                break
            reached = batch.claims[-1].n
        is_last = is_last or (self.ended and reached == self.claimed)
        if reached > self.approved or is_last:
            tip = self.claims[reached].tip if reached in self.claims else self.terms.start_tip
            yield Approve(reached, tip, is_last)

    def _words(self) -> Iterable[Action]:
        yield from (Refuse(n, tip) for n, tip in self.refused)
        for n, case in sorted(self.cases.items()):
            yield from (Accuse(n, auditor) for auditor in case.odd)
            if case.ruling is Ruling.UNAUDITED:
                yield TellUnaudited(n)
            elif case.ruling is Ruling.UNREPRODUCIBLE:
                yield TellUnreproducible(n, self._is_given_up)
            elif case.ruling is Ruling.HELD:
                yield Alarm(
                    n,
                    f"replays of checkpoint {n} disagree or fail, and nobody is left to ask in time: it is neither "
                    "approved nor challenged; replay it yourself, and challenge it before its window ends if it is "
                    "false",
                )

    def _replays(self) -> Iterable[Action]:
        """At most one at a time of each checkpoint. Of those after a rejected one nothing is asked any more."""
        for n, case in sorted(self.cases.items()):
            is_void = self.rejected is not None and n > self.rejected
            if case.ruling is not Ruling.OPEN or case.is_waiting or is_void:
                continue
            own = self.terms.has_own and OWN not in case.asked
            yield AskReplay(n, len(case.asked), own, self._excluded(n))

    def _excluded(self, n: int) -> frozenset[str]:
        near = [self.cases[m].asked for m in (n - 1, n, n + 1) if m in self.cases]
        asked = {auditor for them in near for auditor in them if auditor != OWN}
        return frozenset({self.terms.provider, *self.terms.parties, *asked})


def audited(terms: AuditTerms, events: Iterable[Event]) -> Audit:
    """The audit after all of its events, as after a restart."""
    audit = Audit(terms)
    for event in events:
        audit.apply(event)
    return audit
