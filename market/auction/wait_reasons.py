"""Why Bids wait, written where their clients see it."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlmodel import col, select, update

from contracts.job.overrun import Overrun
from market.matching import Reason
from market.runtime.context import Context
from market.store.models import BidRow

ROWS_AT_ONCE = 500
_REASONS = frozenset(map(str, Reason))
_GAVE_BACK = re.compile(r"\d+ providers? gave it back: ")


def wait_reason(bid: str, why: Reason, overruns: Sequence[Overrun | None]) -> str:
    """What a client reads. `overruns`: of providers that gave the Bid back for its work; None: of a sealed text."""
    if not overruns:
        return str(why)
    who = "1 provider" if len(overruns) == 1 else f"{len(overruns)} providers"
    worst = max((one for one in overruns if one), key=lambda one: one.times, default=None)
    what = worst.sentence() if worst else "its steps take far more than the work that was signed"
    said = f"{who} gave it back: {what}; see gpumarket job reprice {bid[:12]}"
    return said if why is Reason.UNITS else f"{why}; {said}"


def is_wait_reason(text: str) -> bool:
    """Whether a clearing left a Bid out for this, and nothing else keeps it waiting: one of `wait_reason`'s texts."""
    return text.partition("; ")[0] in _REASONS or _GAVE_BACK.match(text) is not None


@dataclass
class WaitReasons:
    """Remembers what it has written, so that only what changes is."""

    context: Context
    _told: dict[str, str] = field(default_factory=dict)

    def forget(self) -> None:
        """Another process may have written since."""
        self._told.clear()

    def forget_others(self, bids: Collection[str]) -> None:
        """Bids that are not among these wait no more."""
        self._told = {id: why for id, why in self._told.items() if id in bids}

    def tell(self, reasons: Mapping[str, str]) -> None:
        """By Bid; "" for one that was matched."""
        changed = sorted((id, why) for id, why in reasons.items() if self._told.get(id) != why)
        for at in range(0, len(changed), ROWS_AT_ONCE):
            some = dict(changed[at : at + ROWS_AT_ONCE])
            with self.context.db.reading() as session:
                rows = session.exec(select(BidRow.id, BidRow.wait_reason).where(col(BidRow.id).in_(some))).all()
            if stale := [id for id, why in rows if some[id] != why]:
                with self.context.leading() as session:
                    for id in stale:
                        session.exec(update(BidRow).where(col(BidRow.id) == id).values(wait_reason=some[id]))
            self._told |= some
