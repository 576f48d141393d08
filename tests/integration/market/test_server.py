"""When a market does not start, and when it ends."""

import threading
from pathlib import Path
from typing import Any

import pytest

from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.settings import Settings
from contracts.types import ZERO_ADDRESS
from market.runtime.settings import MarketSettings
from market.server import Server, open_context
from tests.support.devnet import Funded


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"chain_id": 1}, "has chain id 31337, expected 1"),
        ({"escrow": ZERO_ADDRESS}, "there is no contract at"),
        ({"rpc_url": "http://127.0.0.1:9"}, "no Ethereum node answers"),
        ({"rules": {}}, "the setting 'rules' is missing"),
    ],
)
def test_a_market_does_not_start_on_a_wrong_chain(
    chain: Chain, devnet: Devnet, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    settings = MarketSettings(database_url=f"sqlite:///{tmp_path}/market.sqlite3", blob_dir=tmp_path / "blobs")
    wrong = Settings(**{**dict(devnet.settings), **changes})
    with pytest.raises(UserError, match=problem):
        open_context(settings, wrong)
    assert list(tmp_path.iterdir()) == []


def test_rules_that_the_escrow_would_refuse(chain: Chain, devnet: Devnet, tmp_path: Path) -> None:
    settings = MarketSettings(database_url=f"sqlite:///{tmp_path}/market.sqlite3", blob_dir=tmp_path / "blobs")
    lax = devnet.settings.rules["unchecked"].model_copy(update={"window": 0})
    wrong = Settings(**{**dict(devnet.settings), "rules": {"lax": lax}})
    with pytest.raises(UserError, match="window of the rule-set 'lax' is 0 s; this escrow takes 1 to 86400"):
        open_context(settings, wrong)


def test_a_dead_thread_ends_the_market(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path) -> None:
    settings = MarketSettings(port=0, database_url=f"sqlite:///{tmp_path}/market.sqlite3", blob_dir=tmp_path / "blobs")
    (matcher,) = funded(1)

    def crash(context: object, stop: threading.Event) -> None:
        raise ZeroDivisionError

    server = Server(open_context(settings, devnet.settings, Sender(chain, matcher)), {"clearing": crash})
    assert server.run() == 1
    assert server.dead == "clearing"
