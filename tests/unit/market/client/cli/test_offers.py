"""`gpumarket offer list`, from machines to prices of a job."""

import json
from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs
from typer.testing import CliRunner

from contracts.cli import main
from market.client.cli import offers as offers_cli
from tests.support.machines_on_offer import GPU, TOKEN, post
from tests.support.offline_market import World


def run(world: World, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(offers_cli, "MarketClient", lambda url: world.api)
    monkeypatch.setattr(type(world.api), "__exit__", lambda *_: None, raising=False)
    monkeypatch.setenv("GPUMARKET_MARKET_URL", "http://market.test")
    with capture_logs():
        result = CliRunner().invoke(main.app, ["offer", "list", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "recipe.py").write_text("class Mine: ...\n")
    fields = {
        "environment": "torch-2.13", "recipe": "recipe.py:Mine", "files": ["recipe.py"], "steps": 40,
        "checkpoint_every": 10, "units": 1_000_000, "max_price": "2", "resources": {"gpus": 1},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(fields))
    return tmp_path


def test_the_command_shows_machines_and_prices(world: World, monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    assert run(world, monkeypatch) == "There is no machine on offer that is like this.\n"
    assert json.loads(run(world, monkeypatch, "-o", "json")) == []
    post(world)
    gpu = post(world, GPU, price_per_hour=5_400 * TOKEN)
    both = run(world, monkeypatch)
    assert "3600 tUSD" in both and "5400 tUSD" in both and "per checkpoint" not in both
    told = run(world, monkeypatch, "--limit", "1")
    assert "3600 tUSD" in told and "5400 tUSD" not in told and "There are more: --limit 2" in told
    priced = run(world, monkeypatch, "--job", str(job))
    assert "Test CPU" not in priced and "eu-de" in priced and "1.5 tUSD" in priced and "yes *" in priced
    assert "no: lot" in run(world, monkeypatch, "--job", str(job), "--all")
    found = json.loads(run(world, monkeypatch, "--job", str(job), "--units", "2000000", "--all", "-o", "json"))
    reasons = {one["provider"]: (one["job"]["price"], one["job"]["reason"]) for one in found}
    assert reasons[gpu.address] == ("3000000", "price") and len(found) == 2


def test_a_stranger_of_absurd_numbers_ends_no_list(world: World, monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    text = (job / "job.yaml").read_text()
    text = text.replace("steps: 40", "steps: 655350").replace("units: 1000000", "units: 1000000000")
    (job / "job.yaml").write_text(text.replace("gpus: 1", "gpus: 0"))
    post(world, units_per_hour=1, price_per_hour=1)
    post(world, units_per_hour=1, price_per_hour=(1 << 96) - 1)
    post(world)
    shown = run(world, monkeypatch, "--job", str(job), "--all")
    assert shown.count("over 30 years") == 2 and "758 days" in shown
