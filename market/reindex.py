"""Makes the database anew from the journal, the blobs and the chain, beside the one there is; compares; replaces."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, text
from sqlmodel import Session, SQLModel, col, func, select

from contracts.chain.client import Chain
from contracts.errors import UserError
from market import indexer, leader, messages
from market.blobs import BlobStore
from market.db import Database
from market.journal import Journal
from market.leader import Leadership
from market.models import ChainBlock, LeaderRow, ReportRow
from market.services.blobs import blob_row

# What processes write for each other, or to spare themselves work: nothing is lost with it.
NOT_REBUILT: set[str] = {LeaderRow.__tablename__}
CACHES = {"bid": {"wait_reason"}}  # columns; the next clearing writes them
ROWS_AT_ONCE = 500

Key = tuple[Any, ...]
Row = dict[str, Any]


@dataclass
class Difference:
    """One table: how it is, against how it was made anew."""

    table: str
    rows: int  # in the new one
    missing: list[Key] = field(default_factory=list)
    unknown: list[Key] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        keys = [(key, "is missing") for key in self.missing]
        keys += [(key, "is neither in the journal nor on chain") for key in self.unknown]
        return [f"{self.table} {_shown(key)} {what}" for key, what in keys] + self.changed


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
def alone(db: Database) -> Iterator[Leadership]:
    """Keeps other processes from leading a market on this database. Raises UserError if one does."""
    leadership: Leadership = leader.Alone() if db.is_sqlite else leader.Elected(db)
    leadership.stand()
    if not leadership.leads:
        raise UserError(f"a market is running on {db.engine.url}", "stop all its processes first")
    try:
        yield leadership
    finally:
        leadership.release()


def build(new: Database, chain: Chain, journal: Journal, blobs: BlobStore, until: int | None = None) -> None:
    """Fill an empty database: as it is at block `until`, or at the chain's head. Raises UserError."""
    with new.session() as session:
        for message in journal.read():
            messages.apply(session, chain.domain, message)
        session.add_all(blob_row(blobs, sha256, size) for sha256, size in blobs.all())
    indexer.catch_up(chain, new, until)


def height(db: Database) -> int | None:
    """The newest block that a database knows."""
    with db.reading() as session:
        return session.exec(select(func.max(ChainBlock.number))).one()


def tables() -> list[Table]:
    """Those that are rebuilt, each after those that it refers to."""
    return [table for table in SQLModel.metadata.sorted_tables if table.name not in NOT_REBUILT]


def compare(old: Database, new: Database) -> list[Difference]:
    """All tables, row by row."""
    with old.reading() as before, new.reading() as after:
        return [_compare(table, _rows(before, table), _rows(after, table)) for table in tables()]


def _compare(table: Table, before: dict[Key, Row], after: dict[Key, Row]) -> Difference:
    if table.name == ChainBlock.__tablename__:
        # Where the follower stands: how many blocks it knows below depends on how it got there.
        before = {key: row for key, row in before.items() if key in after or key > max(after, default=())}
        after = {key: row for key, row in after.items() if key in before or key > max(before, default=())}
    missing, unknown = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    found = Difference(table.name, len(after), missing, unknown)
    skipped = CACHES.get(table.name, set())
    for key in sorted(before.keys() & after.keys()):
        for column, value in after[key].items():
            if column not in skipped and before[key][column] != value:
                found.changed.append(f"{table.name} {_shown(key)}: {column} is {before[key][column]}, and not {value}")
    return found


def replace(old: Database, new: Database, leadership: Leadership) -> None:
    """Make the old one what the new one is, in one transaction. Raises NotLeading if a market runs on it."""
    with old.session() as target, new.reading() as source:
        leadership.fence(target)
        for table in reversed(tables()):
            target.execute(table.delete())
        for table in tables():
            rows = list(_rows(source, table).values())
            for at in range(0, len(rows), ROWS_AT_ONCE):
                target.execute(table.insert(), rows[at : at + ROWS_AT_ONCE])
        if not old.is_sqlite:  # whose own counter goes on from the highest id
            highest = target.exec(select(func.max(col(ReportRow.id)))).one()
            target.execute(
                text("SELECT setval(pg_get_serial_sequence('report', 'id'), :last, :used)"),
                {"last": highest or 1, "used": highest is not None},
            )


def _rows(session: Session, table: Table) -> dict[Key, Row]:
    keys = [column.name for column in table.primary_key]
    rows: Iterator[Row] = (dict(row) for row in session.execute(table.select()).mappings())
    return {tuple(row[key] for key in keys): row for row in rows}


def _shown(key: Key) -> str:
    return "/".join(map(str, key))
