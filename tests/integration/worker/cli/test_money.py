"""`gpumarket provider earnings`, `withdraw`, `sweep`, `selftest`, against a real chain and market."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from contracts.chain.client import Chain
from contracts.chain.sending.sender import Sender
from contracts.cli import main
from contracts.orders import new_account
from contracts.wallet import keys
from tests.support.devnet import Funded
from tests.support.whole_market import KEY, PASSWORD, PRICE, TOKEN, Stage, wait_for
from worker.agent import sweep
from worker.lease.folder import Store
from worker.sandbox.bubblewrap import Bare, Bubblewrap
from worker.sandbox.leaks import sandbox_leaks
from worker.settings import MoneyRules, provider_settings_path, write_provider_settings

STAKE = 20 * TOKEN


@pytest.fixture
def stage(chain: Chain, funded: Funded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    matcher, approver = funded(2)
    client, provider = funded(2, free=100 * TOKEN, held=5 * TOKEN)
    rules = chain.settings.rule_set("unchecked").model_copy(update={"arbiter_fee": 1, "checkpoint_timeout": 120})
    # One kind: a provider sees the database through the API only, which the market's tests try on both.
    database = f"sqlite:///{tmp_path}/market.sqlite3"
    with Stage(chain, tmp_path, rules, matcher, client, provider, approver, database) as stage:
        yield stage


class Ran(NamedTuple):
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`gpumarket provider ...` in this process: a dozen new ones would take their time to start."""
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, code: int = 0) -> Ran:
        done = CliRunner().invoke(main.app, ["provider", *arguments])
        assert done.exit_code == code, done.output
        return Ran(done.stdout, done.stderr)

    return run


def test_earnings_and_what_becomes_of_them(stage: Stage, run: Run, tmp_path: Path) -> None:
    cold, chain = new_account().address, stage.chain
    before = chain.w3.eth.get_balance(stage.provider.address)
    stage.submit(checkpoints=3)
    # The agent sweeps by itself: what is over 90, but not the stake.
    money = MoneyRules(sweep_above=90 * TOKEN, sweep_to=cold, sweep_seconds=3600)
    with stage.approving(), stage.agent(once=True, money=money) as agent:
        wait_for("a sweep", lambda: chain.token_balance(cold) == 15 * TOKEN)
        agent.join(400)
    spent = before - chain.w3.eth.get_balance(stage.provider.address)
    assert stage.free(stage.provider) == 85 * TOKEN + 3 * PRICE  # and 5 in the wallet

    earned = json.loads(run("earnings", "--key", KEY, "-o", "json").stdout)
    (row,) = earned["rows"]
    assert (row["checkpoints"], row["paid"], row["penalties"], row["net"]) == (3, "3000000", "0", "3000000")
    assert row["lease"] == stage.folder().lease and row["client"] == stage.client.address
    assert 0 < int(row["gas_wei"]) < spent  # sweeps and withdrawn Asks are no lease's
    assert row["final"] is False  # some blocks old
    run("earnings", "--key", KEY, "--by", "day", "--csv", str(tmp_path / "days.csv"))
    with (tmp_path / "days.csv").open(newline="") as file:
        days = list(csv.DictReader(file))  # two at midnight, or on a machine so slow that part of it is final
    assert len({(day["day"], day["final"]) for day in days}) == len(days) and {day["lease"] for day in days} == {""}
    assert (sum(int(day["paid"]) for day in days), sum(int(day["gas_wei"]) for day in days)) == (
        3 * PRICE, int(row["gas_wei"]),
    )  # fmt: skip
    assert "3" in run("earnings", "--key", KEY).stdout

    # By hand: a dry run needs no password, and moves nothing.
    show = run("withdraw", "all", "--to", cold, "--key", KEY, "--dry-run").stdout
    assert "would withdraw 68 " in show and "nothing was sent" in show  # 88 free, of which 20 are the Ask's stake
    assert chain.token_balance(cold) == 15 * TOKEN
    error = run("withdraw", "69", "--to", cold, "--key", KEY, "--yes", code=1).stderr
    assert "of which the Ask needs 20 " in error and "--stop" in error
    sent = json.loads(run("withdraw", "8", "--to", cold, "--key", KEY, "--yes", "-o", "json").stdout)
    assert len(sent["transactions"]) == 1 and chain.token_balance(cold) == 23 * TOKEN
    run("sweep", "--above", "30", "--to", cold, "--key", KEY, "--yes")
    assert (stage.free(stage.provider), chain.token_balance(stage.provider.address)) == (25 * TOKEN, 5 * TOKEN)
    run("sweep", "--above", "0", "--to", cold, "--key", KEY, "--yes")
    assert (stage.free(stage.provider), chain.token_balance(stage.provider.address)) == (STAKE, 0)
    assert "nothing to send" in run("sweep", "--above", "0", "--to", cold, "--key", KEY, "--yes").stdout
    page = chain.account(stage.provider.address).page
    run("withdraw", "all", "--to", cold, "--key", KEY, "--stop", "--yes")
    assert stage.free(stage.provider) == 0 and chain.account(stage.provider.address).page == page + 1


def test_a_broken_file_of_a_lease_that_is_over_is_named(stage: Stage, run: Run) -> None:
    stage.offer()
    over = Store(KEY).folder / "over"
    over.mkdir()
    (over / "0x12.json").write_text('{"provider": ')
    status = ["provider", "status", "--key", KEY, "-o", "json"]
    told = subprocess.run([Path(sys.executable).with_name("gpumarket"), *status], capture_output=True, text=True)
    assert json.loads(told.stdout)[0]["ended"] == [], told.stderr
    assert f"{over}/0x12.json" in told.stderr and "take the file from a backup, or move it away" in told.stderr
    assert json.loads(run("earnings", "--key", KEY, "-o", "json").stdout)["rows"] == []


def test_money_goes_nowhere_without_a_yes_or_an_address(stage: Stage, run: Run) -> None:
    stage.offer()
    cold = new_account().address
    assert "Aborted" in run("withdraw", "1", "--to", cold, "--key", KEY, code=1).stderr
    for arguments, problem in (
        (["withdraw", "1", "--to", "0x12", "--yes"], "'0x12' is not an address"),
        (["withdraw", "0", "--to", cold, "--yes"], "'0' is no amount"),
        (["sweep", "--yes"], "sweep_above and sweep_to"),
        (["sweep", "--above", "1", "--to", stage.provider.address], "is the key 'rig' itself"),
    ):
        done = run(*arguments, "--key", KEY, code=1)
        assert problem in done.stderr + done.stdout
    assert stage.free(stage.provider) == 100 * TOKEN


def test_what_is_sent_is_what_was_asked(stage: Stage, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the owner thinks, the agent sweeps: without a second look the stake would go too."""
    stage.offer(max_stake=60 * TOKEN)
    cold, chain = new_account().address, stage.chain

    def meanwhile() -> None:
        Sender(chain, stage.provider).send(chain.withdraw(cold, 40 * TOKEN))

    monkeypatch.setattr("worker.cli.money.ask_to_go_on", meanwhile)
    asked = run("sweep", "--above", "60", "--to", cold, "--key", KEY, code=1)
    assert "has changed meanwhile; nothing was sent" in asked.stderr
    assert "20 tUSD short" in run("withdraw", "20", "--to", cold, "--key", KEY, "--yes", code=1).stderr
    assert stage.free(stage.provider) == 60 * TOKEN

    monkeypatch.setattr(sweep, "ALONE_SECONDS", 0)
    with sweep.one_mover(chain, stage.provider.address):
        done = run("withdraw", "1", "--to", cold, "--key", KEY, "--yes", "--stop", code=1)
    assert "just moving tokens" in done.stderr


def test_selftest_finds_what_is_wrong_and_says_how_to_mend_it(stage: Stage, run: Run) -> None:
    stage.offer()
    report = json.loads(run("selftest", "--key", KEY, "--measure-seconds", "0", "-o", "json").stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"] and {check["verdict"] for check in checks.values()} <= {"ok", "skip", "warn"}
    assert "trains on the CPU" in checks["gpu"]["found"] and checks["sandbox"]["verdict"] == "ok"
    assert checks["market"]["verdict"] == checks["chain"]["verdict"] == checks["stake"]["verdict"] == "ok"

    keys.keystore_path(KEY).chmod(0o644)
    stage.offer(
        max_stake=500 * TOKEN, disk_mb=2**40, market_url="http://127.0.0.1:9", sandbox="podman", image="no/such:1"
    )
    shown = run("selftest", "--key", KEY, "--measure-seconds", "0", code=1).stdout
    for words in ("chmod 600", "wallet deposit 400", "smaller disk_mb", "does not answer", "fail  sandbox: podman "):
        assert words in shown


def test_the_probe_sees_a_sandbox_that_leaks(stage: Stage) -> None:
    assert sandbox_leaks(Bubblewrap()) == []
    leaks = " ".join(sandbox_leaks(Bare()))
    for words in ("this machine's services", f"saw {stage.home}", "saw other processes"):
        assert words in leaks


def test_several_lots_in_one_status_each_with_its_own_sandbox(stage: Stage, run: Run) -> None:
    keys.save("spare", new_account(), PASSWORD, scrypt_n=2)
    write_provider_settings("spare", stage.offer().model_copy(update={"sandbox": "podman", "image": "no/such:1"}))
    report, other = json.loads(run("status", "-o", "json").stdout)
    assert [(one["key"], one["free"], one["live"]) for one in (report, other)] == [
        (KEY, str(100 * TOKEN), []),
        ("spare", "0", []),
    ]
    assert report["sandbox"] == "bubblewrap" and other["sandbox"].startswith("none (podman ")
    lines = [line.split() for line in run("status").stdout.splitlines()]
    money = {line[0]: line[-12:-2:2] for line in lines if line and line[0] in (KEY, "spare", "total")}
    rig = ["5", "100", "0", "0", "0"]  # wallet, free, staked, earned, penalties
    assert money == {KEY: rig, "spare": ["0"] * 5, "total": rig}

    provider_settings_path("spare").rename(provider_settings_path(KEY))
    options = ("--price", "1", "--stake", "100", "--units-per-hour", "1", "--market", stage.market.url, "--dry-run")
    shown = " ".join(run("register", "--key", KEY, *options).stdout.split())  # wherever its lines end
    assert "none: podman " in shown and "Only shipped recipes will run" in shown


def test_pause_resume_and_systemd(stage: Stage, run: Run) -> None:
    stage.offer()
    assert "paused until 20" in run("pause", "--for", "2h").stdout
    (report,) = json.loads(run("status", "--key", KEY, "-o", "json").stdout)
    assert report["paused"].startswith("paused by hand, until ")
    run("resume")
    (report,) = json.loads(run("status", "-o", "json").stdout)
    assert report["paused"] == ""
    assert "'2' is not a duration" in run("pause", "--for", "2", code=1).stderr
    text = run("systemd", "--password-file", "/etc/gpumarket/password").stdout
    assert f"provider start --key {KEY} " in text and PASSWORD not in text
    assert f"Environment=GPUMARKET_HOME={stage.home}" in text
