"""Why Bids wait, written where their clients see it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlmodel import col, select, update

from market.runtime.context import Context
from market.store.models import BidRow

ROWS_AT_ONCE = 500


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
