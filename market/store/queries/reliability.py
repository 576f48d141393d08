"""Providers' records, from the market's own tables: contracts/chain/reliability.py says what they mean."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select

from contracts.chain.events import Ended, Resolved
from contracts.chain.ledger import Verdict
from contracts.chain.reliability import Record, tier
from contracts.terms import Flag
from market.store.models import ChainBlock, ChainEvent, LeaseRow


def stored_records(session: Session) -> dict[str, Record]:
    """Of every provider that ever had a lease, as of the newest followed block."""
    provider = col(LeaseRow.provider)
    paid = func.sum(col(LeaseRow.settled) - col(LeaseRow.start))
    found = {
        who: Record(accepted=accepted, leases=leases)
        for who, accepted, leases in session.exec(select(provider, paid, func.count()).group_by(provider))
    }
    is_late = col(ChainEvent.data)["status"].as_integer().bitwise_and(Flag.LATE.value) != 0
    for who, late in _leases_with(session, Ended.__name__, is_late):
        found[who] = found[who]._replace(late=late)
    verdict = col(ChainEvent.data)["verdict"].as_integer()
    for who, convicted in _leases_with(session, Resolved.__name__, verdict == Verdict.FALSE.value):
        found[who] = found[who]._replace(convicted=convicted)
    for who, void in _leases_with(session, Resolved.__name__, verdict == Verdict.VOID.value):
        found[who] = found[who]._replace(void=void)
    return found


def _leases_with(session: Session, name: str, which: ColumnElement[bool]) -> list[tuple[str, int]]:
    """Providers, and how many of their leases have such an event."""
    provider = col(LeaseRow.provider)
    return list(
        session.exec(
            select(provider, func.count(func.distinct(LeaseRow.id)))
            .join(ChainEvent, col(ChainEvent.lease) == col(LeaseRow.id))
            .where(ChainEvent.name == name, which)
            .group_by(provider)
        )
    )


class Tiers:
    """Of each provider; counted again when there is a new block."""

    def __init__(self) -> None:
        self._block: str | None = None
        self._tiers: dict[str, int] = {}

    def look(self, session: Session) -> Mapping[str, int]:
        """As of the newest followed block. Who is not in it has tier 0."""
        newest = session.exec(select(ChainBlock.hash).order_by(col(ChainBlock.number).desc()).limit(1)).first()
        if newest is None or newest != self._block:
            self._block, self._tiers = newest, {who: tier(record) for who, record in stored_records(session).items()}
        return self._tiers
