"""The market's database: SQLite in a file by default, PostgreSQL by URL.

Writing sessions take turns: each holds the one lock of the database from its start to its end, so what it has read
is still so when it writes. Never call the chain or the network inside a session.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, event, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, InternalError, OperationalError
from sqlmodel import Session, create_engine

from contracts.errors import UserError
from contracts.program.extras import install_command

BUSY_SECONDS = 30  # how long a writing session waits for its turn
IDLE_SECONDS = 15  # PostgreSQL ends one that does nothing for so long: a paused process must not stop all others
CONNECT_SECONDS = 10
POSTGRESQL = "postgresql+psycopg"
OUTAGE = (OperationalError, InterfaceError, InternalError)  # of a database that is away, or cut us off
_POSTGRESQL = {"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8"}  # whatever PGCLIENTENCODING says
WRITERS = 0x67706D  # key of PostgreSQL's advisory lock of all writing sessions


class Database:
    """Sessions over one engine."""

    def __init__(self, url: str) -> None:
        parsed = parse_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
            self._reader: Engine = self.engine
        else:
            self.engine = create_engine(parsed, pool_pre_ping=True, connect_args=_POSTGRESQL)
            event.listen(self.engine, "begin", _begin_postgresql)
            self._reader = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
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
        with Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    def upgrade(self) -> None:
        """Bring the tables to what the models are. Raises UserError if the database can't be used."""
        try:
            with self._explained():
                self._check_encoding()
                with self.migrating() as config:
                    command.upgrade(config, "head")
        except CommandError as error:
            raise UserError(
                f"the tables of {self.engine.url} are not of this version of gpumarket: {error}",
                "a newer one made them: run that one, or restore a backup from before",
            ) from error

    def check(self) -> None:
        """Raises UserError if there is no market's database that can be read."""
        with self._explained():
            self._check_encoding()
            if not self.exists or not inspect(self.engine).has_table("alembic_version"):
                raise UserError(
                    f"there is no market's database at {self.engine.url}",
                    "give the market's home as GPUMARKET_HOME, or its database_url",
                )

    def _check_encoding(self) -> None:
        """Names and reasons are in any script."""
        if self.is_sqlite:
            return
        with self._reader.connect() as connection:
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise UserError(
                f"the database {self.engine.url} keeps texts as {encoding}, which has not all characters",
                "make one with: createdb --encoding=UTF8 --locale=C --template=template0 NAME; a market that has "
                "a journal fills it with gpumarket market reindex",
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OUTAGE as error:
            raise UserError(
                f"can't use the database {self.engine.url}: {' '.join(str(error.orig).split())}",
                "check that it runs, and the database_url of market.toml or GPUMARKET_MARKET_DATABASE_URL",
            ) from error

    def downgrade(self, revision: str) -> None:
        with self.migrating() as config:
            command.downgrade(config, revision)

    @property
    def folders(self) -> list[Path]:
        """Where it writes on this machine."""
        file = self.engine.url.database
        return [Path(file).absolute().parent] if self.is_sqlite and file else []

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def migrating(self) -> Iterator[Config]:
        """alembic's settings, with a connection to this database that commits at the end."""
        with as_file(files("market.store") / "migrations") as scripts, self._writer.connect() as connection:
            config = Config()
            config.set_main_option("script_location", str(scripts).replace("%", "%%"))
            config.attributes["connection"] = connection
            yield config
            connection.commit()


def parse_url(url: str) -> URL:
    """A URL that SQLAlchemy can open, `postgres://` as other programs write it among them. Raises UserError."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError) as error:
        raise UserError(
            "what is set as the database is not the URL of one"  # not shown: it may have a password in it
            if "@" in url
            else f"{url!r} is not the URL of a database",
            f"such as sqlite:////path/to/market.sqlite3 or {POSTGRESQL}://user:password@host/market",
        ) from error
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise UserError(
                f"the database {url!r} would be in memory, and be lost with the process",
                "give a file: sqlite:////path/to/market.sqlite3",
            )
        return parsed
    if parsed.drivername not in ("postgres", "postgresql", POSTGRESQL):
        raise UserError(
            f"the market can't use a database by {parsed.drivername!r}",
            f"it uses sqlite:////path/to/market.sqlite3 or {POSTGRESQL}://user:password@host/market",
        )
    try:
        import psycopg  # noqa: F401  not there without the extra `market`, or without libpq
    except ImportError as error:
        raise UserError(f"the driver of PostgreSQL can't be loaded: {error}", install_command("market")) from error
    return parsed.set(drivername=POSTGRESQL)


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


def _begin_postgresql(connection: Connection) -> None:
    # READ COMMITTED: each statement sees what is committed when it starts, so all after this one see what the
    # writers before have done. In REPEATABLE READ they would see the database as it was before the wait.
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(
            f"SELECT set_config('lock_timeout', '{BUSY_SECONDS}s', true), "
            f"set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true), "
            f"pg_advisory_xact_lock({WRITERS})"
        )
