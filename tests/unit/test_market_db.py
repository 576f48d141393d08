"""The market's tables: models and migrations agree, amounts keep all their bits."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlmodel import SQLModel, select

from contracts.errors import UserError
from market.db import Database
from market.models import EpochRow, MatchRow

HASH = "0x" + "11" * 32


@pytest.fixture
def db(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path}/market.sqlite3")
    database.upgrade()
    return database


def differences(db: Database) -> list[object]:
    with db.engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)


def test_migrations_give_the_models(db: Database) -> None:
    assert differences(db) == []


def test_up_down_up(db: Database) -> None:
    db.downgrade("base")
    assert sa.inspect(db.engine).get_table_names() == ["alembic_version"]
    db.upgrade()
    assert differences(db) == []
    db.upgrade()


@pytest.mark.parametrize("amount", [0, 1, 2**63, 2**96 - 1, 2**256 - 1])
def test_amounts_keep_all_bits(db: Database, amount: int) -> None:
    with db.session() as session:
        session.add(EpochRow(number=1, order_root=HASH))
        session.flush()
        session.add(MatchRow(epoch=1, bid=HASH, ask=HASH, price=amount))
    with db.reading() as session:
        match = session.exec(select(MatchRow)).one()
        epoch = session.exec(select(EpochRow)).one()
    assert match.price == amount
    assert epoch.started.utcoffset() is not None


def test_an_exception_rolls_back(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.session() as session:
        session.add(EpochRow(number=1, order_root=HASH))
        session.flush()
        raise ZeroDivisionError
    with db.reading() as session:
        assert session.exec(select(EpochRow)).all() == []


def test_foreign_keys_hold(db: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError), db.session() as session:
        session.add(MatchRow(epoch=7, bid=HASH, ask=HASH, price=1))


def test_writers_take_turns(db: Database) -> None:
    """Each reads, then writes: without the lock at the start, one of two would fail or lose its write."""

    def work() -> None:
        for _ in range(20):
            with db.session() as session:
                newest = session.exec(select(sa.func.max(EpochRow.number))).one() or 0
                session.add(EpochRow(number=newest + 1, order_root=HASH))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.reading() as session:
        assert session.exec(select(sa.func.count()).select_from(EpochRow)).one() == 80


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="in memory"):
        Database(url)


def test_reconcile_makes_no_database(tmp_path: Path) -> None:
    assert not Database(f"sqlite:///{tmp_path}/market.sqlite3").exists
    assert list(tmp_path.iterdir()) == []


def test_not_a_database_url() -> None:
    with pytest.raises(UserError, match=r"'market\.sqlite3' is not the URL of a database"):
        Database("market.sqlite3")
