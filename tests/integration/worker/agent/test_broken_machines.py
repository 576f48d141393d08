"""A machine that loses what it sells: it gives leases back, offers nothing, and goes on when it is mended."""

import shutil
from pathlib import Path
from typing import Any

import pynvml
import pytest

from contracts.api.bodies import JobStatus, LeaseOut
from contracts.job.spec import Resources
from tests.support.nvidia_driver import FakeDriver
from tests.support.whole_market import RESOURCES, Stage, StageOf, wait_for
from worker.lease import trainer
from worker.lease.folder import Store
from worker.machine import blame, watch
from worker.sandbox.runner import Runner

pytestmark = pytest.mark.mostly_sqlite

CARD = {
    "device": "cuda",
    "gpus": ("GPU-1",),
    "resources": RESOURCES.model_copy(
        update={"device": "NVIDIA GeForce RTX 4090", "gpus": 1, "vram_mb": 24_564, "memory_mb": 4096}
    ),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.3)
    monkeypatch.setitem(watch.SANDBOX_SECONDS, "bubblewrap", 0.3)


@pytest.fixture
def training_beside_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card is the driver's word only: what an agent takes to run on it runs on the CPU, and computes."""

    def on_cpu(*given: Any, **options: Any) -> Runner:
        return Runner(*given, **options | {"device": "cpu", "gpus": ()})

    monkeypatch.setattr(trainer, "Runner", on_cpu)
    monkeypatch.setattr(blame, "compute_problem", lambda *_: None)


def open_asks(stage: Stage) -> list[Any]:
    return list(stage.market.asks(provider=stage.provider.address, status="open"))


def ended(stage: Stage, job: str) -> list[LeaseOut]:
    return [lease for lease in stage.leases(job) if lease.finished]


def waits(stage: Stage) -> str:
    return "; ".join(Store("rig").read_state().get("waits", []))


@pytest.mark.long
def test_a_driver_that_goes_away_costs_no_job(
    stage_of: StageOf, fake_driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 600.0)  # the lease comes before it is noticed
    stage = stage_of()
    with stage.agent(**CARD):
        wait_for("an Ask", lambda: open_asks(stage))
        fake_driver.broken = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
        job = stage.submit(resources=Resources(gpus=1))
        (lease,) = wait_for("the end of its lease", lambda: ended(stage, job))
        assert lease.stops == "machine" and lease.penalty == 0
        wait_for("the Ask's withdrawal", lambda: not open_asks(stage))
        assert "NVIDIA driver which does not answer: it was upgraded" in wait_for("why", lambda: waits(stage))
        assert stage.job(job).status == JobStatus.PENDING
        assert "machine" in [one.report.kind for one in stage.market.reports(job)]


def test_no_ask_for_a_gpu_that_is_not_there_until_it_is_again(stage_of: StageOf, fake_driver: FakeDriver) -> None:
    (card,) = fake_driver.cards
    card.errors["handle"] = pynvml.NVML_ERROR_GPU_IS_LOST
    stage = stage_of()
    with stage.agent(**CARD):
        assert "GPU GPU-1 is not there: GPU 0 has fallen off the bus" in wait_for("why", lambda: waits(stage))
        assert not open_asks(stage)
        card.errors.clear()
        wait_for("an Ask", lambda: open_asks(stage))
        wait_for("nothing to wait for", lambda: not waits(stage))
        wait_for("somebody who listens", lambda: fake_driver.listening)
        card.ecc = 2
        wait_for("the Ask's withdrawal", lambda: not open_asks(stage))
        assert "2 uncorrected ECC errors" in wait_for("why", lambda: waits(stage))
        wait_for("a driver that may be reset", lambda: not fake_driver.opened)


@pytest.mark.long
def test_a_gpu_that_does_not_compute_gives_the_lease_back(stage_of: StageOf, fake_driver: FakeDriver) -> None:
    """The driver says that all is well; the torch of where tests run has no CUDA."""
    stage = stage_of()
    with stage.agent(**CARD):
        job = stage.submit(resources=Resources(gpus=1))
        (lease,) = wait_for("the end of its lease", lambda: ended(stage, job))
        assert lease.stops == "machine"
        assert "a lease was given back" in wait_for("why", lambda: waits(stage))
        assert [one.report.kind for one in stage.market.reports(job)].count("machine") == 1
        assert stage.job(job).status == JobStatus.PENDING


@pytest.mark.long
def test_no_ask_without_its_sandbox_or_its_room(
    stage_of: StageOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of()
    tools = tmp_path / "bin"
    tools.mkdir()
    path = f"{tools}:{Path(shutil.which('bwrap') or '').parent}"
    with stage.agent():
        wait_for("an Ask", lambda: open_asks(stage))
        monkeypatch.setenv("PATH", str(tools))
        wait_for("the Ask's withdrawal", lambda: not open_asks(stage))
        assert "bubblewrap is not installed" in wait_for("why", lambda: waits(stage))
        monkeypatch.setenv("PATH", path)
        wait_for("an Ask", lambda: open_asks(stage))
    with stage.agent(disk_mb=10**9):
        assert "a job may take 1,000,000,000 MB" in wait_for("why", lambda: waits(stage))
        assert not open_asks(stage)


@pytest.mark.long
def test_another_environment_than_was_offered(stage_of: StageOf) -> None:
    stage = stage_of()
    old = RESOURCES.model_copy(update={"environments": ("torch-1.13",)})
    with stage.agent(resources=old):
        assert "the Ask offers torch-1.13" in wait_for("why", lambda: waits(stage))
        assert not open_asks(stage)


def test_a_reported_fault_of_the_gpu_gives_the_lease_back_at_once(
    stage_of: StageOf, fake_driver: FakeDriver, training_beside_the_card: None
) -> None:
    stage = stage_of()
    with stage.agent(**CARD):
        wait_for("an Ask", lambda: open_asks(stage))
        job = stage.submit(checkpoints=40, pause=0.5, resources=Resources(gpus=1))
        wait_for("a checkpoint", stage.made)
        fake_driver.report(31)
        fake_driver.report(119)
        (lease,) = wait_for("the end of its lease", lambda: ended(stage, job))
        assert lease.stops == "machine" and lease.penalty == 0
        wait_for("the Ask's withdrawal", lambda: not open_asks(stage))
        assert "GPU GPU-1 reported Xid 119: its system processor" in wait_for("why", lambda: waits(stage))
        assert stage.job(job).status == JobStatus.PENDING
        assert any(
            "Xid 119" in one.text for one in stage.market.reports(job) if one.report.kind == "machine" and one.text
        )


@pytest.mark.long
def test_an_xid_of_the_recipes_own_is_told_in_its_failure(
    stage_of: StageOf, fake_driver: FakeDriver, training_beside_the_card: None
) -> None:
    stage = stage_of()
    with stage.agent(**CARD):
        wait_for("an Ask", lambda: open_asks(stage))
        job = stage.submit(checkpoints=10, pause=0.3, fail_at=12, resources=Resources(gpus=1))
        wait_for("a checkpoint", stage.made)
        fake_driver.report(31)
        (lease,) = wait_for("the end of its lease", lambda: ended(stage, job))
        assert lease.stops == "failed"
        (text,) = [one.text or "" for one in stage.market.reports(job) if one.report.kind == "failed"]
        assert "no luck at step 12" in text and "(GPU GPU-1 reported Xid 31: " in text
        wait_for("an Ask", lambda: open_asks(stage))
