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
from worker.lease.folder import Store
from worker.machine import watch

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


def open_asks(stage: Stage) -> list[Any]:
    return list(stage.market.asks(provider=stage.provider.address, status="open"))


def ended(stage: Stage, job: str) -> list[LeaseOut]:
    return [lease for lease in stage.leases(job) if lease.finished]


def waits(stage: Stage) -> str:
    return "; ".join(Store("rig").read_state().get("waits", []))


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
        card.ecc = 2
        wait_for("the Ask's withdrawal", lambda: not open_asks(stage))
        assert "2 uncorrected ECC errors" in wait_for("why", lambda: waits(stage))


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
