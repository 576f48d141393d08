from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from tests.support.audited_market import ALL, Audited
from tests.support.devnet import TOKEN, Funded


@pytest.fixture
def audited(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path, database_url: str) -> Iterator[Audited]:
    """One whose rules replay each checkpoint."""
    people = funded(1) + funded(2, free=200 * TOKEN) + funded(5, free=100 * TOKEN)
    rules = devnet.settings.rules["open"].model_copy(update={"verification": ALL.hash()})
    made = Audited(chain, tmp_path, people, rules, database_url, ALL)
    yield made
    made.context.db.close()
