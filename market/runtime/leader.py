"""Which of several market processes leads: it alone follows the chain, clears, keeps leases moving, and sends.

With PostgreSQL the leader holds a row until a moment of the database's clock, which it puts off again and again. Who
takes the row over when that has passed counts its `term` up. A leader that was paused meanwhile finds another term
there than its own: each of its writing transactions looks, and it looks before each transaction that it sends.
"""

import os
import socket
import threading
import time
from datetime import timedelta
from typing import Protocol

import structlog
from sqlalchemy import func
from sqlmodel import Session, col, select, update

from contracts.errors import UserError
from market.store.db import Database
from market.store.models import LeaderRow

LEASE_SECONDS = 5.0  # without a renewal, after which another process takes over
RENEW_SECONDS = 1.0

log = structlog.get_logger()


class NotLeading(UserError):
    """Another process leads, or the database does not answer, so that nobody can tell."""

    def __init__(self) -> None:
        super().__init__("this market's process does not lead (any more)", "another one goes on; nothing is lost")


class Leadership(Protocol):
    @property
    def leads(self) -> bool:
        """Whether this process leads, as far as it knows."""

    def confirm(self) -> None:
        """Look in the database, and renew: nobody else leads for the next LEASE_SECONDS. Raises NotLeading."""

    def fence(self, session: Session) -> None:
        """Within a writing session: no other process has led since this one did. Raises NotLeading."""

    def stand(self) -> None:
        """Renew, or take over if nobody leads."""

    def release(self) -> None:
        """Let another one lead at once."""


class Alone:
    """With SQLite: one process, which `only_one` sees to."""

    leads = True

    def confirm(self) -> None:
        pass

    def fence(self, session: Session) -> None:
        pass

    def stand(self) -> None:
        pass

    def release(self) -> None:
        pass


class Elected:
    """One of several processes on a PostgreSQL. Threads may share it."""

    def __init__(self, db: Database, seconds: float = LEASE_SECONDS) -> None:
        self._db = db
        self._lease = timedelta(seconds=seconds)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._lock = threading.Lock()
        self._term: int | None = None
        self._until = 0.0  # of `_clock`

    @property
    def leads(self) -> bool:
        return self._term is not None and _clock() < self._until

    def confirm(self) -> None:
        with self._lock:
            if not self._renew():
                raise NotLeading

    def fence(self, session: Session) -> None:
        # Taking over is a writing session too, so none can come before the end of this one.
        term = self._term
        if term is None or session.exec(select(LeaderRow.term)).first() != term:
            raise NotLeading

    def stand(self) -> None:
        with self._lock:
            if not self._renew() and self._is_free():
                self._take()

    def release(self) -> None:
        with self._lock:
            if self._term is not None:
                self._put_off(timedelta(0))
                self._term = None

    def _renew(self) -> bool:
        if self._term is None:
            return False
        asked = _clock()
        if self._put_off(self._lease):
            self._until = asked + self._lease.total_seconds()
            return True
        log.warning("leader.lost", term=self._term)
        self._term = None
        return False

    def _put_off(self, until: timedelta) -> bool:
        """Outside the writers' lock: a long writing session must not cost the leadership."""
        mine = update(LeaderRow).where(col(LeaderRow.term) == self._term)
        with self._db.engine.begin() as connection:
            return connection.execute(mine.values(until=func.clock_timestamp() + until)).rowcount == 1

    def _is_free(self) -> bool:
        with self._db.reading() as session:
            return session.exec(select(LeaderRow).where(col(LeaderRow.until) > func.clock_timestamp())).first() is None

    def _take(self) -> None:
        asked = _clock()
        with self._db.session() as session:
            row = session.exec(select(LeaderRow).with_for_update()).first()
            now = session.exec(select(func.clock_timestamp())).one()
            if row is not None and row.until > now:
                return
            before, row = row, row or LeaderRow(holder="", term=0, until=now)
            row.holder, row.term, row.until = self._name, row.term + 1, now + self._lease
            session.add(row)
        self._term, self._until = row.term, asked + self._lease.total_seconds()
        log.info("leader.leads", term=row.term, after=before.holder if before else None)


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where the system can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
