"""Whether there is room for a measurement and for jobs, and who else used the machine meanwhile."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import UserError
from worker.onboarding import busy
from worker.onboarding.busy import Neighbours, check_memory, check_room_to_measure, free_mb, room_for_jobs

GB = 1 << 30


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """What is free on every disk, and in memory, in bytes."""
    room = SimpleNamespace(free=100 * GB, total=8 * GB, available=8 * GB)
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(busy.shutil, "disk_usage", lambda folder: room)
    monkeypatch.setattr(busy.psutil, "virtual_memory", lambda: room)
    yield room


def test_jobs_get_what_they_may_have_of_the_disk(free: Any) -> None:
    assert room_for_jobs(20_480, chosen=False) == 20_480
    free.free = 10 * GB
    assert room_for_jobs(20_480, chosen=False) == int(10_240 * 0.8)
    assert room_for_jobs(10_000, chosen=True) == 10_000  # its owner has said so
    with pytest.raises(UserError, match=r"10,240 MB are free in .*, and a job may take 20,480 MB"):
        room_for_jobs(20_480, chosen=True)
    free.free = GB
    with pytest.raises(UserError, match="too little for the files"):
        room_for_jobs(20_480, chosen=False)


def test_there_is_no_measuring_without_room(free: Any) -> None:
    check_room_to_measure("cpu")
    free.free = GB
    check_room_to_measure("cpu")
    with pytest.raises(UserError, match=r"1,024 MB are free in .*; the measurement takes 2,048 MB"):
        check_room_to_measure("cuda")
    free.available = GB
    with pytest.raises(UserError, match="1,024 MB of memory are free; the measurement takes 1,500 MB"):
        check_room_to_measure("cpu")


def test_more_memory_than_there_is_can_not_be_offered(free: Any) -> None:
    check_memory(8 * 1024)
    with pytest.raises(UserError, match="this machine has 8,192 MB of memory, and 8,193 MB are to be offered"):
        check_memory(8 * 1024 + 1)


def test_a_folder_that_is_not_there_yet_is_on_some_disk(tmp_path: Path) -> None:
    assert free_mb(tmp_path / "a" / "b") == free_mb(tmp_path)


@pytest.mark.parametrize(
    ("share", "told"), [(0.5, ["other programs used 50% of the CPU meanwhile"]), (0.05, [])], ids=["busy", "idle"]
)
def test_strangers_are_told_and_ours_are_not(share: float, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy.OthersCpu, "share", lambda self: share)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as ours:
        monkeypatch.setattr(busy, "gpu_processes", lambda names: {ours.pid, os.getppid()})
        neighbours = Neighbours(("GPU-1",))
        neighbours.look()
        found = list(neighbours.sentences())
        ours.communicate(b"\n")
    assert found == [*told, f"process {os.getppid()} computed on the GPU meanwhile"]
