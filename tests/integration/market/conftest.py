"""What tests of the market on a real chain can take: `market`, `stage`, `home` of a process, and `db`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from market.store.db import Database
from tests.support.devnet import TOKEN, Funded
from tests.support.market_process import home
from tests.support.served_market import stage
from tests.support.stepped_market import Lives, lives

__all__ = ["home", "stage"]


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A database of a market, and none of its other parts."""
    database = Database(database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def market(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path, database_url: str) -> Iterator[Lives]:
    """One whose parts are called by hand, with three providers."""
    people = funded(2) + funded(3, free=100 * TOKEN)
    with lives(chain, tmp_path, people, devnet.settings.rules["unchecked"], database_url) as made:
        yield made
