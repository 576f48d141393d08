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
MOST_ANSWERS = 5  # differing ones, after which no truth is to be had

Outcome = Literal["equal", "differs", "unavailable", "not_covered", "stalled"]


@dataclass(frozen=True)
class Replayed:
    """What a replay came to. `root`: of one that differs. The last three are no word about the checkpoint: bytes could
    not be had, the machine's class is not covered or not the one that was asked for, nothing came in time.
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
    HELD = "held"  # two words against each other, and no time for a third: neither approved nor challenged
    UNREPRODUCIBLE = "unreproducible"


@dataclass(frozen=True)
class Case:
    """`answers` by who gave them; the first of each counts. `asked`: all that were asked, in order."""

    asked: tuple[str, ...] = ()
    answers: dict[str, Replayed] = field(default_factory=dict)
    time_is_up: bool = False

    def ask(self, auditor: str) -> "Case":
        return self if auditor in self.asked else replace(self, asked=(*self.asked, auditor))

    def answer(self, auditor: str, answer: Replayed) -> "Case":
        """Only of those that were asked. One that stalled may come after all."""
        before = self.answers.get(auditor)
        if auditor not in self.asked or (before is not None and before.outcome != "stalled"):
            return self
        return replace(self, answers={**self.answers, auditor: answer})

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
        return Ruling.HELD if self.words else Ruling.UNAUDITED

    @property
    def odd(self) -> tuple[str, ...]:
        """Auditors whose word was not the truth: their own Claims are as signed, and as challengeable."""
        truth = self.truth
        if truth is None:
            return ()
        return tuple(auditor for auditor, root in self.words.items() if root != truth and auditor != OWN)
