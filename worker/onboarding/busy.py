"""Whether a machine can be measured now: has it the room, and does anybody else work on it meanwhile?"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from contracts.errors import UserError
from contracts.settings import home
from contracts.types import MB
from worker.driver.nvml import GpuName
from worker.machine.presence import OthersCpu, gpu_processes
from worker.sandbox.limits import descendants
from worker.training.environment import Device

MEASURE_MEMORY_MB = 1_500  # that the shipped GPT takes, with torch around it
MEASURE_DISK_MB: dict[Device, int] = {"cpu": 256, "cuda": 2_048}  # of its checkpoints: two may lie there at a time
LEAST_DISK_MB = 1_024  # for jobs, without which hardly any fits
DISK_SHARE = 0.8  # of what is free, that a job may take
LOOK_SECONDS = 2.0  # between two looks at who computes on the GPUs
BUSY_SHARE = 0.1  # of all cores, that others may use without a word about it


def check_memory(offered_mb: int) -> None:
    """Raises UserError if more is to be offered than the machine has."""
    memory = psutil.virtual_memory()
    if offered_mb > memory.total // MB:
        raise UserError(
            f"this machine has {memory.total // MB:,} MB of memory, and {offered_mb:,} MB are to be offered",
            "give a smaller --memory",
        )


def check_room_to_measure(device: Device) -> None:
    """Raises UserError if the measurement would not fit into memory or disk now."""
    memory = psutil.virtual_memory()
    if memory.available // MB < MEASURE_MEMORY_MB:
        raise UserError(
            f"{memory.available // MB:,} MB of memory are free; the measurement takes {MEASURE_MEMORY_MB:,} MB",
            "end other programs, or give --units-per-hour instead of measuring",
        )
    if (free := free_mb(Path(tempfile.gettempdir()))) < MEASURE_DISK_MB[device]:
        raise UserError(
            f"{free:,} MB are free in {tempfile.gettempdir()}; the measurement takes {MEASURE_DISK_MB[device]:,} MB",
            "free some, set TMPDIR to another disk, or give --units-per-hour instead of measuring",
        )


def room_for_jobs(wanted_mb: int, *, chosen: bool) -> int:
    """MB of disk that a job may take: what is wanted; less where that is not free, but for what its owner has chosen.

    Raises UserError if there is not enough.
    """
    free = free_mb(home())
    if wanted_mb <= free * DISK_SHARE or (chosen and wanted_mb <= free):
        return wanted_mb
    if chosen:
        raise UserError(
            f"{free:,} MB are free in {home()}, and a job may take {wanted_mb:,} MB",
            "free some, or set a smaller disk_mb in provider.toml",
        )
    if free * DISK_SHARE < LEAST_DISK_MB:
        raise UserError(
            f"{free:,} MB are free in {home()}: too little for the files and checkpoints of jobs",
            "free some, or set GPUMARKET_HOME to a folder on another disk",
        )
    return int(free * DISK_SHARE)


def free_mb(folder: Path) -> int:
    """On the disk of the folder, which may not be there yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free // MB


class Neighbours:
    """Who else used the machine while it was measured."""

    def __init__(self, gpus: tuple[GpuName, ...]) -> None:
        self._gpus, self._cpu = gpus, OthersCpu(os.getpid())
        self._cpu.share()
        self._strangers: set[int] = set()
        self._look_at = 0.0  # monotonic

    def look(self) -> None:
        """Called again and again meanwhile."""
        if self._gpus and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            ours = {process.pid for process in descendants(os.getpid())}
            self._strangers |= gpu_processes(self._gpus) - ours

    def sentences(self) -> Iterator[str]:
        """At the end; nothing if the machine was left alone."""
        if (share := self._cpu.share()) > BUSY_SHARE:
            yield f"other programs used {share:.0%} of the CPU meanwhile"
        for pid in sorted(self._strangers)[:3]:
            yield f"process {pid} computed on the GPU meanwhile"
