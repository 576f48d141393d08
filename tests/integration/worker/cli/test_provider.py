"""`gpumarket provider register` and `status`, against a real chain and market."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from contracts.chain.client import Chain
from contracts.cli import main
from contracts.wallet import keys
from tests.support.devnet import Funded
from tests.support.whole_market import KEY, PASSWORD, TOKEN, Stage
from worker.settings import provider_settings_path, read_provider_settings

pytestmark = pytest.mark.mostly_sqlite

Run = Callable[..., Result]


@pytest.fixture
def stage(
    chain: Chain, funded: Funded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> Iterator[Stage]:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    provider, matcher, approver = funded(3)
    (client,) = funded(free=100 * TOKEN)
    rules = chain.settings.rule_set("unchecked").model_copy(update={"checkpoint_timeout": 120})
    with Stage(chain, tmp_path, rules, matcher, client, provider, approver, database_url) as stage:
        yield stage


@pytest.fixture
def run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`gpumarket provider ...` in this process: a dozen new ones would take their time to start."""
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(main.app, ["provider", *arguments])
        assert done.exit_code == code, done.output
        return done

    return run


def register(stage: Stage, *more: str, key: str = KEY) -> list[str]:
    return [
        "register", "--key", key, "--market", stage.market.url, "--price", "0.8", "--stake", "100",
        "--units-per-hour", "3600000", *more,
    ]  # fmt: skip


def test_registering_deposits_what_is_missing_and_writes_the_offer(stage: Stage, run: Run) -> None:
    shown = run(*register(stage, "--max-stake", "50", "--yes")).stdout
    offer = read_provider_settings(KEY)
    assert (offer.price_per_hour, offer.units_per_hour, offer.max_stake) == (800_000, 3_600_000, 50 * TOKEN)
    assert (offer.rules_name, offer.rules, offer.market_url) == ("test", stage.rules, stage.market.url)
    assert stage.free(stage.provider) == 100 * TOKEN
    for word in (stage.provider.address, "0.8 ", "at most 50 ", "deposited 100 ", "provider start"):
        assert word in shown
    assert not list(stage.market.asks())  # only a running agent offers work

    assert "nothing, the stake is there" in run(*register(stage, "--yes")).stdout
    assert stage.free(stage.provider) == 100 * TOKEN


def test_a_dry_run_changes_nothing(stage: Stage, run: Run) -> None:
    shown = run(*register(stage, "--dry-run", key="fresh")).stdout
    assert "a new key" in shown and "nothing was made, sent or written" in shown
    assert "fresh" not in keys.list_keys() and not provider_settings_path("fresh").exists()


def test_a_dry_run_lists_the_transactions_of_the_deposit(stage: Stage, run: Run) -> None:
    told = json.loads(run(*register(stage, "--dry-run", "-o", "json")).stdout)
    (step,) = told["transactions"]
    assert step["what"].startswith("deposit 100 ") and stage.provider.address in step["what"]
    assert told["dry_run"] and int(step["max_cost_wei"]) > 0
    shown = run(*register(stage, "--dry-run")).stdout
    assert f"would {step['what']}; gas: at most" in shown and "nothing was made, sent or written" in shown
    assert stage.free(stage.provider) == 0 and not provider_settings_path(KEY).exists()
    run(*register(stage, "--yes"))
    assert json.loads(run(*register(stage, "--dry-run", "-o", "json")).stdout)["transactions"] == []


def test_a_new_key_is_made_and_told_how_to_get_tokens(stage: Stage, run: Run) -> None:
    done = run(*register(stage, "--yes", key="fresh"), code=1)
    assert keys.address("fresh") in done.stdout
    assert "100" in done.stderr and "short of its stake" in done.stderr
    assert "gpumarket wallet faucet --key fresh" in done.stderr


def test_errors_name_the_value_and_the_way_out(stage: Stage, run: Run) -> None:
    for more, problem, hint in (
        (["--rules", "nosuch"], "no rules named 'nosuch'", "it has: test"),
        (["--environment", "torch-1.0"], "'torch-1.0' is not installed", "torch-2.13"),
        (["--max-stake", "1e3"], "'1e3' is not an amount", "12.5"),
    ):
        done = run(*register(stage, "--yes", *more), code=1)
        assert problem in done.stderr and hint in done.stderr
    done = run("start", "--key", KEY, code=1)
    assert "not registered" in done.stderr and f"register --key {KEY}" in done.stderr


def test_status_shows_money_and_leases(stage: Stage, run: Run) -> None:
    run(*register(stage, "--yes"))
    (report,) = json.loads(run("status", "--key", KEY, "-o", "json").stdout)
    assert (report["free"], report["earned"], report["agent"]) == (str(100 * TOKEN), "0", "stopped")
    assert report["live"] == report["ended"] == []

    stage.submit(checkpoints=2)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
    (report,) = json.loads(run("status", "--key", KEY, "-o", "json").stdout)
    (lease,) = report["ended"]
    assert (lease["made"], lease["redeemed"], lease["earned"]) == (2, 2, str(2 * TOKEN))
    assert report["earned"] == str(2 * TOKEN)
    table = run("status", "--key", KEY).stdout
    assert stage.provider.address in table and "1-2" in table


def test_an_offer_of_nothing(stage: Stage, run: Run) -> None:
    for option in ("--price", "--stake", "--max-stake"):
        error = run(*register(stage, option, "0", "--dry-run"), code=1).stderr
        assert "'0' is no amount" in error
        assert "Traceback" not in error
