"""For how long a process could have computed, and this machine was busy with others."""

import contextlib
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import psutil

from worker.driver.nvml import GpuName
from worker.machine.presence import gpu_processes

NANOSECONDS = 10**9


class _Sight(NamedTuple):
    at: float  # monotonic
    idle: float  # seconds, of all cores
    cpu: float  # seconds, of all the processes
    delays: dict[tuple[int, str], float]  # by process and thread: seconds for which it was ready, and had no core


class Contention:
    """Of some processes with the rest of the machine, from now on."""

    def __init__(
        self, processes: Callable[[], Collection[psutil.Process]], threads: int, gpus: Collection[GpuName] | None = None
    ) -> None:
        """`threads`: cores that they may use; `gpus`: that they compute on, None: on no GPU."""
        self._processes, self._threads, self._gpus = processes, threads, gpus
        self._start = self._look()

    def waited(self) -> float:
        """Seconds since the start that were lost to others. Threads that only wait for each other lose nothing: who
        has had all the time that `threads` cores have did not wait. Of processes that can't be seen it takes the time
        for which no core was idle.
        """
        start, now = self._start, self._look()
        seconds = now.at - start.at
        if self._gpus is not None and self._strangers_on_gpu(self._gpus):
            return seconds
        if not self._processes():
            return max(0.0, seconds - (now.idle - start.idle))
        longest = max((delay - start.delays.get(of, 0.0) for of, delay in now.delays.items()), default=0.0)
        unused = seconds - (now.cpu - start.cpu) / self._threads
        return max(0.0, min(longest, unused))

    def _look(self) -> _Sight:
        cpu, delays = 0.0, dict[tuple[int, str], float]()
        for process in self._processes():
            with contextlib.suppress(psutil.Error, OSError):
                cpu += sum(process.cpu_times()[:4])
                for thread in Path(f"/proc/{process.pid}/task").iterdir():
                    with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended, or the kernel keeps none
                        words = (thread / "schedstat").read_text().split()
                        delays[process.pid, thread.name] = int(words[1]) / NANOSECONDS
        return _Sight(time.monotonic(), psutil.cpu_times().idle, cpu, delays)

    def _strangers_on_gpu(self, gpus: Collection[GpuName]) -> bool:
        """Whether others compute there, too; False where the driver shows ids of another world, as in a container."""
        there, ours = gpu_processes(tuple(gpus)), {process.pid for process in self._processes()}
        return bool(there & ours) and bool(there - ours)
