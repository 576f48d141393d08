"""A market as one process: the API, and threads that follow the chain, clear the auction and keep leases moving.

On PostgreSQL several such processes may serve together; then the threads work in the one that leads
(market.runtime.leader).
A thread that dies takes the process with it: a market that answers but no longer clears would be worse than none.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog
import uvicorn
from filelock import FileLock, Timeout
from sqlmodel import select

from contracts.chain.client import connect
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.settings import Settings, home
from contracts.wallet import keys
from market.api.app import create_app
from market.api.connections import BoundedProtocol, Connections
from market.auction.clearing import run_clearing
from market.chain.indexer import run_indexer
from market.chain.keeper import run_keeper
from market.chain.replay_reserve import run_replay_reserve
from market.maintenance.retention import run_retention
from market.runtime.context import Context
from market.runtime.leader import RENEW_SECONDS, Alone, Elected
from market.runtime.settings import MarketSettings
from market.store.blobs import BlobStore
from market.store.db import OUTAGE, Database, parse_url
from market.store.models import JournalRow
from market.store.queries.rule_sets import known_rules, offered_rules

STALE_SECONDS = 3600.0  # another process may be writing an upload that is younger
STOP_SECONDS = 5.0  # for threads and open requests, when the process is told to stop

Work = Callable[[Context, threading.Event], None]

log = structlog.get_logger()


def open_context(settings: MarketSettings, chain_settings: Settings, sender: Sender | None = None) -> Context:
    """Connects to the chain and checks it, opens database and blobs. Raises UserError.

    Without `sender`, the matcher's key is decrypted, which may ask for a password.
    """
    chain = connect(chain_settings)
    chain_settings.require("epoch_log")
    rules = offered_rules(chain, chain_settings)
    account = keys.load(keys.choose(settings.key)) if sender is None else sender.account
    db = open_database(settings)
    leadership = Alone() if db.is_sqlite else Elected(db)
    blobs = BlobStore(settings.blob_dir, settings.max_blob_bytes)
    blobs.clear_incoming(0 if db.is_sqlite else STALE_SECONDS)
    context = Context(
        settings=settings,
        chain=chain,
        db=db,
        blobs=blobs,
        matcher=account.address,
        rules=rules,
        rules_by_hash={},
        sender=sender or Sender(chain, account, allowed=lambda: leadership.leads),
        leadership=leadership,
    )
    check_journal(context)
    remember_rules(context)
    return context


def remember_rules(context: Context) -> None:
    """Know by hash all rule-sets that this market has ever offered: leases outlive an operator's change of mind."""
    with context.db.session() as session:
        known = known_rules(session)
        for rules in context.rules.values():
            before = known.get(rules.hash)
            if before is None or (before.name, before.verification) != (rules.name, rules.verification):
                context.accept(session, "rules", rules)
        context.rules_by_hash = known_rules(session)


def check_journal(context: Context) -> None:
    """Raises UserError if the journal has messages that the database was never told of: it is new, or an old copy."""
    with context.db.session() as session:  # in which nobody else writes
        known = session.exec(select(JournalRow.number)).first() or 0
        written = context.journal.reached()
    # The last one may be of a crash before the commit, but no more than that: the next takes its number.
    if written > known + 1:
        raise UserError(
            f"the database {context.db.engine.url} knows {known} messages, the journal in {context.journal.folder} "
            f"has {written}",
            "it is a new one or an old copy: complete it with `gpumarket market reindex`",
        )


@contextmanager
def only_one() -> Iterator[None]:
    """Keeps a second market away from this home. Raises UserError."""
    folder = home() / "market"
    lock = FileLock(folder / "serve.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"a market is running on {folder} already", "stop that one, or give this one its own GPUMARKET_HOME"
        ) from error
    try:
        yield
    finally:
        lock.release()


def open_database(settings: MarketSettings) -> Database:
    url = parse_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = Database(settings.database_url)
    db.upgrade()
    return db


class Server:
    """The API and the threads beside it. `run` blocks until a signal, `halt`, or until a thread dies."""

    def __init__(self, context: Context, works: dict[str, Work]) -> None:
        """Takes the port. UserError if it is not to be had."""
        self.context = context
        self.stop = threading.Event()
        self.dead: str | None = None  # name of the thread that ended before it was told to
        self._socket = _listen(context.settings)
        self._threads = [
            threading.Thread(target=self._guarded, args=(name, work), name=name, daemon=True)
            for name, work in {"leader": stand_for_leader, **works}.items()
        ]
        config = uvicorn.Config(
            create_app(context),
            http=partial(  # type: ignore[arg-type]  # uvicorn only calls it
                BoundedProtocol,
                Connections(context.settings.max_connections, context.settings.max_connections_address),
            ),
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(STOP_SECONDS),
        )
        self._uvicorn = uvicorn.Server(config)

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self) -> int:
        """Returns the exit code: 0 if it was told to stop, 1 if something died."""
        # uvicorn has handlers of its own while it runs, and passes the signal on to these when it has stopped.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: self.halt())
        self.context.leadership.stand()
        for thread in self._threads:
            thread.start()
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            self.stop.set()
            for thread in self._threads:
                thread.join(STOP_SECONDS)
            self._socket.close()
            self._resign()
            self.context.db.close()
        late = [thread.name for thread in self._threads if thread.is_alive()]
        if late:
            log.warning("market.cut_off", threads=late)
        if self.dead is not None:
            log.error("market.died", part=self.dead)
        return 0 if self.dead is None else 1

    def halt(self) -> None:
        """Stop in an orderly way. From any thread."""
        self.stop.set()
        self._uvicorn.should_exit = True

    def _resign(self) -> None:
        """After all that this process has sent as the leader."""
        try:
            self.context.leadership.release()
        except OUTAGE as error:
            log.warning("market.database_silent", problem=str(error.orig)[:300])

    def _guarded(self, name: str, work: Work) -> None:
        try:
            work(self.context, self.stop)
        except UserError as error:
            log.error("market.thread_failed", thread=name, problem=error.message, hint=error.hint)
        except BaseException:
            log.exception("market.thread_failed", thread=name)
        if not self.stop.is_set():
            self.dead = name
            self._uvicorn.should_exit = True


def _listen(settings: MarketSettings) -> socket.socket:
    try:
        return socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
            backlog=2048,
        )
    except OSError as error:
        raise UserError(
            f"can't listen on {settings.host} port {settings.port}: {error.strerror}",
            "choose another with --host and --port; 0 takes a free port",
        ) from error


def works() -> dict[str, Work]:
    """What a market does beside answering: follow the chain, clear, keep, and collect blobs."""
    return {
        "indexer": run_indexer,
        "clearing": run_clearing,
        "keeper": run_keeper,
        "replay_reserve": run_replay_reserve,
        "retention": run_retention,
    }


def stand_for_leader(context: Context, stop: threading.Event) -> None:
    """Stand for leader until `stop`."""
    while not stop.is_set():
        try:
            context.leadership.stand()
        except OUTAGE as error:
            log.warning("leader.database_silent", problem=str(error.orig)[:300])
        stop.wait(RENEW_SECONDS)
