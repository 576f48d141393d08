"""Providers' and clients' records, from the market's own tables: contracts/chain/reliability.py says what they mean."""

from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import Mapped
from sqlmodel import Session, col, select

from contracts.chain.events import Ended, Resolved
from contracts.chain.reliability import ClientRecord, Record, standing, tier
from contracts.job.provider_wants import Standing
from contracts.terms import Flag, Verdict
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


def stored_client_records(session: Session) -> dict[str, ClientRecord]:
    """Of every client that ever had a lease, as of the newest followed block."""
    client = col(LeaseRow.client)
    paid = func.sum(col(LeaseRow.settled) - col(LeaseRow.start))
    found = {
        who: ClientRecord(paid=settled, leases=leases)
        for who, settled, leases in session.exec(select(client, paid, func.count()).group_by(client))
    }
    is_void = col(ChainEvent.data)["verdict"].as_integer() == Verdict.VOID.value
    for who, void in _leases_with(session, Resolved.__name__, is_void, of=client):
        found[who] = found[who]._replace(void=void)
    return found


def stored_verdicts(session: Session, leases: Collection[str] | None = None) -> dict[str, Verdict]:
    """The newest verdict on each lease that has one; `leases`: on these only."""
    which = select(ChainEvent.lease, ChainEvent.data).where(ChainEvent.name == Resolved.__name__)
    if leases is not None:
        which = which.where(col(ChainEvent.lease).in_(leases))
    rows = session.exec(which.order_by(col(ChainEvent.block_number), col(ChainEvent.log_index)))
    return {lease: Verdict(data["verdict"]) for lease, data in rows if lease is not None}


def _leases_with(
    session: Session, name: str, which: ColumnElement[bool], of: Mapped[str] | None = None
) -> list[tuple[str, int]]:
    """Providers, or another column's parties, and how many of their leases have such an event."""
    party = col(LeaseRow.provider) if of is None else of
    return list(
        session.exec(
            select(party, func.count(func.distinct(LeaseRow.id)))
            .join(ChainEvent, col(ChainEvent.lease) == col(LeaseRow.id))
            .where(ChainEvent.name == name, which)
            .group_by(party)
        )
    )


class Records:
    """Tiers of providers, and standings of clients; counted again when there is a new block."""

    def __init__(self) -> None:
        self._block: str | None = None
        self._tiers: dict[str, int] = {}
        self._standings: dict[str, Standing] = {}

    def look(self, session: Session) -> tuple[Mapping[str, int], Mapping[str, Standing]]:
        """As of the newest followed block. Who is not in it has tier 0, or is UNKNOWN."""
        newest = session.exec(select(ChainBlock.hash).order_by(col(ChainBlock.number).desc()).limit(1)).first()
        if newest is None or newest != self._block:
            self._tiers = {who: tier(record) for who, record in stored_records(session).items()}
            self._standings = {who: standing(record) for who, record in stored_client_records(session).items()}
            self._block = newest
        return self._tiers, self._standings
