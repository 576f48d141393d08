"""Keeps the market's picture of the chain: follows its blocks, stores their events, folds them to leases.

A lease's row is the fold of its events and nothing else; so after a reorganisation it is folded again from those that
are left, and goes if there are none.
"""

import threading
from collections.abc import Sequence

import requests
import structlog
from sqlalchemy import or_
from sqlmodel import Session, col, delete, select, update
from web3.exceptions import Web3Exception

from contracts.chain.events import Event, Opened
from contracts.chain.follower import KEPT_BLOCKS, BlockRef, Follower, Rollback, Step
from contracts.ledger import Account, Exit, LeaseView, Ledger
from contracts.terms import Phase
from market.chain_events import continued, event_of, event_row
from market.context import Context, Head
from market.db import Database
from market.models import ChainBlock, ChainEvent, LeaseRow, MatchRow

OUTAGE_SECONDS = 5.0  # between attempts while the node does not answer
_PLENTY = 1 << 200
_FINISHED = {Exit.COMPLETE: "completed", Exit.CLOSED: "closed"}

log = structlog.get_logger()


class DatabaseStore:
    """Where the follower stands: the newest blocks in the database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def recent(self) -> Sequence[BlockRef]:
        with self._db.reading() as session:
            newest = select(ChainBlock).order_by(col(ChainBlock.number).desc()).limit(KEPT_BLOCKS)
            rows = session.exec(newest).all()
        return [BlockRef(row.number, row.hash, row.parent) for row in reversed(rows)]


class Leases(Ledger):
    """The ledger of some leases only: what their parties have besides is not looked at."""

    def account(self, owner: str) -> Account:
        return self.accounts.setdefault(owner, Account(free=_PLENTY))


def run(context: Context, stop: threading.Event) -> None:
    """Follow the chain until `stop`. Outages of the node are waited out. Raises HistoryLost."""
    follower = Follower(context.chain, DatabaseStore(context.db))
    restore_head(context)
    while not stop.is_set():
        try:
            pause = 0.0 if follow(context, follower) else context.settings.poll_seconds
        except (requests.RequestException, Web3Exception) as error:
            log.warning("indexer.chain_silent", problem=str(error)[:300])
            pause = OUTAGE_SECONDS
        stop.wait(pause)


def restore_head(context: Context) -> None:
    with context.db.reading() as session:
        row = session.exec(select(ChainBlock).order_by(col(ChainBlock.number).desc()).limit(1)).first()
    if row is not None:
        context.head = Head(row.number, row.timestamp, row.hash)


def follow(context: Context, follower: Follower) -> bool:
    """Apply the next steps. False at the head, as far as the blocks there are confirmed."""
    deepest = context.chain.w3.eth.block_number - context.settings.confirmations
    steps = [step for step in follower.poll() if isinstance(step, Rollback) or step.number <= deepest]
    if not steps:
        context.caught_up.set()
        return False
    with context.db.session() as session:
        apply(session, steps)
    restore_head(context)
    return True


def apply(session: Session, steps: Sequence[Step]) -> None:
    """Store what the steps bring, undo what they undo, and fold every lease that either touched."""
    touched: set[str] = set()
    for step in steps:
        if isinstance(step, Rollback):
            log.warning("indexer.rollback", to_block=step.to_block)
            touched |= _undo(session, step.to_block)
            continue
        session.merge(ChainBlock(number=step.number, hash=step.hash, parent=step.parent, timestamp=step.timestamp))
        for event in step.events:
            session.merge(event_row(event))
            touched |= _leases_of(event)
            if isinstance(event, Opened):
                log.info("indexer.opened", lease=event.lease, bid=event.terms.parties.bid, block=step.number)
        session.flush()
    for lease in sorted(touched):
        refold(session, lease)
    _forget_old_blocks(session)


def rebuild(session: Session) -> int:
    """Fold all leases anew from the stored events. Returns how many there are."""
    session.exec(delete(LeaseRow))
    leases = session.exec(select(ChainEvent.lease).where(col(ChainEvent.lease).is_not(None)).distinct()).all()
    for lease in leases:
        refold(session, str(lease))
    return len(leases)


def forget_chain(session: Session) -> None:
    """Delete all that came from the chain; the next run follows it from the start."""
    for model in (ChainEvent, ChainBlock, LeaseRow):
        session.exec(delete(model))
    session.exec(update(MatchRow).values(lease=None))


def refold(session: Session, lease: str) -> None:
    """Make a lease's row what its events say; delete it if there are none."""
    view = fold(session, lease)
    if view is None:
        session.exec(delete(LeaseRow).where(col(LeaseRow.id) == lease))
        session.exec(update(MatchRow).where(col(MatchRow.lease) == lease).values(lease=None))
        return
    opened = session.exec(select(ChainEvent).where(ChainEvent.lease == lease, ChainEvent.name == Opened.__name__)).one()
    row = lease_row(view, opened)
    session.merge(row)
    session.flush()
    _name_in_match(session, row)


def fold(session: Session, lease: str) -> LeaseView | None:
    """A lease as its events leave it: its own, and the opening of the lease that follows it."""
    rows = session.exec(
        select(ChainEvent)
        .where(or_(col(ChainEvent.lease) == lease, col(ChainEvent.continues) == lease))
        .order_by(col(ChainEvent.block_number), col(ChainEvent.log_index))
    ).all()
    ledger = Leases()
    for row in rows:
        ledger.apply(event_of(row))
    return ledger.leases.get(lease)


def lease_row(view: LeaseView, opened: ChainEvent) -> LeaseRow:
    """A finished lease keeps the numbers and flags with which its money was given out."""
    nums, parties = view.terms.nums, view.terms.parties
    state = view.last._replace(status=Phase.CLOSED | view.last.flags) if view.exit else view.state
    return LeaseRow(
        id=view.id,
        **parties._asdict(),
        **nums._asdict(),
        ask=view.ask,
        provider=view.terms.provider,
        status=int(state.status),
        settled=state.settled,
        accepted=state.accepted,
        claimed=state.claimed,
        t=state.t,
        tip=state.tip_hex,
        start_tip=str(opened.data["tip"]),
        finished=_FINISHED[view.exit] if view.exit else None,
        continuable=view.continuable,
        paid=view.paid,
        fees=view.fees,
        refunded=view.refunded,
        penalty=view.penalty,
        opened_block=opened.block_number,
        opened_tx=opened.tx_hash,
    )


def _undo(session: Session, to_block: int) -> set[str]:
    """Delete blocks above `to_block` and what came from them. Returns the leases that this touches."""
    gone = session.exec(select(ChainEvent).where(ChainEvent.block_number > to_block)).all()
    touched: set[str] = set()
    for row in gone:
        touched |= _leases_of(event_of(row))
        session.delete(row)
    session.flush()
    session.exec(delete(ChainBlock).where(col(ChainBlock.number) > to_block))
    return touched


def _leases_of(event: Event) -> set[str]:
    """The leases whose fold an event is part of."""
    return {lease for lease in (getattr(event, "lease", None), continued(event)) if lease is not None}


def _name_in_match(session: Session, row: LeaseRow) -> None:
    """Tell the match that this lease came from; the clearing may have been killed before it could."""
    match = session.exec(
        select(MatchRow)
        .where(MatchRow.bid == row.bid, MatchRow.ask == row.ask, col(MatchRow.lease).is_(None))
        .order_by(col(MatchRow.epoch).desc())
    ).first()
    named = session.exec(select(MatchRow).where(MatchRow.lease == row.id)).first()
    if match is not None and named is None:
        match.lease = row.id
        match.note = ""
        session.add(match)


def _forget_old_blocks(session: Session) -> None:
    """All but those that a reorganisation could still concern."""
    oldest = session.exec(
        select(ChainBlock.number).order_by(col(ChainBlock.number).desc()).offset(KEPT_BLOCKS - 1).limit(1)
    ).first()
    if oldest is not None:
        session.exec(delete(ChainBlock).where(col(ChainBlock.number) < oldest))
