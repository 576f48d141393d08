"""The operator's settings: one file for market and approver, each documented, none of them told with a secret in it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from contracts.errors import UserError
from contracts.job.provider_wants import Wants
from contracts.settings import Settings
from market.approver.metrics import ApproverMetrics
from market.approver.settings import ApproverSettings, load_approver_settings
from market.cli import market
from market.runtime.settings import MarketSettings, load_market_settings
from tests.support import ROOT
from worker.arbiter.metrics import ArbiterMetrics
from worker.arbiter.settings import ArbiterSettings, load_arbiter_settings
from worker.settings import MoneyRules, OwnerRules, ProviderSettings

DOCS = ROOT / "docs"
SECRET = "geheim"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    return tmp_path / "market.toml"


def test_one_file_for_market_and_approver(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approver = '[approver]\nkeys = ["old", "new"]\npoll_seconds = 9\nmetrics_port = 2\n'
    file.write_text(f"port = 1\n{approver}[arbiter]\nruns = 3\n")
    assert load_market_settings().port == 1
    assert load_approver_settings().keys == ("old", "new")
    assert load_arbiter_settings().runs == 3
    monkeypatch.setenv("GPUMARKET_APPROVER_KEYS", '["other"]')
    assert (
        load_approver_settings(poll_seconds=3).model_dump()
        == ApproverSettings(keys=("other",), poll_seconds=3, metrics_port=2).model_dump()
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("prt = 1", "unknown setting 'prt' of the market", "did you mean 'port'?"),
        ("[approver]\npoll = 1", "unknown setting 'poll' of the approver", "known are: keys, poll_seconds"),
        (
            "[approver]\nmetrics_prt = 1",
            "unknown setting 'metrics_prt' of the approver",
            "did you mean 'metrics_port'?",
        ),
        ("[arbiter]\nruns = 1", "the arbiter's setting 'runs' is wrong", "GPUMARKET_ARBITER_RUNS"),
        ("approver = '0x12'", "unknown setting 'approver' of the market", "recommended_approver"),
        (
            "[approver]\nlog_level = 'loud'",
            "the approver's setting 'log_level' is wrong",
            "GPUMARKET_APPROVER_LOG_LEVEL",
        ),
        ("port =", "is not valid TOML", "correct it"),
    ],
)
def test_a_wrong_file(file: Path, text: str, message: str, hint: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_market_settings()
        load_approver_settings()
        load_arbiter_settings()
    assert hint in (caught.value.hint or "")


def test_what_holds_and_where_it_comes_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("fee = 7\n[approver]\npoll_seconds = 9\n")
    url = f"postgresql://me:{SECRET}@db.example/market?sslmode=require&sslpassword={SECRET}"
    monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", url)
    monkeypatch.setenv("GPUMARKET_RPC_URL", f"https://me:{SECRET}@node.example/v3/{SECRET}?key={SECRET}")
    shown = CliRunner().invoke(market.app, ["settings", "-o", "json"])
    assert shown.exit_code == 0, shown.output
    found = {(row["of"], row["setting"]): (row["value"], row["from"]) for row in json.loads(shown.stdout)}
    assert found["market", "fee"] == ("7", "market.toml")
    assert found["market", "port"] == (8600, "default")
    assert found["approver", "poll_seconds"] == (9.0, "market.toml [approver]")
    database, source = found["market", "database_url"]
    assert database == "postgresql://me:***@db.example/market?sslmode=require&sslpassword=hidden"
    assert source == "GPUMARKET_MARKET_DATABASE_URL"
    assert found["common", "rpc_url"] == ("https://node.example/***", "GPUMARKET_RPC_URL")
    table = CliRunner().invoke(market.app, ["settings"])
    assert "recommended_approver" in table.stdout
    assert SECRET not in shown.output + table.output


@pytest.mark.parametrize(
    ("model", "heading"),
    [
        (Settings, "## Everybody"),
        (MarketSettings, "## Market"),
        (ApproverSettings, "## Approver"),
        (ArbiterSettings, "## Arbiter"),
        (ProviderSettings, "## Provider"),
        (Wants, "`[wants]`"),
        (OwnerRules, "`[owner]`"),
        (MoneyRules, "`[money]`"),
    ],
)
def test_each_setting_is_documented(model: type[BaseModel], heading: str) -> None:
    """And what is documented is a setting."""
    text = (DOCS / "settings.md").read_text()
    part = re.split(r"\n(?=## |`\[)", text[text.index(f"\n{heading}") + 1 :])[0]
    assert re.findall(r"^\| `(\w+)` \|", part, re.M) == list(model.model_fields)


@pytest.mark.parametrize(("metrics", "whose"), [(ApproverMetrics, "approver"), (ArbiterMetrics, "arbiter")])
def test_each_metric_of_a_program_is_documented(metrics: Any, whose: str) -> None:
    told = {metric.name for metric in metrics().registry.collect()}
    documented = re.findall(rf"^\| `(gpumarket_{whose}_[a-z_]+)", (DOCS / "operations.md").read_text(), re.M)
    assert {name.removesuffix("_total") for name in documented} == told
