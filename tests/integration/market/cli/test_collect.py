"""`gpumarket market collect`, beside a market that runs."""

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.chain.devnet.devnet import Devnet
from contracts.settings import write_config
from market.cli.market import app
from tests.support.market_parts import RECIPE, STATE, sha256
from tests.support.served_market import Stage


def test_collect(stage: Stage, devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, settings = tmp_path / "home", stage.context.settings
    home.mkdir()
    write_config(home / "config.toml", devnet.settings, "For a test.")
    monkeypatch.setenv("GPUMARKET_HOME", str(home))
    monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("GPUMARKET_MARKET_BLOB_DIR", str(settings.blob_dir))
    monkeypatch.setenv("GPUMARKET_MARKET_KEEP_UNUSED_HOURS", "0")
    stage.api.post_bid(stage.bid())  # names RECIPE; nothing names STATE
    time.sleep(1.1)  # the market counts whole seconds

    def collect(*options: str) -> str:
        done = CliRunner().invoke(app, ["collect", *options])
        assert done.exit_code == 0, done.output
        return done.output

    shown = collect("--dry-run")
    assert f"{sha256(STATE)}  {len(STATE)} bytes" in shown
    assert f"1 blobs, {len(STATE)} bytes would go" in shown
    assert stage.api_of(stage.provider).has_blob(sha256(STATE))
    assert f"1 blobs, {len(STATE)} bytes removed" in collect()
    assert not stage.api_of(stage.provider).has_blob(sha256(STATE))
    assert stage.api_of(stage.client).has_blob(sha256(RECIPE))
    assert "0 blobs, 0 bytes removed" in collect()
