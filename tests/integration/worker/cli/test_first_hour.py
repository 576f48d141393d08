"""A provider's first hour: a machine that is not well, what to ask for it, and what it would earn."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pynvml
import pytest
from typer.testing import CliRunner, Result

from contracts.chain.client import Chain
from contracts.cli import main
from tests.support.devnet import Funded
from tests.support.nvidia_driver import FakeCard, FakeDriver
from tests.support.whole_market import KEY, PASSWORD, RESOURCES, TOKEN, Stage, wait_for
from worker.machine.hardware import probe
from worker.onboarding import register as registration
from worker.settings import provider_settings_path, read_provider_settings

pytestmark = pytest.mark.mostly_sqlite

Run = Callable[..., Result]
BURN = "import time; end = time.monotonic() + 600\nwhile time.monotonic() < end: pass"


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
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(main.app, ["provider", *arguments])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done

    return run


def register(stage: Stage, *more: str) -> list[str]:
    return [
        "register", "--key", KEY, "--market", stage.market.url, "--price", "0.8", "--stake", "100",
        "--units-per-hour", "3600000", "--yes", *more,
    ]  # fmt: skip


def test_a_driver_that_does_not_answer_is_named_and_no_cpu_is_sold_for_it(
    stage: Stage, run: Run, fake_driver: FakeDriver
) -> None:
    fake_driver.broken = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    for more in ([], ["--dry-run"], ["--gpus", "0"]):
        error = run(*register(stage, *more), code=1).stderr
        assert "an NVIDIA driver which does not answer: it was upgraded" in error and "--gpus none" in error
    assert not provider_settings_path(KEY).exists()
    run(*register(stage, "--gpus", "none"))  # in so many words
    offer = read_provider_settings(KEY)
    assert (offer.device, offer.gpus, offer.resources.gpus) == ("cpu", (), 0)
    found = run("selftest", "--key", KEY, "--measure-seconds", "0").stdout
    assert re.search(r"warn\s+gpu: this lot trains on the CPU .* driver which does not answer", found)


def test_gpus_are_registered_by_uuid(stage: Stage, run: Run, fake_driver: FakeDriver) -> None:
    fake_driver.cards = [FakeCard(uuid="GPU-a"), FakeCard(uuid="GPU-b"), FakeCard(uuid="GPU-c", ecc=1)]
    assert "1 uncorrected ECC errors" in run(*register(stage), code=1).stderr
    assert "does not work" in run(*register(stage, "--gpus", "1,2"), code=1).stderr
    run(*register(stage, "--gpus", "1,0"))
    offer = read_provider_settings(KEY)
    assert (offer.device, offer.gpus, offer.resources.gpus) == ("cuda", ("GPU-a", "GPU-b"), 2)
    (report,) = json.loads(run("status", "--key", KEY, "-o", "json").stdout)
    assert report["waits"] == []
    fake_driver.cards[1].errors["handle"] = pynvml.NVML_ERROR_GPU_IS_LOST
    (report,) = json.loads(run("status", "--key", KEY, "-o", "json").stdout)
    (why,) = report["waits"]
    assert "GPU GPU-b is not there: GPU 1 has fallen off the bus" in why
    assert "has fallen off the bus" in re.sub(r"\s+", " ", run("status", "--key", KEY).stdout)
    found = run("selftest", "--key", KEY, "--measure-seconds", "0", code=1).stdout
    assert "GPU GPU-b is not there: GPU 1 has fallen off the bus" in found


def test_a_file_of_before_names_gpus_by_index(stage: Stage, run: Run, fake_driver: FakeDriver) -> None:
    card = RESOURCES.model_copy(update={"device": "NVIDIA GeForce RTX 4090", "gpus": 1, "vram_mb": 24_564})
    stage.offer(device="cuda", gpus=(0,), resources=card)
    assert read_provider_settings(KEY).gpus == (0,)
    found = run("selftest", "--key", KEY, "--measure-seconds", "0", code=1).stdout  # no stake
    assert re.search(r"ok\s+gpu: 0: NVIDIA GeForce RTX 4090", found)
    path = provider_settings_path(KEY)
    path.write_text(path.read_text().replace("gpus = [0]", 'gpus = ["card 0"]'))
    assert "card 0" in run("status", "--key", KEY, code=1).stderr


def test_who_has_a_running_agent_is_told_to_restart_it(stage: Stage, run: Run) -> None:
    run(*register(stage))
    with stage.agent(price_per_hour=800_000, max_stake=100 * TOKEN):
        told = wait_for("the agent", lambda: "restart it" in run(*register(stage)).stdout)
        assert told
        assert json.loads(run(*register(stage, "-o", "json")).stdout)["restart"] is True
    assert "next: gpumarket provider start" in run(*register(stage)).stdout


@contextmanager
def half_of_the_cores_busy() -> Iterator[None]:
    """With programs of somebody else: not below the command that is run meanwhile."""
    burning = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(max(1, (os.cpu_count() or 1) // 2))]
    try:
        yield
    finally:
        for one in burning:
            one.kill()
            one.wait()


@pytest.mark.long
def test_a_machine_that_is_busy_while_it_is_measured(stage: Stage, run: Run) -> None:
    if len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        pytest.skip("it may not use all cores of this machine, so it can't keep them busy")
    command = [
        str(Path(sys.executable).with_name("gpumarket")), "provider", "register", "--key", KEY,
        "--market", stage.market.url, "--price", "0.8", "--stake", "100", "--gpus", "none",
        "--measure-seconds", "1", "--dry-run", "-o", "json",
    ]  # fmt: skip
    environment = os.environ | {"COLUMNS": "80"}
    with half_of_the_cores_busy():
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (busy,) = json.loads(done.stdout)["busy"]
    assert re.fullmatch(r"other programs used \d+% of the CPU meanwhile", busy)
    assert f"{busy}: the speed may be too low. Measure again when" in " ".join(done.stderr.split())
    assert not provider_settings_path(KEY).exists()


def test_what_it_would_earn_where_nobody_is(stage: Stage, run: Run) -> None:
    estimate = ["estimate", "--market", stage.market.url]
    shown = run(*estimate).stdout
    assert "0, of which 0 like this one" in shown and "there is no price to compare with" in shown
    shown = run(*estimate, "--price", "0.8", "--power-price", "0.3", "--watts", "450").stdout
    assert "0.665 an hour, 15.96 a day, 485.45 a month" in shown
    assert "nobody can say" in shown
    assert "--watts" in run(*estimate, "--price", "0.8", "--power-price", "0.3", code=1).stderr
    error = run(*estimate, "--price", "0", code=1).stderr
    assert "'0' is no amount" in error


def test_a_price_is_suggested_where_others_are(stage: Stage, run: Run) -> None:
    run(*register(stage))
    machine = registration.describe(probe(), ("torch-2.13",), "", (), 1_000)
    with stage.agent(resources=RESOURCES.model_copy(update={"device": machine.device}), price_per_hour=700_000):
        wait_for("an Ask", lambda: list(stage.market.asks(status="open")))
        told = json.loads(run("estimate", "--market", stage.market.url, "-o", "json").stdout)
        assert (told["suggested_price"], told["price"], told["machines_like_it"]) == ("0.7", "0.7", 1)
        assert told["busy_share"] == 0 and told["earns"]["always_busy"]["hour"] == "0.7"
        assert told["earns"]["as_busy_as_others"] is None
        shown = run("estimate", "--market", stage.market.url).stdout
        assert "nothing: no machine here has work at the moment" in " ".join(shown.split())
        shown = run(*register(stage, "--dry-run")).stdout
        assert re.search(r"0\.7 \w+: what such machines", re.sub(r"\s+", " ", shown))
