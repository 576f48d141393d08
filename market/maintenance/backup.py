"""A copy of the market's database as it is at one moment, while the market runs; docs/operations.md restores it."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path

from sqlalchemy import URL

from contracts.errors import UserError
from contracts.program.progress_bar import Watch, nobody
from market.store.db import BUSY_SECONDS, Database

WRITTEN = "bytes written"
STEPS_A_LOOK, SECONDS_A_LOOK = 1_000_000, 0.5  # of SQLite's machine, for pg_dump


def save_copy(db: Database, target: Path, watch: Watch = nobody) -> int:
    """Writes the copy: a database's file of SQLite, or an archive of pg_dump. Returns its size. Raises UserError."""
    if target.exists():
        raise UserError(f"{target} exists already", "name a new file; old backups are yours to delete")
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        partial.touch(mode=0o600)
        if db.is_sqlite:
            _save_sqlite(Path(str(db.engine.url.database)), partial, watch)
        else:
            _save_postgresql(db.engine.url, partial, watch)
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise UserError(
            f"can't write {target}: {error.strerror}", "name a file in a folder that you may write"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def _save_sqlite(path: Path, target: Path, watch: Watch) -> None:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    size = path.stat().st_size
    connection.set_progress_handler(lambda: watch(WRITTEN, target.stat().st_size, size), STEPS_A_LOOK)
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise UserError(f"can't copy {path} to {target.parent}: {error}", "is the disk full?") from error
    finally:
        connection.close()


def _save_postgresql(url: URL, target: Path, watch: Watch) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise UserError("pg_dump is not installed", "on Debian and Ubuntu: apt-get install postgresql-client")
    shown = url.set(drivername="postgresql", password=None).render_as_string()
    command = [program, "--format=custom", "--no-owner", f"--file={target}", f"--dbname={shown}"]
    # The password goes by the environment: everybody can read a command line.
    secret = {"PGPASSWORD": str(url.password)} if url.password is not None else {}
    with subprocess.Popen(
        command, env=os.environ | secret, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as dump:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    _, errors = dump.communicate(timeout=SECONDS_A_LOOK)
                    break
                watch(WRITTEN, target.stat().st_size)
        except BaseException:
            dump.kill()
            raise
    if dump.returncode != 0:
        lines = errors.strip().splitlines()
        raise UserError(
            lines[0] if lines else f"pg_dump ended with code {dump.returncode}", "pg_dump must be as new as the server"
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
