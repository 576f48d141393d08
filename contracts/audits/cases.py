"""One drawn checkpoint: who replayed it, what they found, and whose word counts. Pure.

The claim is one voice, each replay another. While all agree one is enough. Once two differ, three equal voices settle
it, whoever's they are: with less, one auditor that lies would convict, or one of a liar's own would acquit. The
approver's own replay counts as two voices: it need not trust a stranger.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal

OWN = "own"  # the approver's own machine, in place of an auditor's address
CLAIMED = ""  # in place of a root: the one that was claimed
SETTLED = 3  # equal voices once two differ
SURE = 2  # that are enough when there is no more time
FAILED = "0x" + "ff" * 32  # in place of a root: the recipe fails there, and not from its own start
MOST_ANSWERS = 5  # differing ones, after which no truth is to be had

Outcome = Literal["equal", "differs", "unavailable", "not_covered", "stalled", "failed"]


@dataclass(frozen=True)
class Replayed:
    """What a replay came to. `root`: of one that differs, or FAILED. The last four are no word about the checkpoint:
    bytes could not be had, the machine's class is not covered or not the one that was asked for, nothing came in time,
    an auditor says that the recipe fails. It signs no Claim for that, so nobody is convicted by it, or acquitted.
    """

    outcome: Outcome
    root: str = ""

    def __post_init__(self) -> None:
        if (self.outcome == "differs") != bool(self.root):
            raise ValueError(f"an answer {self.outcome!r} with the root {self.root!r}: a root is told if it differs")


class Ruling(StrEnum):
    OPEN = "open"
    GOOD = "good"
    UNAUDITED = "unaudited"  # approved without a replay, in public
    FALSE = "false"
    HELD = "held"  # words against each other and no time for more, or it only fails: neither approved nor challenged
    UNREPRODUCIBLE = "unreproducible"


@dataclass(frozen=True)
class Case:
    """`answers` by who gave them; the first of each counts. `asked`: all that were asked, in order."""

    asked: tuple[str, ...] = ()
    answers: dict[str, Replayed] = field(default_factory=dict)
    time_is_up: bool = False
    upheld: bool = False  # the arbiter's word, which is above all others
    late: dict[str, str] = field(default_factory=dict)  # by auditor, the root of who came after the decision

    def ask(self, auditor: str) -> "Case":
        return self if auditor in self.asked else replace(self, asked=(*self.asked, auditor))

    def answer(self, auditor: str, answer: Replayed) -> "Case":
        """Only of those that were asked. One that stalled may come after all."""
        before = self.answers.get(auditor)
        if auditor not in self.asked or (before is not None and before.outcome != "stalled"):
            return self
        return replace(self, answers={**self.answers, auditor: answer})

    def answer_late(self, auditor: str, answer: Replayed) -> "Case":
        """Of what is decided it changes nothing; but it is paid for, or challenged, as any other."""
        before = self.answers.get(auditor)
        is_first = (
            auditor in self.asked and auditor not in self.late and (before is None or before.outcome == "stalled")
        )
        if is_first and answer.outcome == "stalled":  # nobody waits for it any more
            return replace(self, answers={**self.answers, auditor: answer})
        if not is_first or answer.outcome not in ("equal", "differs"):
            return self
        return replace(self, late={**self.late, auditor: answer.root or CLAIMED})

    def has_answered(self, auditor: str) -> bool:
        """In time, or after the decision."""
        return auditor in self.answers or auditor in self.late

    @property
    def is_waiting(self) -> bool:
        return any(auditor not in self.answers for auditor in self.asked)

    @cached_property
    def words(self) -> dict[str, str]:
        """By auditor, the root that it found."""
        return {
            auditor: answer.root or CLAIMED
            for auditor, answer in self.answers.items()
            if answer.outcome in ("equal", "differs")
        }

    @property
    def voices(self) -> Counter[str]:
        """By root, with the claim's own."""
        found = Counter({CLAIMED: 1})
        for auditor, root in self.words.items():
            found[root] += 2 if auditor == OWN else 1
        return found

    @cached_property
    def truth(self) -> str | None:
        """The root that this case has come to; None while it is open, or where it came to none."""
        voices, words = self.voices, self.words
        if self.upheld:
            return CLAIMED
        if words and set(words.values()) == {CLAIMED}:
            return CLAIMED
        (root, most), *others = voices.most_common()
        enough = SURE if self.time_is_up else SETTLED
        return root if most >= enough and all(other < most for _, other in others) else None

    @cached_property
    def ruling(self) -> Ruling:
        truth = self.truth
        if truth is not None:
            return Ruling.GOOD if truth == CLAIMED else Ruling.FALSE
        if len(self.words) >= MOST_ANSWERS:
            return Ruling.UNREPRODUCIBLE
        if not self.time_is_up:
            return Ruling.OPEN
        fails = any(answer.outcome == "failed" for answer in self.answers.values())
        return Ruling.HELD if self.words or fails else Ruling.UNAUDITED

    @property
    def right(self) -> tuple[str, ...]:
        """Auditors who are paid: all whose word nothing speaks against. Who comes late has to say what is known."""
        if self.ruling in (Ruling.OPEN, Ruling.HELD):
            return ()
        in_time = (auditor for auditor in self.words if auditor not in (OWN, *self.odd))
        return (*in_time, *(auditor for auditor, root in self.late.items() if root == (self.truth or CLAIMED)))

    @property
    def odd(self) -> tuple[str, ...]:
        """Auditors whose word was not the truth: their own Claims are as signed, and as challengeable."""
        truth = self.truth
        if truth is None:
            return ()
        found = (self.words | self.late).items()
        return tuple(auditor for auditor, root in found if root != truth and auditor != OWN)
