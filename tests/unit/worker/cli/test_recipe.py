"""Which of a machine's processors `gpumarket recipe measure` measures a job on."""

from pathlib import Path

import pytest

from contracts.errors import UserError
from contracts.job.spec import Resources
from tests.support.recipes import toy_job
from worker.cli import recipe
from worker.cli.recipe import choose_bench
from worker.driver.nvml import GpuName
from worker.machine.hardware import Machine, Processor

GOOD = [Processor("cuda", "A", 24_000, uuid=f"GPU-{index}", index=index) for index in range(3)]
BROKEN = Processor("cuda", "A", 0, index=0, works=False)
OTHER = Processor("cuda", "B", 8_000, uuid="GPU-9", index=9)
PARTS = [Processor("cuda", "A", 10_000, uuid=f"MIG-{index}", index=0, part=True) for index in range(2)]
LOST = "GPU 0 has fallen off the bus (restart)"


@pytest.mark.parametrize(
    ("cards", "wanted", "names", "model"),
    [
        ((), 1, (), "A CPU"),
        (GOOD, 0, (), "A CPU"),
        ((BROKEN,), 0, (), "A CPU"),
        (GOOD, 2, ("GPU-0", "GPU-1"), "A"),
        ((BROKEN, *GOOD[1:]), 2, ("GPU-1", "GPU-2"), "A"),
        ((GOOD[0], OTHER, GOOD[2]), 2, ("GPU-0", "GPU-2"), "A"),
        (PARTS, 2, ("MIG-0",), "A"),
        ((Processor("cuda", "A", 24_000, index=4),), 1, (4,), "A"),
    ],
)
def test_only_gpus_that_can_be_used_together(
    cards: tuple[Processor, ...],
    wanted: int,
    names: tuple[GpuName, ...],
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trouble = LOST if BROKEN in cards else None
    processors = tuple(cards) or (Processor("cpu", "A CPU", 16_000),)
    monkeypatch.setattr(recipe, "probe", lambda: Machine(processors, "A CPU", 4, 8, 16_000, trouble=trouble))
    spec = toy_job(tmp_path, resources=Resources(gpus=wanted))
    bench, found = choose_bench(spec, 1, 1, False)
    assert (bench.gpus, bench.device, found) == (names, "cuda" if names else "cpu", model)


def test_a_gpu_job_is_not_measured_on_a_machine_whose_gpus_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "probe", lambda: Machine((BROKEN,), "A CPU", 4, 8, 16_000, trouble=LOST))
    with pytest.raises(UserError, match="the job wants a GPU: GPU 0 has fallen off the bus"):
        choose_bench(toy_job(tmp_path, resources=Resources(gpus=1)), 1, 1, False)
