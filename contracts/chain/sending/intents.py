"""What one key means to have mined, on disk: written before anything is signed, and kept until it is certain."""

import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from contracts.chain.sending.fees import Fees

# For which a finished intent is kept: if it has a key, to answer for it; else until all processes have noticed.
KEEP_SECONDS, KEEP_UNNAMED_SECONDS = 30 * 86_400, 3_600
BUSY_SECONDS = 30.0  # to wait for another process

_SCHEMA = """
CREATE TABLE IF NOT EXISTS chain (genesis TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS intent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT UNIQUE,           -- the caller's name for it
    target TEXT NOT NULL, data BLOB NOT NULL, value TEXT NOT NULL, gas INTEGER NOT NULL,
    nonce INTEGER NOT NULL, tip INTEGER NOT NULL, most INTEGER NOT NULL,  -- of the version to be signed next, or last
    made REAL NOT NULL,        -- UTC seconds
    mined TEXT, block INTEGER, -- hash of the version that was mined, and where
    final REAL                 -- UTC seconds; since when no reorg is expected to undo it
);
CREATE TABLE IF NOT EXISTS version (
    hash TEXT PRIMARY KEY, intent INTEGER NOT NULL REFERENCES intent ON DELETE CASCADE,
    nonce INTEGER NOT NULL, tip INTEGER NOT NULL, most INTEGER NOT NULL, raw BLOB NOT NULL, made REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS version_intent ON version (intent);
CREATE INDEX IF NOT EXISTS unfinished ON intent (nonce) WHERE final IS NULL;
"""


@dataclass(frozen=True)
class Draft:
    """A call that is to be mined once. `gas` is its limit, `value` in wei."""

    to: str
    data: bytes
    value: int
    gas: int
    key: str | None = None


@dataclass(frozen=True)
class Version:
    """A signed transaction. Whichever version of an intent is mined, it is the intent's effect."""

    hash: str
    nonce: int
    fees: Fees
    raw: bytes
    made: float


@dataclass(frozen=True)
class Intent:
    """A draft with its nonce and the fees of its newest version, which may not be signed yet."""

    id: int
    draft: Draft
    nonce: int
    fees: Fees
    made: float
    mined: str | None = None  # hash
    block: int | None = None
    versions: tuple[Version, ...] = ()

    @property
    def newest(self) -> Version | None:
        """The version that `nonce` and `fees` describe; None if a crash came before it was signed."""
        return next((one for one in reversed(self.versions) if (one.nonce, one.fees) == (self.nonce, self.fees)), None)

    @property
    def cost(self) -> int:
        """The most that it takes of the account, in wei."""
        return self.draft.gas * self.fees.most + self.draft.value


class IntentStore:
    """The intents of one key on one chain. Threads share an instance, processes the file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        with FileLock(path.with_suffix(".lock")):  # two that make a file a WAL at once don't wait for one another
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that no other process writes beside; on disk when it ends."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.commit()
            except BaseException:
                self._db.rollback()
                raise

    def bind(self, genesis: str) -> int:
        """Says which chain this is. Of another chain with the same id (a devnet made anew) nothing is kept.

        Returns how many unfinished intents were dropped for that.
        """
        with self._writing() as db:
            known = db.execute("SELECT genesis FROM chain").fetchone()
            if known == (genesis,):
                return 0
            (lost,) = db.execute("SELECT count(*) FROM intent WHERE final IS NULL").fetchone()
            for table in ("chain", "version", "intent"):
                db.execute(f"DELETE FROM {table}")
            db.execute("INSERT INTO chain VALUES (?)", (genesis,))
        return int(lost)

    # ------------------------------------------------------------- planning

    def plan(self, drafts: Sequence[Draft], fees: Fees, count: int) -> list[Intent]:
        """Gives each draft the next nonce; a draft whose key is known becomes the intent that it named before.

        `count` is the account's number of transactions, pending ones included, as the node sees it.
        """
        intents = []
        with self._writing() as db:
            nonce = self._next_nonce(count)
            for draft in drafts:
                known = self.by_key(draft.key) if draft.key is not None else None
                if known is None:
                    intents.append(self._insert(db, draft, nonce, fees))
                    nonce += 1
                else:
                    intents.append(known)
        return intents

    def plan_at(self, nonces: Sequence[int], draft: Draft, fees: Fees) -> list[Intent]:
        """The draft at each of these nonces that is still free."""
        with self._writing() as db:
            taken = {nonce for (nonce,) in db.execute("SELECT nonce FROM intent WHERE final IS NULL")}
            return [self._insert(db, draft, nonce, fees) for nonce in nonces if nonce not in taken]

    def replan(self, intent: Intent, fees: Fees, count: int | None = None) -> Intent | None:
        """New fees, and with `count` also the next nonce. None if somebody has changed the intent meanwhile."""
        with self._writing() as db:
            nonce = intent.nonce if count is None else self._next_nonce(count)
            old = (intent.id, intent.nonce, intent.fees.tip, intent.fees.most)
            changed = db.execute(
                "UPDATE intent SET nonce = ?, tip = ?, most = ?"
                " WHERE id = ? AND nonce = ? AND tip = ? AND most = ? AND mined IS NULL",
                (nonce, *fees, *old),
            )
        return replace(intent, nonce=nonce, fees=fees) if changed.rowcount else None

    def _next_nonce(self, count: int) -> int:
        # What is final does not count: should the chain lose that too, its nonces are free again.
        (highest,) = self._db.execute("SELECT max(nonce) FROM intent WHERE final IS NULL").fetchone()
        return count if highest is None else max(count, highest + 1)

    def _insert(self, db: sqlite3.Connection, draft: Draft, nonce: int, fees: Fees) -> Intent:
        made = time.time()
        row = (draft.key, draft.to, draft.data, str(draft.value), draft.gas, nonce, *fees, made)
        done = db.execute(
            "INSERT INTO intent (key, target, data, value, gas, nonce, tip, most, made) VALUES (?,?,?,?,?,?,?,?,?)", row
        )
        assert done.lastrowid is not None
        return Intent(done.lastrowid, draft, nonce, fees, made)

    def add_versions(self, versions: Sequence[tuple[int, Version]]) -> None:
        """Signed transactions by intent, before they leave the process."""
        rows = [(one.hash, id, one.nonce, *one.fees, one.raw, one.made) for id, one in versions]
        with self._writing() as db:
            db.executemany("INSERT OR IGNORE INTO version VALUES (?,?,?,?,?,?,?)", rows)

    # ------------------------------------------------------------- what became of them

    def note_mined(self, found: Sequence[tuple[int, str, int]]) -> None:
        """Of each: intent, hash of the version, and block."""
        with self._writing() as db:
            db.executemany(
                "UPDATE intent SET mined = ?, block = ? WHERE id = ?", [(hash, block, id) for id, hash, block in found]
            )

    def reopen(self, ids: Sequence[int]) -> None:
        """The chain has dropped the block they were mined in."""
        with self._writing() as db:
            many = [(id,) for id in ids]
            db.executemany("UPDATE intent SET mined = NULL, block = NULL, final = NULL WHERE id = ?", many)

    def finish(self, ids: Sequence[int]) -> None:
        """No reorg is expected to undo these. What nobody will ask for is deleted."""
        now = time.time()
        with self._writing() as db:
            db.executemany("UPDATE intent SET final = ? WHERE id = ?", [(now, id) for id in ids])
            self._prune(db, now)

    def release(self, key: str) -> None:
        """Forgets the name of an intent, so that it can name another."""
        with self._writing() as db:
            db.execute("UPDATE intent SET key = NULL WHERE key = ?", (key,))
            self._prune(db, time.time())

    def unname(self, id: int) -> None:
        """Like `release`, but whatever the name means by now, it stays with another intent."""
        with self._writing() as db:
            db.execute("UPDATE intent SET key = NULL WHERE id = ?", (id,))

    def _prune(self, db: sqlite3.Connection, now: float) -> None:
        db.execute(
            "DELETE FROM intent WHERE final < CASE WHEN key IS NULL THEN ? ELSE ? END",
            (now - KEEP_UNNAMED_SECONDS, now - KEEP_SECONDS),
        )

    # ------------------------------------------------------------- reads

    def open(self) -> list[Intent]:
        """Not mined yet, the lowest nonce first."""
        return self._read("mined IS NULL AND final IS NULL ORDER BY nonce")

    def settling(self) -> list[Intent]:
        """Mined, but a reorg may still undo it."""
        return self._read("mined IS NOT NULL AND final IS NULL ORDER BY nonce")

    def by_key(self, key: str) -> Intent | None:
        return next(iter(self._read("key = ?", key)), None)

    def of_data(self, data: bytes) -> list[Intent]:
        """Those that send this, finished or not."""
        return self._read("data = ?", data)

    def mined_among(self, ids: Collection[int]) -> list[Intent]:
        return self._read(f"mined IS NOT NULL AND id IN ({','.join('?' * len(ids))})", *ids) if ids else []

    def get(self, id: int) -> Intent:
        (intent,) = self._read("id = ?", id)
        return intent

    def _read(self, where: str, *values: object) -> list[Intent]:
        columns = "id, key, target, data, value, gas, nonce, tip, most, made, mined, block"
        with self._lock:
            rows = self._db.execute(f"SELECT {columns} FROM intent WHERE {where}", values).fetchall()
            selected = f"SELECT id FROM intent WHERE {where}"
            versions: dict[int, list[Version]] = {}
            for id, hash, nonce, tip, most, raw, made in self._db.execute(
                "SELECT intent, hash, nonce, tip, most, raw, made FROM version"
                f" WHERE intent IN ({selected}) ORDER BY rowid",
                values,
            ):
                versions.setdefault(id, []).append(Version(hash, nonce, Fees(tip, most), raw, made))
        return [
            Intent(
                id, Draft(to, data, int(value), gas, key), nonce, Fees(tip, most), made, mined, block,
                tuple(versions.get(id, ())),
            )
            for id, key, to, data, value, gas, nonce, tip, most, made, mined, block in rows
        ]  # fmt: skip
