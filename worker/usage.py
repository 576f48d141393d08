"""What a training process and its children take of this machine, and the limits on that."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from worker.failures import Failure
from worker.messages import ResourceLimits

MB = 1 << 20

# Address space that torch and its threads reserve beside what a recipe asks for: 190 MB were measured after
# an import and a first backward pass on the CPU, with room for thread stacks and the allocator's arenas.
BASE_DATA_MB = 1024

ENTRY_BYTES = 4096  # that a file takes beside its content


@dataclass(frozen=True)
class Limits:
    """Limits on one training run. All its processes together, unless stated otherwise."""

    memory_mb: int = 4096
    disk_mb: int = 4096  # of the output folder, hence of the checkpoints that wait to be taken
    processes: int = 256  # threads included
    start_seconds: float = 300  # until it has loaded the recipe and counted its work
    hang_seconds: float = 600  # between two messages: the longest step, or the writing of a checkpoint
    log_bytes: int = 256 * 1024

    def for_process(self, *, count_processes: bool) -> ResourceLimits:
        """What the kernel enforces on each process.

        Of memory the data segment, which is private and writable: torch and CUDA map far more address space
        than they use.
        """
        return ResourceLimits(
            data=(self.memory_mb + BASE_DATA_MB) * MB,
            file_size=self.disk_mb * MB,
            processes=self.processes if count_processes else None,
        )


def check_usage(pid: int, output: Path, limits: Limits) -> None:
    """Raises Failure of kind "memory", "processes" or "disk" if the process tree under `pid` goes too far.

    What the kernel's limits leave open: memory shared or spread over many processes, processes of root,
    many files.
    """
    processes = descendants(pid)
    threads = resident = 0
    for process in processes:
        try:
            threads += process.num_threads()
            resident += process.memory_info().rss
        except psutil.Error:
            continue
    if resident > limits.memory_mb * MB:
        raise Failure(
            "memory",
            f"the training process uses {resident // MB} MB of memory, {limits.memory_mb} MB are allowed",
            "ask for more memory_mb, or need less",
        )
    if threads > limits.processes:
        raise Failure("processes", f"{threads} processes and threads run, {limits.processes} are allowed")
    used = folder_bytes(output, enough=limits.disk_mb * MB)
    if used > limits.disk_mb * MB:
        raise Failure("disk", f"the output folder has over {limits.disk_mb} MB", "write smaller checkpoints")


def descendants(pid: int) -> list[psutil.Process]:
    """The process and all its children's children that are alive."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def folder_bytes(folder: Path, enough: int) -> int:
    """Disk space of what is under a folder; counting ends once it is over `enough`. Follows no links.

    Raises Failure("disk") for a folder that can't be looked into.
    """
    total = 0
    folders = [os.fspath(folder)]
    while folders and total <= enough:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        total += entry.stat(follow_symlinks=False).st_blocks * 512 + ENTRY_BYTES
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Failure("disk", f"the output folder has a folder that hides its content: {error}") from error
    return total
