"""Chain events as rows of the database, and back."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from sqlmodel import Session, col, select

from contracts.chain import events
from contracts.chain.events import Event, Place, RulesUsed, continued
from contracts.orders import Rules
from market.store.models import ChainEvent


@cache
def _adapter(name: str) -> TypeAdapter[Event]:
    return TypeAdapter(getattr(events, name))


def event_row(event: Event) -> ChainEvent:
    name = type(event).__name__
    at = event.at
    return ChainEvent(
        block_hash=at.block_hash,
        log_index=at.log_index,
        block_number=at.block,
        tx_hash=at.transaction,
        timestamp=at.timestamp,
        name=name,
        lease=getattr(event, "lease", None),
        account=getattr(event, "account", None),
        continues=continued(event),
        data=_adapter(name).dump_python(event, mode="json", exclude={"at"}),
    )


def event_of(row: ChainEvent) -> Event:
    at = Place(row.block_number, row.block_hash, row.log_index, row.tx_hash, row.timestamp)
    fields: dict[str, Any] = {"at": at, **row.data}
    return _adapter(row.name).validate_python(fields)


def used_rules(session: Session, hash: str) -> Rules | None:
    """The rules with this hash, if a lease was opened under them."""
    rows = session.exec(
        select(ChainEvent).where(
            ChainEvent.name == RulesUsed.__name__, col(ChainEvent.data)["hash"].as_string() == hash
        )
    )
    for row in rows:
        event = event_of(row)
        # Bits beyond the types are in the hash, but not in the event.
        if isinstance(event, RulesUsed) and event.rules.struct_hash() == hash:
            return event.rules
    return None


def pages_of(session: Session, addresses: set[str]) -> dict[str, int]:
    """Order pages of those accounts that have ever raised theirs, as of the newest followed block."""
    raised = session.exec(
        select(ChainEvent)
        .where(ChainEvent.name == "PageRaised", col(ChainEvent.account).in_(addresses))
        .order_by(col(ChainEvent.block_number), col(ChainEvent.log_index))
    )
    return {str(event.account): int(event.data["page"]) for event in raised}


@dataclass(frozen=True)
class Head:
    """The newest block that the market has followed."""

    number: int
    timestamp: int  # UTC seconds
    hash: str = ""
