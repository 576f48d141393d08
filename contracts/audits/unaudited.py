"""Whose work nobody audits: two drawn checkpoints were approved without a replay, and none with one since. Pure.

A liar whose numerics class is its own would be paid for ever: nobody can replay what it claims.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

MOST = 2  # approved unaudited, after which a provider gets no further lease while nobody else could audit it

Note = TypeVar("Note")


class AuditedAsk(NamedTuple):
    """An Ask in force under audited rules."""

    id: str
    provider: str
    rules: str  # hash
    numerics: str  # class; empty: not told


class Ruled(NamedTuple, Generic[Note]):
    """An approver's ruling on a checkpoint of a provider."""

    approver: str
    ruling: str
    note: Note  # that shows it


def alone(offered: Iterable[AuditedAsk]) -> set[str]:
    """Ids of Asks of whose class no other provider sells under the same rules: nobody could audit them."""
    by_class: dict[tuple[str, str], list[AuditedAsk]] = defaultdict(list)
    for one in offered:
        by_class[one.rules, one.numerics].append(one)
    return {
        one.id
        for (_, numerics), some in by_class.items()
        if not numerics or len({one.provider for one in some}) == 1
        for one in some
    }


def unaudited(rulings: Iterable[Ruled[Note]]) -> list[Note]:
    """The newest MOST that show it; [] if it is not so. `rulings`: on one provider's work, oldest first.

    Each approver's words count by themselves: one that a liar owns could say `good` at any time.
    """
    since_good: dict[str, list[Note]] = defaultdict(list)
    for one in rulings:
        if one.ruling == "good":
            since_good[one.approver].clear()
        elif one.ruling == "unaudited":
            since_good[one.approver].append(one.note)
    return next((notes[-MOST:] for _, notes in sorted(since_good.items()) if len(notes) >= MOST), [])
