"""What a training process and its children take of this machine, and the limits on that."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from contracts.types import MB
from worker.sandbox.kernel_memory import beside_resident, check_handles, open_handles
from worker.training.failures import Failure
from worker.training.messages import ResourceLimits

PAGE = os.sysconf("SC_PAGE_SIZE")

# Address space that torch and its threads reserve beside what a recipe asks for: 190 MB were measured after
# an import and a first backward pass on the CPU, with room for thread stacks and the allocator's arenas.
BASE_DATA_MB = 1024

ENTRY_BYTES = 4096  # that a file takes beside its content
MEMORY_FOLDERS = ("/tmp", "/dev/shm")
MORE_MEMORY = "ask for more memory_mb, or need less"


@dataclass(frozen=True)
class Limits:
    """Limits on one training run. All its processes together, unless stated otherwise."""

    memory_mb: int = 4096
    disk_mb: int = 4096  # of the output folder, hence of the checkpoints that wait to be taken
    files: int = 10_000  # in the output folder, and as many in each folder in memory
    processes: int = 256  # threads included
    open_files: int = 1024  # of each process; of all together no more than `files`
    sockets: int = 256  # their buffers are memory that no process has
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
            open_files=self.open_files,
            processes=self.processes if count_processes else None,
        )


def check_usage(processes: Iterable[psutil.Process], output: Path, limits: Limits) -> None:
    """Raises Failure of kind "memory", "processes" or "disk" if these processes together go too far.

    What the kernel's limits leave open: memory shared or spread over many processes, many files.
    """
    threads = resident = 0
    seen = list(processes)
    for process in seen:
        try:
            threads += process.num_threads()
            resident += process.memory_info().rss + beside_resident(process.pid)
        except psutil.Error:
            continue
        _check_memory_folders(process.pid, limits)
    if resident > limits.memory_mb * MB:
        # Shared memory was counted for each.
        resident = sum(_own_share(one.pid) + beside_resident(one.pid) for one in seen)
    if resident > limits.memory_mb * MB:
        raise Failure(
            "memory",
            f"the training process uses {resident // MB} MB of memory, {limits.memory_mb} MB are allowed",
            MORE_MEMORY,
        )
    if threads > limits.processes:
        raise Failure("processes", f"{threads} processes and threads run, {limits.processes} are allowed")
    handles = open_handles(seen, os.stat(output).st_dev, limits.files)
    check_handles(handles, seen, limits.sockets)
    entries, used = folder_usage(output, limits)
    used += sum(handles.deleted.values())
    if used > limits.disk_mb * MB:
        raise Failure("disk", f"the output folder has over {limits.disk_mb} MB", "write smaller checkpoints")
    if entries > limits.files:
        raise Failure("disk", f"the output folder has over {limits.files} files", "write fewer files")


def _own_share(pid: int) -> int:
    """Bytes of memory; a page that n processes share counts 1/n. Slow: the kernel walks through all pages."""
    with contextlib.suppress(OSError, IndexError):  # it has ended
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except PermissionError:  # a program can hide its pages from a user; then all of them are its own
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        return int(text.partition("\nPss:")[2].split()[0]) * 1024
    return 0


def _check_memory_folders(pid: int, limits: Limits) -> None:
    """A folder in memory is mounted with a size; its empty files take memory, too."""
    for folder in MEMORY_FOLDERS:
        inside = f"/proc/{pid}/root{folder}"
        try:
            if os.stat(inside).st_dev == os.stat(folder).st_dev:
                return  # not in a sandbox, or what starts one
            mounted = os.statvfs(inside)
        except OSError:  # it has ended, or is one of bubblewrap's own
            return
        if mounted.f_files - mounted.f_ffree > limits.files:
            raise Failure("disk", f"{folder} has over {limits.files} files", "write fewer files")


def memory_exceeded(limits: Limits) -> Failure:
    """What it is called that the kernel has ended a process in the run's control group."""
    return Failure(
        "memory",
        f"the training process used all of its memory: {limits.memory_mb} MB are allowed, "
        "with what the kernel holds for it and with its files in /tmp and /dev/shm",
        MORE_MEMORY,
    )


def silence(limits: Limits, *, trains: bool) -> Failure:
    """What it is called that nothing was heard for too long; `trains`: it had been ready."""
    if trains:
        message = f"no step or checkpoint was done within {limits.hang_seconds:g} s"
        hint = "Do less in a step or in evaluate(); the log's end may tell what it waits for"
    else:
        message = f"the recipe was not ready to train after {limits.start_seconds:g} s"
        hint = "Import and make less at the beginning, and do step 1 in less time"
    return Failure("hang", message, f"this is the sandbox: it ends what takes that long. {hint}")


def descendants(pid: int) -> list[psutil.Process]:
    """The process and all its children's children that are alive."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def folder_usage(folder: Path, limits: Limits) -> tuple[int, int]:
    """Files under a folder, and their bytes on disk; counting ends once either is too much. Follows no links.

    Raises Failure("disk") for a folder that can't be looked into.
    """
    count = total = 0
    folders = [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if total > limits.disk_mb * MB or count > limits.files:
                        return count, total
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        total += entry.stat(follow_symlinks=False).st_blocks * 512 + ENTRY_BYTES
                        count += 1
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Failure("disk", f"the output folder has a folder that hides its content: {error.strerror}") from error
    return count, total
