"""A backup that is taken while the market runs, restored elsewhere as docs/operations.md says."""

import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.chain.devnet.devnet import Devnet
from contracts.errors import UserError
from contracts.settings import CONFIG_NAME
from market.cli.market import app
from market.cli.reconcile import app as reconcile_app
from market.maintenance.backup import save_copy
from market.store.db import Database
from tests.support.postgres import GUEST, Cluster
from tests.support.stepped_market import Lives, lives

pytestmark = pytest.mark.mostly_sqlite


@pytest.fixture
def elsewhere(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database that has nothing in it yet, of the same kind as the market's."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/elsewhere.sqlite3"
    else:
        with request.getfixturevalue("postgresql").database("template0") as url:
            yield url


def restore(file: Path, url: str) -> None:
    """With the tools that the document names."""
    db = Database(url)
    if db.is_sqlite:
        shutil.copy(file, str(db.engine.url.database))
    else:
        to = db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        subprocess.run(["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={to}", file], check=True)
    db.close()


def run(command: str, *arguments: str) -> None:
    done = CliRunner().invoke(*((reconcile_app, []) if command == "reconcile" else (app, [command, *arguments])))
    assert done.exit_code == 0, (done.output, done.exception)


def test_a_backup_of_a_running_market(
    market: Lives, elsewhere: str, devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    lease = market.lease_of(job)
    market.make(lease, 2)
    home, file, again = tmp_path / "home", tmp_path / "saved", tmp_path / "again"
    home.mkdir()
    again.mkdir()
    (again / "approver").symlink_to(tmp_path / "approver")  # another party, which remembers
    shutil.copy(devnet.home / CONFIG_NAME, home)
    monkeypatch.setenv("GPUMARKET_HOME", str(home))
    monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", market.context.settings.database_url)
    monkeypatch.setenv("GPUMARKET_MARKET_BLOB_DIR", str(market.context.settings.blob_dir))

    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            market.post_bid()

    busy = threading.Thread(target=go_on)
    busy.start()
    try:
        run("backup", str(file))
        shutil.copytree(market.context.settings.blob_dir, again / "blobs")
    finally:
        stop.set()
        busy.join()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # The market goes on, and what the chain learns meanwhile the backup doesn't know.
    market.redeem(lease)

    restore(file, elsewhere)
    monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", elsewhere)
    monkeypatch.setenv("GPUMARKET_MARKET_BLOB_DIR", str(again / "blobs"))
    run("reindex", "--yes")
    assert market.context.sender is not None
    people = [market.context.sender.account, market.approver_key, market.client, *market.providers]
    with lives(market.chain, again, people, market.rules, elsewhere) as restored:
        shown = restored.reader.job(job.id)
        assert (shown.accepted, len(shown.leases)) == (2, 1)
        run("reconcile")
        restored.make(restored.lease_of(job), 2)  # the job goes on where it was
        restored.redeem(restored.lease_of(job))
        run("reconcile")


def test_no_backup_over_another(database_url: str, tmp_path: Path) -> None:
    db = Database(database_url)
    db.upgrade()
    save_copy(db, tmp_path / "saved")
    with pytest.raises(UserError, match="exists already"):
        save_copy(db, tmp_path / "saved")
    with pytest.raises(UserError, match="can't write"):
        save_copy(db, tmp_path / "no such folder" / "saved")
    db.close()
    assert sorted(path.name for path in tmp_path.iterdir() if "saved" in path.name) == ["saved"]


def test_no_backup_with_a_wrong_password(postgresql: Cluster, tmp_path: Path) -> None:
    db = Database(postgresql.url("migrated", GUEST[0], "sesame"))
    with pytest.raises(UserError, match="password authentication failed") as caught:
        save_copy(db, tmp_path / "saved")
    assert "sesame" not in f"{caught.value.message} {caught.value.hint}"
    assert list(tmp_path.iterdir()) == []
