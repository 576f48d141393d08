"""Migrations give the models, up and down, with rows in the tables."""

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel, col, select

from contracts.errors import UserError
from market.store.columns import Amount, UtcTime
from market.store.db import Database
from market.store.models import BidRow

HASH = "0x" + "11" * 32


def differences(db: Database) -> list[object]:
    with db.engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)


def test_migrations_give_the_models(db: Database) -> None:
    assert differences(db) == []


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


def test_what_queries_ask_of_old_bids(db: Database) -> None:
    """Of specs that PostgreSQL can't look into, and of more rows than are read at once."""
    stop = {"metric": "a\0b", "patience": 2, "min_delta": 0.0, "mode": "min"}
    specs: list[dict[str, Any]] = [
        {"config": {"text": "a\0b"}},
        {"config": {"a\0b": 1}, "sealed": True},
        {"stop": stop},
        *[{}] * 500,
    ]
    db.downgrade("0011")
    bids = sa.Table("bid", sa.MetaData(), autoload_with=db.engine)
    rows = [
        {c.name: value_for(c) for c in bids.columns}
        | {"id": f"0x{number:064x}", "bit": number, "bid": {"job": f"0x{number + 1:064x}"}, "spec": spec}
        for number, spec in enumerate(specs)
    ]
    with db.session() as session:
        session.connection().execute(
            bids.insert(), [row | {"received": datetime(2026, 1, 2, tzinfo=UTC)} for row in rows]
        )
    db.upgrade()
    with db.reading() as session:
        found = session.exec(select(BidRow).order_by(col(BidRow.id))).all()
    assert [row.job for row in found] == [f"0x{number + 1:064x}" for number in range(len(specs))]
    assert [row.sealed for row in found] == [bool(spec.get("sealed")) for spec in specs]
    assert [row.stop for row in found] == [spec.get("stop") for spec in specs]
