"""Looks whether the machine is needed for something else: the owner's wish on disk, and who is at work here."""

import math
import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pynvml

from contracts.strict_json import read_json, write_json
from worker.driver.nvml import GpuName, handles
from worker.files import provider_folder, write_atomically
from worker.pauses import Pause, decide
from worker.sandbox.limits import descendants
from worker.settings import ProviderSettings

PAUSE_FILE = "pause.json"
LOOK_SECONDS = 5.0  # over which CPU use is taken
FLEET = "GPUMARKET_FLEET"  # the process that runs all lots here: what is below it is no stranger


class Presence:
    """Of the people and programs that share this machine with one agent."""

    def __init__(self, key: str, settings: ProviderSettings) -> None:
        self._key, self._settings = key, settings
        self._root = int(os.environ.get(FLEET, os.getpid()))
        self._others_cpu = OthersCpu(self._root)
        self._busy: str | None = None
        self._look_at = self._quiet_at = 0.0  # monotonic

    def look(self) -> Pause | None:
        """Why there should be no training now, if so. Quick: counts processes every few seconds only."""
        rules, now = self._settings.owner, time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if reason := self._who_is_busy():
                self._busy, self._quiet_at = reason, now + rules.quiet_seconds
        busy = self._busy if now < self._quiet_at else None
        return decide(time.time(), read_wish(self._key), rules.hours, busy)

    def _who_is_busy(self) -> str | None:
        rules = self._settings.owner
        if rules.typed_seconds is not None and (since := seconds_since_typed()) < rules.typed_seconds:
            return f"somebody typed {since:.0f} s ago"
        if rules.others_cpu is not None and (share := self._others_cpu.share()) > rules.others_cpu:
            return f"other programs use {share:.0%} of the CPU"
        if rules.others_gpu and self._settings.device == "cuda":
            strangers = gpu_processes(self._settings.gpu_names) - {process.pid for process in descendants(self._root)}
            if strangers:
                return f"process {min(strangers)} computes on the GPU"
        return None


class OthersCpu:
    """How much of the CPU goes to processes that are not below `root`."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._before: tuple[float, float, float] | None = None  # monotonic; CPU seconds of all, and of ours

    def share(self) -> float:
        """Of all cores together, since it was last asked; 0 at first."""
        before = self._before
        times = psutil.cpu_times()
        everything = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        self._before = time.monotonic(), everything, cpu_seconds(self._root)
        if before is None:
            return 0.0
        seconds, all_used, ours = (new - old for new, old in zip(self._before, before, strict=True))
        return max(0.0, all_used - ours) / max(seconds, 0.001) / (psutil.cpu_count() or 1)


def cpu_seconds(root: int) -> float:
    """CPU time of a process, of all below it, and of those below it that have ended."""
    total = 0.0
    for process in descendants(root):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])  # own and children's, user and system
    return total


def seconds_since_typed() -> float:
    """Since the last key on a terminal that somebody is logged in at; infinite if nobody is."""
    newest = -math.inf
    for user in psutil.users():
        with suppress(OSError):
            newest = max(newest, Path("/dev", user.terminal or "nowhere").stat().st_atime)
    return max(0.0, time.time() - newest)


def gpu_processes(names: tuple[GpuName, ...]) -> set[int]:
    """Process ids that compute on these GPUs, by NVML; none where it can't tell."""
    found: set[int] = set()
    with suppress(pynvml.NVMLError), handles(names) as gpus:
        for handle, _ in gpus:
            found |= {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    return found


# ------------------------------------------------------------------ the owner's wish


def read_wish(key: str) -> float | None:
    """Until when the owner wants a pause (UTC seconds; infinite: until `resume`); None if there is no such wish."""
    try:
        until = read_json((provider_folder(key) / PAUSE_FILE).read_bytes())["until"]
        return math.inf if until is None else float(until)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # somebody wrote it by hand: a pause is what they want
        return math.inf


def write_wish(key: str, until: float | None) -> None:
    """Asks the key's agent to pause until then, running or not; None: to go on."""
    path = provider_folder(key) / PAUSE_FILE
    if until is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, write_json({"until": until if math.isfinite(until) else None}).encode())
