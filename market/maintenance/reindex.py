"""Makes the database anew from the journal, the blobs and the chain, beside the one there is; compares; replaces."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, and_, text
from sqlmodel import Session, SQLModel, col, func, select

from contracts.chain.client import Chain
from contracts.chain.follower import NEAR_BLOCKS
from contracts.errors import UserError, first_sentence
from contracts.program.progress_bar import Watch, nobody
from market.chain import indexer
from market.runtime import leader
from market.runtime.leader import Leadership
from market.services.blobs import blob_row
from market.store import apply
from market.store.audit_notes import AuditNoteRow
from market.store.blobs import BlobStore
from market.store.db import Database
from market.store.journal import FOLDER, BadMessage, Journal, Message
from market.store.models import AnswerRow, BlobRow, ChainBlock, ChainEvent, JournalRow, LeaderRow, LeaseRow, ReportRow

# What processes write for each other, or to spare themselves work: nothing is lost with it.
NOT_REBUILT: set[str] = {AnswerRow.__tablename__, LeaderRow.__tablename__}
FROM_CHAIN_AND_FILES = {model.__tablename__ for model in (ChainBlock, ChainEvent, LeaseRow, BlobRow)}
CACHES = {  # columns
    "bid": {"wait_reason"},  # the next clearing writes it
    "blob": {"created"},  # the file's time, which a backup may not keep
}
ROWS_AT_ONCE = 500

Key = tuple[Any, ...]
Row = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """A row as it is, and as it was made anew; None: it isn't there."""

    table: Table
    key: Key
    before: Row | None
    after: Row | None

    def __str__(self) -> str:
        what = f"{self.table.name} {'/'.join(map(str, self.key))}"
        if self.before is None:
            return f"{what} is missing"
        if self.after is None:
            return f"{what} is neither in the journal nor on chain"
        changed = (name for name in self.after if self.before[name] != self.after[name])
        return f"{what}: {', '.join(f'{name} is {self.before[name]}, not {self.after[name]}' for name in changed)}"


@contextmanager
def scratch() -> Iterator[Database]:
    """An empty database that goes when it is left."""
    with tempfile.TemporaryDirectory(prefix="gpumarket-reindex-") as folder:
        made = Database(f"sqlite:///{folder}/new.sqlite3")
        made.upgrade()
        try:
            yield made
        finally:
            made.close()


@contextmanager
def as_only_market(db: Database) -> Iterator[Leadership]:
    """Keeps other processes from leading a market on this database. Raises UserError if one does."""
    leadership: Leadership = leader.Alone() if db.is_sqlite else leader.Elected(db)
    leadership.stand()
    if not leadership.leads:
        raise UserError(f"a market is running on {db.engine.url}", "stop all its processes first")
    try:
        yield leadership
    finally:
        leadership.release()


def build(
    new: Database,
    chain: Chain,
    journal: Journal,
    blobs: BlobStore,
    until: int | None = None,
    *,
    newest: str = "",
    near: int = NEAR_BLOCKS,
    watch: Watch = nobody,
) -> list[BadMessage]:
    """Fill an empty database: as it is at block `until`, or at the chain's head. `near` as for `catch_up`.

    `newest`: the id of the last accepted message, if that is known. Returns the messages that are left out, since they
    can't be read. Raises UserError.
    """
    watch("reading the journal")
    bad: list[BadMessage] = []
    accepted = journal.read(newest, bad)
    with new.session() as session:
        for done, message in enumerate(accepted):
            if (problem := _apply(session, chain, message)) is not None:
                bad.append(BadMessage(f"message {message.number or '-'} ({message.kind} {message.id})", problem))
            apply.remember(session, message)
            watch("messages of the journal", done, len(accepted))
        for done, (sha256, size) in enumerate(blobs.all()):
            session.add(blob_row(blobs, sha256, size))
            watch("blobs", done)
    indexer.catch_up(chain, new, until, near=near, watch=watch)
    return bad


def _apply(session: Session, chain: Chain, message: Message) -> str | None:
    """Why a message can't be applied, and then it leaves nothing behind; None if it was."""
    try:
        with session.begin_nested():
            apply.apply(session, chain.domain, message)
    except (ValueError, KeyError, TypeError) as error:
        return first_sentence(error)
    return None


def height(db: Database) -> int | None:
    """The newest block that a database knows."""
    with db.reading() as session:
        return session.exec(select(func.max(ChainBlock.number))).one()


def newest_message(db: Database) -> str:
    """The id of the newest message that a database knows; empty if it knows of none."""
    with db.reading() as session:
        return session.exec(select(JournalRow.message)).first() or ""


def newest_number(db: Database) -> int:
    """How many messages a database knows."""
    with db.reading() as session:
        return session.exec(select(JournalRow.number)).first() or 0


def tables() -> list[Table]:
    """Those that are rebuilt, each after those that it refers to."""
    return [table for table in SQLModel.metadata.sorted_tables if table.name not in NOT_REBUILT]


def look(
    db: Database, chain: Chain, blobs: BlobStore, watch: Watch = nobody
) -> tuple[list[Difference], list[BadMessage]]:
    """What differs from a database that is made anew, as of the newest block that this one knows; and the messages
    that can't be read.
    """
    with scratch() as new:
        journal = Journal(blobs.folder / FOLDER)
        bad = build(new, chain, journal, blobs, until=height(db), newest=newest_message(db), near=0, watch=watch)
        return compare(db, new, watch), bad


def count(db: Database) -> dict[str, int]:
    """Rows of each table."""
    with db.reading() as session:
        return {table.name: session.execute(select(func.count()).select_from(table)).scalar_one() for table in tables()}


def compare(old: Database, new: Database, watch: Watch = nobody) -> list[Difference]:
    """All tables, row by row."""
    found: list[Difference] = []
    with old.reading() as before, new.reading() as after:
        for done, table in enumerate(tables()):
            watch("tables compared", done, len(tables()))
            found += _compare(table, _rows(before, table), _rows(after, table))
    return found


def _compare(table: Table, before: dict[Key, Row], after: dict[Key, Row]) -> list[Difference]:
    if table.name == ChainBlock.__tablename__:
        # Where the follower stands: how many blocks it knows below depends on how it got there.
        before = {key: row for key, row in before.items() if key in after or key > max(after, default=())}
        after = {key: row for key, row in after.items() if key in before or key > max(before, default=())}
    for name in CACHES.get(table.name, ()):
        for key in before.keys() & after.keys():
            after[key][name] = before[key][name]
    return [
        Difference(table, key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def mend(old: Database, differences: list[Difference]) -> list[Difference]:
    """Make rows what they should be, where they are still as they were seen. Returns those that were mended."""
    order = {table: at for at, table in enumerate(tables())}
    mended = []
    with old.session() as session:
        for one in sorted(differences, key=lambda one: order[one.table]):
            is_it = and_(*(column == value for column, value in zip(one.table.primary_key, one.key, strict=True)))
            found = session.execute(one.table.select().where(is_it)).mappings().one_or_none()
            if (None if found is None else dict(found)) != one.before:
                continue  # it has changed since
            if one.after is None:
                session.execute(one.table.delete().where(is_it))
            elif one.before is None:
                session.execute(one.table.insert(), one.after)
            else:
                session.execute(one.table.update().where(is_it).values(one.after))
            mended.append(one)
    return mended


def replace(old: Database, new: Database, leadership: Leadership, watch: Watch = nobody) -> None:
    """Make the old one what the new one is, in one transaction. Raises NotLeading if a market runs on it."""
    with old.session() as target, new.reading() as source:
        leadership.fence(target)
        for table in reversed(tables()):
            target.execute(table.delete())
        for done, table in enumerate(tables()):
            watch("tables replaced", done, len(tables()))
            rows = list(_rows(source, table).values())
            for at in range(0, len(rows), ROWS_AT_ONCE):
                target.execute(table.insert(), rows[at : at + ROWS_AT_ONCE])
        if not old.is_sqlite:  # whose own counter goes on from the highest id
            for model in (ReportRow, AuditNoteRow):
                highest = target.exec(select(func.max(col(model.id)))).one()
                target.execute(
                    text("SELECT setval(pg_get_serial_sequence(:table, 'id'), :last, :used)"),
                    {"table": model.__tablename__, "last": highest or 1, "used": highest is not None},
                )


def _rows(session: Session, table: Table) -> dict[Key, Row]:
    keys = [column.name for column in table.primary_key]
    rows: Iterator[Row] = (dict(row) for row in session.execute(table.select()).mappings())
    return {tuple(row[key] for key in keys): row for row in rows}
