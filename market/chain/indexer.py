"""Keeps the market's picture of the chain: follows its blocks, stores their events, folds them to leases.

A lease's row is the fold of its events and nothing else; so after a reorganisation it is folded again from those that
are left, and goes if there are none.
"""

import threading
import time
from collections.abc import Sequence

import structlog
from sqlalchemy import or_
from sqlmodel import Session, col, delete, select, update

from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY
from contracts.chain.events import EpochPublished, Event, Opened, continued
from contracts.chain.follower import NEAR_BLOCKS, Block, BlockRef, Follower, HistoryLost, Rollback, Step
from contracts.chain.ledger import Account, Exit, LeaseView, Ledger
from contracts.clocks import WORTH_A_WORD
from contracts.finality import KEPT_BLOCKS
from contracts.program.logs import Trouble
from contracts.program.progress_bar import Watch, nobody
from contracts.terms import Phase
from market.runtime.context import Context
from market.runtime.leader import NotLeading
from market.store.db import OUTAGE, Database
from market.store.models import ChainBlock, ChainEvent, EpochRow, LeaseRow, MatchRow
from market.store.queries.events import Head, event_of, event_row
from market.store.queries.reports import judge

OUTAGE_SECONDS = 5.0  # between attempts while the node does not answer
BEHIND_SECONDS = 30  # a follower whose leader is no further behind the chain's head answers
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


def run_indexer(context: Context, stop: threading.Event) -> None:
    """Follow the chain until `stop`, or the leader. Outages of the node are waited out. Raises HistoryLost."""
    follower = Follower(context.chain, DatabaseStore(context.db))
    trouble = Trouble(log)
    while not stop.is_set():
        pause = context.settings.poll_seconds
        try:
            restore_head(context)
            if not context.leads:
                follow_leader(context)
            elif follow(context, follower):
                pause = 0.0
            context.followed = time.monotonic()
            _compare_clocks(context, trouble)
        except NotLeading:
            pass  # since a moment ago
        except OUTAGE as error:
            log.warning("indexer.database_silent", problem=str(error.orig)[:300])
            pause = OUTAGE_SECONDS
        except NODE_AWAY as error:
            log.warning("indexer.chain_silent", problem=str(error)[:300])
            pause = OUTAGE_SECONDS
        except HistoryLost:
            raise
        except Exception:  # a bug, or what nobody thought a node could answer: the others' work need not end with it
            log.exception("indexer.failed")
            pause = OUTAGE_SECONDS
        stop.wait(pause)


def _compare_clocks(context: Context, trouble: Trouble) -> None:
    """A chain without traffic may be far behind; one that is ahead tells of a wrong clock."""
    if context.head.timestamp > time.time() + WORTH_A_WORD:
        trouble.at("clock", "the newest block is from this machine's future: set its clock, or is it the wrong node?")
    else:
        trouble.over("clock")


def restore_head(context: Context) -> None:
    with context.db.reading() as session:
        row = session.exec(select(ChainBlock).order_by(col(ChainBlock.number).desc()).limit(1)).first()
    if row is not None:
        context.head = Head(row.number, row.timestamp, row.hash)


def follow(context: Context, follower: Follower) -> bool:
    """Apply the next steps. False at the head."""
    steps = follower.poll()
    if not steps:
        context.caught_up.set()
        return False
    with context.leading() as session:
        apply_steps(session, steps)
    restore_head(context)
    return True


def follow_leader(context: Context) -> None:
    """Where another process indexes: see whether it has come to the chain's head, or near it."""
    if not context.caught_up.is_set():
        newest = context.chain.w3.eth.get_block("latest")["timestamp"]
        if newest - context.head.timestamp <= BEHIND_SECONDS:
            context.caught_up.set()


def catch_up(
    chain: Chain, db: Database, until: int | None = None, *, near: int = NEAR_BLOCKS, watch: Watch = nobody
) -> None:
    """Follow the chain to its head, or to block `until`, in a database that no indexer works on. Raises HistoryLost.

    `near`: so many of the newest blocks are stored one by one; a database that is only looked at needs none.
    """
    follower = Follower(chain, DatabaseStore(db), near=near)
    end = chain.w3.eth.block_number if until is None else until
    while steps := follower.poll(until):
        with db.session() as session:
            apply_steps(session, steps)
        if isinstance(steps[-1], Block):
            watch("blocks of the chain", steps[-1].number - follower.start, max(0, end - follower.start))


def apply_steps(session: Session, steps: Sequence[Step]) -> None:
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
                log.info("indexer.opened", lease=event.lease, job=event.terms.parties.bid, block=step.number)
        session.flush()
    for lease in sorted(touched):
        refold(session, lease)
    _forget_old_blocks(session)


def refold(session: Session, lease: str) -> None:
    """Make a lease's row what its events say, and its job and match with it; delete it if there are none."""
    before = session.get(LeaseRow, lease)
    row = fold(session, lease)
    if row is not None:
        row = session.merge(row)
        session.flush()
        _name_in_match(session, row)
    elif before is not None:
        session.delete(before)
        session.flush()
        session.exec(update(MatchRow).where(col(MatchRow.lease) == lease).values(lease=None))
    if touched := row or before:
        judge(session, touched.bid)


def fold(session: Session, lease: str) -> LeaseRow | None:
    """A lease as its events leave it: its own, and the opening of the lease that follows it. None: never opened."""
    rows = _events_of(session, lease)
    view = _view(lease, rows)
    if view is None:
        return None
    opened = next(row for row in rows if row.lease == lease and row.name == Opened.__name__)
    return _lease_row(view, opened, rows[-1])


def view_of(session: Session, lease: str) -> LeaseView | None:
    """A lease with what its row does not hold: the pending roots, and the dispute."""
    return _view(lease, _events_of(session, lease))


def _events_of(session: Session, lease: str) -> Sequence[ChainEvent]:
    return session.exec(
        select(ChainEvent)
        .where(or_(col(ChainEvent.lease) == lease, col(ChainEvent.continues) == lease))
        .order_by(col(ChainEvent.block_number), col(ChainEvent.log_index))
    ).all()


def _view(lease: str, rows: Sequence[ChainEvent]) -> LeaseView | None:
    ledger = Leases()
    for row in rows:
        ledger.apply(event_of(row))
    return ledger.leases.get(lease)


def _lease_row(view: LeaseView, opened: ChainEvent, newest: ChainEvent) -> LeaseRow:
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
        changed_block=newest.block_number,
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
    """Name the lease in the match that it came from: the newest whose epoch was published before it was opened."""
    matches = session.exec(
        select(MatchRow, EpochRow)
        .join(EpochRow, col(EpochRow.number) == MatchRow.epoch)
        .where(MatchRow.bid == row.bid, MatchRow.ask == row.ask)
        .order_by(col(MatchRow.epoch).desc())
    ).all()
    for match, epoch in matches:
        if match.lease == row.id or _published(session, epoch, row.opened_block):
            match.lease = row.id
            session.add(match)
            return


def _published(session: Session, epoch: EpochRow, until: int) -> bool:
    """Whether an epoch's order set is on chain, in block `until` or before."""
    rows = session.exec(
        select(ChainEvent).where(
            ChainEvent.name == EpochPublished.__name__,
            # The number is looked at here: other markets' may be higher than what databases take for an integer.
            col(ChainEvent.data)["order_set_root"].as_string() == epoch.order_root,
            ChainEvent.block_number <= until,
        )
    ).all()
    return any(row.data["epoch"] == epoch.number for row in rows)


def _forget_old_blocks(session: Session) -> None:
    """All but those that a reorganisation could still concern."""
    oldest = session.exec(
        select(ChainBlock.number).order_by(col(ChainBlock.number).desc()).offset(KEPT_BLOCKS - 1).limit(1)
    ).first()
    if oldest is not None:
        session.exec(delete(ChainBlock).where(col(ChainBlock.number) < oldest))
