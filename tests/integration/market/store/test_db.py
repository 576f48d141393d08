"""The market's tables on SQLite and on PostgreSQL: amounts, writers that take turns, servers that refuse."""

import threading
from datetime import UTC
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, func, select

from contracts.errors import UserError
from market.store.db import OUTAGE, Database
from market.store.models import BidRow, EpochRow, MatchRow
from tests.support.postgres import GUEST, Cluster

HASH = "0x" + "11" * 32


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


def test_a_database_that_has_not_all_characters(postgresql: Cluster) -> None:
    for encoding in ("LATIN1", "SQL_ASCII"):
        postgresql.run(f"CREATE DATABASE old ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        with postgresql.database("old") as url:
            said = refusal(url)
            assert f"keeps texts as {encoding}, which has not all characters" in said
            assert "--encoding=UTF8" in said
        postgresql.run("DROP DATABASE old")


def test_no_query_looks_into_a_document(db: Database) -> None:
    """PostgreSQL fails at `\\u0000` anywhere in it."""
    with pytest.raises(TypeError, match="give it a column of its own"):
        col(BidRow.spec)["sealed"]
