"""Which databases a market can use."""

import sys
from pathlib import Path

import pytest

from contracts.errors import UserError
from contracts.program.extras import install_command
from market.store.db import Database


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="in memory"):
        Database(url)


def test_reconcile_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no market's database at sqlite:///{tmp_path}/market.sqlite3"):
        Database(f"sqlite:///{tmp_path}/market.sqlite3").check()
    assert list(tmp_path.iterdir()) == []


def test_not_a_database_url() -> None:
    with pytest.raises(UserError, match=r"'market\.sqlite3' is not the URL of a database"):
        Database("market.sqlite3")


@pytest.mark.parametrize(
    "url", ["market:sesame@host/market", "mysql://market:sesame@host/market", "x://a:sesame@b:c/d"]
)
def test_no_refusal_shows_a_password(url: str) -> None:
    with pytest.raises(UserError) as caught:
        Database(url)
    assert caught.value.hint is not None
    assert "postgresql+psycopg://user:password@host/market" in caught.value.hint
    assert "sesame" not in caught.value.message


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match="driver of PostgreSQL can't be loaded") as caught:
        Database("postgresql://market:sesame@host/market")
    assert "sesame" not in caught.value.message
    assert caught.value.hint == install_command("market")
