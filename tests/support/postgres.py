"""A PostgreSQL of the tests' own, for all that take a database: one cluster in a folder under /tmp, without fsync."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

from market.store.db import Database

GUEST = ("guest", "a guest's word")  # a role that needs a password, as over a network
START_SECONDS = 30

# Nothing of a test's database has to outlive a power cut.
_OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=200")


class Cluster:
    """A running PostgreSQL. Its databases are copies of one that has been migrated already."""

    def __init__(self, folder: Path, bin: Path) -> None:
        self.folder, self.bin = folder, bin
        self._numbers = count()
        self.run(f"CREATE ROLE {GUEST[0]} LOGIN PASSWORD '{GUEST[1].replace(chr(39), chr(39) * 2)}'")
        self.run("CREATE DATABASE migrated")
        blank = Database(self.url("migrated"))
        blank.upgrade()
        blank.close()

    def url(self, name: str, user: str = "postgres", password: str = "") -> str:
        word = f":{password}" if password else ""
        return f"postgresql+psycopg://{user}{word}@/{name}?host={self.folder}"

    def run(self, statement: str) -> None:
        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)

    @contextmanager
    def database(self, template: str = "migrated") -> Iterator[str]:
        """The URL of a new database, which goes afterwards, whoever is still connected. `template0` is empty."""
        name = f"test{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")


def programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *Path("/usr").glob("pgsql-*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(re.findall(r"\d+", str(path))[0])).parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def start_cluster() -> Iterator[Cluster]:
    """PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`."""
    bin = programs()
    if bin is None:
        missing = "PostgreSQL is not installed (on Debian and Ubuntu: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    folder = Path(tempfile.mkdtemp(prefix="gpumarket-pg-", dir="/tmp"))  # a socket's path has to be short
    data, log = folder / "data", folder / "log"
    who = {}
    if os.geteuid() == 0:
        users = {entry.pw_name: entry for entry in pwd.getpwall()}
        user = users.get("postgres") or users["nobody"]
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(folder, user.pw_uid, user.pw_gid)
    make = [bin / "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", data]
    process = None
    try:
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)
        hba = data / "pg_hba.conf"
        hba.write_text(f"local all {GUEST[0]} scram-sha-256\n" + hba.read_text())
        options = [part for option in _OPTIONS for part in ("-c", option)]
        # So that it goes, too, when the tests are killed.
        bound = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
        serve = [*bound, bin / "postgres", "-D", data, "-k", folder, *options]
        with log.open("wb") as out:
            process = subprocess.Popen(serve, stderr=out, cwd=folder, **who)
        _wait_until_up(process, folder, log)
        yield Cluster(folder, bin)
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # stop without waiting for clients
            process.wait(START_SECONDS)
        shutil.rmtree(folder)


def _wait_until_up(process: "subprocess.Popen[bytes]", folder: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
        except psycopg.OperationalError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    with start_cluster() as cluster:
        yield cluster
