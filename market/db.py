"""The market's database: SQLite in a file by default, PostgreSQL by URL.

Never call the chain or the network inside a session: a writing one holds the lock.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlmodel import Session, create_engine

from contracts.errors import UserError

BUSY_SECONDS = 30


class Database:
    """Sessions over one engine.

    SQLite has one writer at a time, so a writing session takes the lock at its start: a reader that becomes
    a writer halfway would fail if somebody wrote in between.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise UserError(
                f"{url!r} is not the URL of a database", "such as sqlite:////path/to/market.sqlite3"
            ) from error
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite and parsed.database in (None, "", ":memory:"):
            raise UserError(
                f"the database {url!r} would be in memory, and be lost with the process",
                "give a file: sqlite:////path/to/market.sqlite3",
            )
        if self.is_sqlite:
            self.engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = create_engine(url, pool_pre_ping=True)
        self._writer: Engine = self.engine.execution_options(writes=True)

    @property
    def exists(self) -> bool:
        """Whether there is anything to read. Looking into a database makes an empty file where SQLite has none."""
        path = self.engine.url.database
        return not self.is_sqlite or path is None or Path(path).is_file()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that may write. Commits at the end, rolls back on an exception."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one moment of the database and never waits for a writer."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    def upgrade(self) -> None:
        """Bring the tables to what the models are."""
        with self.migrating() as config:
            command.upgrade(config, "head")

    def downgrade(self, revision: str) -> None:
        with self.migrating() as config:
            command.downgrade(config, revision)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def migrating(self) -> Iterator[Config]:
        """alembic's settings, with a connection to this database that commits at the end."""
        with as_file(files("market") / "migrations") as scripts, self._writer.connect() as connection:
            config = Config()
            config.set_main_option("script_location", str(scripts).replace("%", "%%"))
            config.attributes["connection"] = connection
            yield config
            connection.commit()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # else the driver begins transactions when it likes
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
