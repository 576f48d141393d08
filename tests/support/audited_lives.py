"""Leases under audit, from the first Claim to the end, by the real draw and decisions; time and chance from a seed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from contracts.audits.auditors import AuditorOffer, draw_auditor
from contracts.audits.cases import OWN, Replayed
from contracts.audits.decision import Audit, audited
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
    ReplayEnded,
    TellUnaudited,
    TimeUp,
    Told,
    WantBlock,
)

Replayer = Callable[[int, str], Replayed]  # what a replay of checkpoint n by this auditor comes to


@dataclass(frozen=True)
class Luck:
    """Chances, at each turn."""

    stall: float = 0  # that one who was asked never answers
    time_up: float = 0  # that an open replay has no more time
    restart: float = 0  # that the approver is killed and begins again from what it wrote down
    early_end: float = 0  # that the lease ends before its time


@dataclass
class AuditedLife:
    """`run` it once; what was done stands in the fields."""

    terms: AuditTerms
    tips: Sequence[str]  # that the provider claims, from checkpoint start + 1 on
    replay: Replayer
    offers: Sequence[AuditorOffer]
    price: int
    rng: Random
    luck: Luck = field(default_factory=Luck)
    events: list[Event] = field(default_factory=list)
    done: list[Action] = field(default_factory=list)
    replays: list[tuple[int, str]] = field(default_factory=list)
    _pending: list[ReplayEnded] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.audit = Audit(self.terms)

    def run(self) -> "AuditedLife":
        while moves := self._moves():
            self.rng.choice(moves)()
            if self._happens(self.luck.restart):
                self.audit = audited(self.terms, self.events)
        return self

    def of(self, kind: type[Action]) -> list[Action]:
        return [action for action in self.done if isinstance(action, kind)]

    @property
    def is_caught(self) -> bool:
        return bool(self.of(Challenge))

    @property
    def troubles(self) -> list[Action]:
        """What an honest life must not have."""
        return [*self.of(Challenge), *self.of(Alarm), *self.of(Accuse), *self.of(TellUnaudited)]

    def _moves(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = [lambda action=action: self._do(action) for action in self.audit.due()]
        found += [lambda answer=answer: self._answer(answer) for answer in self._pending]
        if not self.audit.ended:
            found += [self._claim] if self._may_claim else [] if found else [self._end]
        return found

    @property
    def _may_claim(self) -> bool:
        """An agent stops where more would be unjudged than are approved together, and when it is told to."""
        audit = self.audit
        made = audit.claimed - self.terms.start < len(self.tips)
        room = audit.unjudged < self.terms.verification.approve_every
        return made and room and audit.rejected is None

    def _claim(self) -> None:
        n = self.audit.claimed + 1
        self._record(ClaimTaken(n, self.tips[n - self.terms.start - 1], block=10 * n))
        if self._happens(self.luck.early_end):
            self._end()

    def _end(self) -> None:
        self._record(NoMoreClaims())

    def _answer(self, answer: ReplayEnded) -> None:
        self._pending.remove(answer)
        self._record(answer)

    def _do(self, action: Action) -> None:
        self.done.append(action)
        match action:
            case WantBlock(number):
                block = hashlib.sha256(b"%d" % self.rng.getrandbits(64)).hexdigest()
                self._record(BlockFinal(number, "0x" + block))
            case AskReplay():
                self._ask(action)
            case Approve(n, _, last):
                self._record(ApprovalSigned(n, last))
            case Challenge(n):
                self._record(ChallengeSent(n))
            case _:
                self._record(Told(action))

    def _ask(self, asked: AskReplay) -> None:
        auditor: str | None = OWN
        if not asked.own:
            terms = self.terms
            auditor = draw_auditor(
                terms.secret, terms.lease, asked.n, asked.turn, self.offers, self.price, asked.excluded
            )  # fmt: skip
        if auditor is None or self._happens(self.luck.time_up):
            self._record(TimeUp(asked.n))
            return
        self.replays.append((asked.n, auditor))
        self._record(Asked(asked.n, auditor))
        answer = Replayed("stalled") if self._happens(self.luck.stall) else self.replay(asked.n, auditor)
        self._pending.append(ReplayEnded(asked.n, auditor, answer))

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self.audit.apply(event)

    def _happens(self, chance: float) -> bool:
        return bool(chance) and self.rng.random() < chance
