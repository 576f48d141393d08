"""The market's tables on SQLite and on PostgreSQL: migrations, amounts, and writers that take turns."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel, col, func, select

from contracts.errors import UserError
from market.store.columns import Amount, UtcTime
from market.store.db import OUTAGE, Database
from market.store.models import Amount, EpochRow, MatchRow, UtcTime
from tests.support.postgres import GUEST, Cluster

HASH = "0x" + "11" * 32


def differences(db: Database) -> list[object]:
    with db.engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)


def test_migrations_give_the_models(db: Database) -> None:
    assert differences(db) == []


# ------------------------------------------------------------------ up and down, with rows in the tables


def value_for(column: sa.Column[Any]) -> Any:
    if isinstance(column.type, sa.JSON):
        return {"files": {"recipe.py": {"sha256": HASH, "size": 1}}, "state": {"sha256": HASH, "size": 1}}
    if isinstance(column.type, UtcTime):
        return datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    if isinstance(column.type, Amount):
        return 7
    return {bool: True, int: 7}.get(column.type.python_type, HASH[: getattr(column.type, "length", None) or 66])


def contents(db: Database) -> dict[str, list[dict[str, Any]]]:
    with db.reading() as session:
        return {
            table.name: [dict(row._mapping) for row in session.connection().execute(sa.select(table))]
            for table in SQLModel.metadata.sorted_tables
        }


def test_down_and_up_with_rows(db: Database) -> None:
    """Each migration is undone and done again. What all versions have in common stays as it was."""
    with db.session() as session:
        for table in SQLModel.metadata.sorted_tables:
            session.connection().execute(table.insert().values({c.name: value_for(c) for c in table.columns}))
    before = contents(db)
    with db.migrating() as config:
        revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert len(revisions) >= 3
    kept: dict[str, set[str]] = {}
    for revision in revisions[1:]:
        db.downgrade(revision)
        inspected = sa.inspect(db.engine)
        kept = {name: {c["name"] for c in inspected.get_columns(name)} for name in inspected.get_table_names()}
    assert "bid" in kept and "leader" not in kept
    db.upgrade()
    assert differences(db) == []
    after = contents(db)
    for table in kept.keys() & before.keys():
        same = kept[table] & before[table][0].keys()
        assert [{name: row[name] for name in same} for row in after[table]] == [
            {name: row[name] for name in same} for row in before[table]
        ], table
    db.downgrade("base")
    assert sa.inspect(db.engine).get_table_names() == ["alembic_version"]
    db.upgrade()


def test_tables_of_a_newer_version(db: Database) -> None:
    with db.session() as session:
        session.connection().execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="are not of this version of gpumarket") as caught:
        db.upgrade()
    assert caught.value.hint is not None


# ------------------------------------------------------------------ sessions


@pytest.mark.parametrize("amount", [0, 2**63, 2**256 - 1])
def test_amounts_keep_all_bits(db: Database, amount: int) -> None:
    with db.session() as session:
        session.add(EpochRow(number=1, order_root=HASH))
        session.flush()
        session.add(MatchRow(epoch=1, bid=HASH, ask=HASH, price=amount))
    with db.reading() as session:
        match = session.exec(select(MatchRow)).one()
        epoch = session.exec(select(EpochRow)).one()
    assert match.price == amount
    assert epoch.started.tzinfo is UTC


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
        for _ in range(10):
            with db.session() as session:
                newest = session.exec(select(func.max(EpochRow.number))).one() or 0
                session.add(EpochRow(number=newest + 1, order_root=HASH))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.reading() as session:
        assert session.exec(select(func.count()).select_from(EpochRow)).one() == 40


def test_a_reader_sees_one_moment_and_waits_for_nobody(db: Database) -> None:
    def numbers(session: Any) -> list[int]:
        return list(session.exec(select(EpochRow.number).order_by(col(EpochRow.number))))

    with db.session() as session:
        session.add(EpochRow(number=1, order_root=HASH))
    with db.reading() as reader:
        assert numbers(reader) == [1]
        with db.session() as session:
            session.add(EpochRow(number=2, order_root=HASH))
            session.flush()
            assert numbers(reader) == [1]
        assert numbers(reader) == [1]
    with db.reading() as reader:
        assert numbers(reader) == [1, 2]


# ------------------------------------------------------------------ PostgreSQL only


def test_a_reader_writes_nothing(postgresql: Cluster) -> None:
    with postgresql.database() as url:
        db = Database(url)
        with pytest.raises(sa.exc.DBAPIError, match="read-only"), db.reading() as session:
            session.add(EpochRow(number=1, order_root=HASH))
            session.flush()
        db.close()


def test_a_writer_that_stands_still_is_ended(postgresql: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a process that is paused would keep all others from writing."""
    monkeypatch.setattr("market.store.db.IDLE_SECONDS", 0.2)
    with postgresql.database() as url:
        db = Database(url)
        with pytest.raises(OUTAGE, match="idle-in-transaction"), db.session() as paused:
            paused.add(EpochRow(number=1, order_root=HASH))
            paused.flush()
            with db.session() as other:  # waits until the first is ended
                other.add(EpochRow(number=2, order_root=HASH))
        with db.reading() as session:
            assert session.exec(select(EpochRow.number)).all() == [2]
        db.close()


def test_urls_as_other_programs_write_them(postgresql: Cluster) -> None:
    with postgresql.database() as url:
        for scheme in ("postgres", "postgresql"):
            db = Database(url.replace("postgresql+psycopg", scheme))
            with db.reading() as session:
                assert session.exec(select(EpochRow)).all() == []
            db.close()


def test_nothing_to_read(postgresql: Cluster) -> None:
    with postgresql.database("template0") as url:
        db = Database(url)
        with pytest.raises(UserError, match="there is no market's database"):
            db.check()
        db.upgrade()
        db.check()
        db.close()


def refusal(url: str) -> str:
    """What is said by those who would write, and by those who only read."""
    db = Database(url)
    with pytest.raises(UserError) as caught:
        db.upgrade()
    with pytest.raises(UserError) as again:
        db.check()
    db.close()
    assert caught.value.hint is not None
    assert str(again.value) == str(caught.value)
    return f"{caught.value.message} {caught.value.hint}"


def test_a_wrong_password(postgresql: Cluster) -> None:
    said = refusal(postgresql.url("migrated", GUEST[0], "sesame"))
    assert f'password authentication failed for user "{GUEST[0]}"' in said
    assert "sesame" not in said


def test_nobody_answers() -> None:
    said = refusal("postgresql://market:sesame@127.0.0.1:1/market")
    assert "can't use the database postgresql+psycopg://market:***@127.0.0.1:1/market" in said
    assert "sesame" not in said
