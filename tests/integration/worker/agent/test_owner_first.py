"""A machine whose owner comes first: pauses, leases that are not wanted, several lots."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contracts.api.bodies import JobStatus
from contracts.chain.client import Chain
from contracts.job.provider_wants import Wants
from contracts.wallet import keys
from market.matching import fitting
from tests.support.devnet import Funded
from tests.support.whole_market import KEY, PASSWORD, TOKEN, Stage, wait_for
from worker.files import provider_folder
from worker.lease.folder import LeaseFolder, Store
from worker.machine.presence import write_wish
from worker.settings import SETTINGS_FILE, ProviderSettings, write_provider_settings


@pytest.fixture
def stage(chain: Chain, funded: Funded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    rules = chain.settings.rule_set("unchecked").model_copy(
        update={"checkpoint_timeout": 360, "window": 3, "arbiter_fee": 1}
    )
    matcher, approver = funded(2)
    client, provider = funded(2, free=100 * TOKEN)
    # One kind: a provider sees the database through the API only, which the market's tests try on both.
    database = f"sqlite:///{tmp_path}/market.sqlite3"
    with Stage(chain, tmp_path, rules, matcher, client, provider, approver, database) as stage:
        yield stage


def only_lease(key: str = KEY) -> LeaseFolder | None:
    return next(Store(key).leases(), None)


def test_a_short_pause_holds_the_lease_and_a_long_one_gives_it_back(stage: Stage) -> None:
    job = stage.submit(checkpoints=24, pause=0.1)
    with stage.approving(), stage.agent(finish_seconds=0):
        wait_for("a checkpoint", lambda: stage.made() >= 1)
        write_wish(KEY, time.time() + 4)
        wait_for("a withdrawn Ask", lambda: stage.chain.account(stage.provider.address).page == 1)
        first = only_lease()
        assert first is not None
        assert first.file.goal == "training"  # it is held, and goes on
        before = first.file.made
        wait_for("more checkpoints", lambda: stage.made() > before)

        write_wish(KEY, math.inf)
        wait_for("its end", lambda: stage.folder().file.goal == "over")
        released = stage.folder().file
        assert "paused by hand" in released.reason
        assert released.penalty == 0 and released.settled == released.made  # nothing is lost
        time.sleep(1)
        assert len(stage.leases(job)) == 1  # no Ask, no lease
        write_wish(KEY, None)
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
    assert len(stage.leases(job)) == 2


def test_a_client_who_is_denied_is_not_matched(stage: Stage) -> None:
    job = stage.submit(checkpoints=2)
    with stage.agent(wants=Wants(deny_clients=(stage.client.address,))):
        wait_for("the reason", lambda: "refuses this client" in stage.job(job).reason)
    assert not stage.leases(job)


def test_a_lease_that_is_not_wanted_is_given_back_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the market did not heed what Asks say."""
    monkeypatch.setattr(fitting, "welcome", lambda wants, client, recipe, standing: True)
    job = stage.submit(checkpoints=2)
    recipe = stage.job(job).spec.files["recipe.py"].sha256
    with stage.approving(), stage.agent(wants=Wants(deny_recipes=(recipe,))):
        wait_for("the lease's end", lambda: (lease := only_lease()) and lease.file.goal == "over")
        lease = stage.folder()
        assert f"{recipe} is on this provider's deny list" in lease.file.reason
        assert (lease.file.made, lease.file.penalty, lease.file.failed) == (0, 0, False)
        assert not list(lease.job_folder.rglob("*.py"))  # not even fetched
        wait_for("a withdrawn Ask", lambda: stage.chain.account(stage.provider.address).page == 1)
        time.sleep(2)  # eight epochs
        assert len(stage.leases(job)) == 1
    assert stage.free(stage.provider) == 100 * TOKEN


@pytest.mark.long
def test_two_lots_work_at_once_and_one_that_dies_is_started_again(stage: Stage, funded: Funded) -> None:
    (other,) = funded(free=100 * TOKEN)
    keys.save("lot1", other, PASSWORD, scrypt_n=2)
    offer = stage.offer(grace_seconds=10)
    half = offer.model_copy(update={"resources": offer.resources.model_copy(update={"memory_mb": 1_000})})
    write_provider_settings(KEY, half)
    write_provider_settings("lot1", half)
    jobs = [stage.submit(checkpoints=5, pause=0.15, nonce=nonce) for nonce in (0, 1)]
    log = stage.home / "fleet.log"
    with stage.approving():
        fleet = start_fleet(stage, log)
        wait_for("both lots at work", lambda: all((one := only_lease(key)) and one.file.made for key in (KEY, "lot1")))
        agents = {key: pid_of(log, key) for key in (KEY, "lot1")}
        if len(os.sched_getaffinity(0)) > 1:
            cores = [os.sched_getaffinity(pid) for pid in agents.values()]
            assert not cores[0] & cores[1]
        for process in [psutil.Process(fleet.pid), *psutil.Process(fleet.pid).children(recursive=True)]:
            assert PASSWORD not in " ".join(process.cmdline())
            if process.pid != fleet.pid:
                assert PASSWORD not in process.environ().values()

        os.kill(agents["lot1"], signal.SIGKILL)
        for job in jobs:
            wait_for("the job's end", lambda job=job: stage.job(job).status == JobStatus.DONE)
        assert pid_of(log, "lot1") != agents["lot1"] and pid_of(log, KEY) == agents[KEY]
        fleet.send_signal(signal.SIGTERM)
        assert fleet.wait(300) == 0
    assert PASSWORD not in log.read_text()
    assert not [pid for pid in agents.values() if psutil.pid_exists(pid)]
    assert {lease.provider for job in jobs for lease in stage.leases(job)} == {stage.provider.address, other.address}


def start_fleet(stage: Stage, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"GPUMARKET_HOME": str(stage.home), "GPUMARKET_PASSWORD": PASSWORD}
    command = [str(Path(sys.executable).with_name("gpumarket")), "provider", "start", "--all", "--json-logs"]
    with open(log, "wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    stage.processes.append(process)
    return process


def pid_of(log: Path, key: str) -> int:
    """Of the lot's newest agent."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return int([line for line in lines if line["event"] == "lot.started" and line["lot"] == key][-1]["pid"])


def test_lots_that_sell_too_much_do_not_start(stage: Stage) -> None:
    offer: ProviderSettings = stage.offer()
    memory = psutil.virtual_memory().total >> 20
    greedy_one = offer.model_copy(update={"resources": offer.resources.model_copy(update={"memory_mb": memory})})
    for key in (KEY, "lot1"):
        write_provider_settings(key, greedy_one)
    fleet = start_fleet(stage, stage.home / "fleet.log")
    assert fleet.wait(300) == 1
    text = (stage.home / "fleet.log").read_text()
    assert f"this machine has {memory}" in text and "--memory" in text
    assert (provider_folder("lot1") / SETTINGS_FILE).exists()
