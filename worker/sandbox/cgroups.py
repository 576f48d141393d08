"""A control group for each run, where this machine lets us make one: then the kernel counts all memory of a run, with
its own, and keeps the limit exactly.

Version 2, where this process's group is ours (a systemd unit with `Delegate=`), or version 1's memory controller, which
root can use. Elsewhere there is none, and `limits.check_usage` is all there is.
"""

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

OWN = "gpumarket-agent"  # where this process goes under version 2: groups with limits for their parts hold no process
RUN = "gpumarket-run-"
REMOVE_SECONDS = 5.0  # for the kernel to let go of what has ended
TCP_SHARE = 4  # version 1 counts the buffers of TCP apart: they get memory_mb / 4
NONE = 1 << 62  # version 1's way to say: no limit

_numbers = itertools.count()


class GroupPlace(NamedTuple):
    """Where groups can be made."""

    folder: Path
    version: Literal[1, 2]


class MemoryGroup:
    """One run's group, with a limit on the memory of all that is in it, swap and the kernel's own included."""

    def __init__(self, place: GroupPlace, memory_bytes: int) -> None:
        """Raises OSError if the kernel does not allow it."""
        self._version = place.version
        self._folder = place.folder / f"{RUN}{identity(os.getpid())}-{next(_numbers)}"
        self._folder.mkdir()
        try:
            for name, value in _settings(place.version, memory_bytes, self._folder):
                (self._folder / name).write_text(value)
        except OSError:
            self.remove()
            raise

    def command(self, argv: Sequence[str]) -> list[str]:
        """The same program, which first goes into the group."""
        return ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._folder / "cgroup.procs"), *argv]

    def kills(self) -> int:
        """How many of its processes the kernel has ended because the limit was reached."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        with contextlib.suppress(OSError, ValueError, IndexError):
            words = (self._folder / name).read_text().split()
            return int(words[words.index("oom_kill") + 1])
        return 0

    def remove(self) -> None:
        """After its processes have ended."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while self._folder.exists() and not _removed(self._folder) and time.monotonic() < deadline:
            time.sleep(0.02)


def new_memory_group(memory_bytes: int) -> MemoryGroup | None:
    """None where this machine lets us make none."""
    place = group_place()
    if place is None:
        return None
    _remove_abandoned(place.folder)
    try:
        return MemoryGroup(place, memory_bytes)
    except OSError:
        return None


def identity(pid: int) -> str | None:
    """A process, told from a later one of the same id by when it began, in ticks since boot; None if it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return None
    return f"{pid}-{after_name.split()[19]}"


@functools.cache
def group_place() -> GroupPlace | None:
    """Where this process may make groups that limit memory, found by making one."""
    for place in _candidates(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()):
        try:
            if place.version == 2:
                place = _delegated(place.folder)
            MemoryGroup(place, NONE).remove()
        except OSError:
            continue
        return place
    return None


def _candidates(mounts: str, groups: str) -> Iterator[GroupPlace]:
    """This process's own group in each hierarchy that may know memory, as far as that is mounted."""
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in groups.splitlines())}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, mounted = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            path, version = own.get(""), 2
        elif kind == "cgroup" and "memory" in options.split(","):
            path, version = next((own[names] for names in own if "memory" in names.split(",")), None), 1
        else:
            continue
        if path is not None and (path + "/").startswith(root.rstrip("/") + "/"):
            yield GroupPlace(Path(mounted, path[len(root.rstrip("/")) :].lstrip("/")), 2 if version == 2 else 1)


def _delegated(group: Path) -> GroupPlace:
    """A group of version 2 whose parts may have limits on memory. Raises OSError if this process has none."""
    if group.name == OWN:
        group = group.parent
    if "memory" not in (group / "cgroup.controllers").read_text().split():
        raise PermissionError(f"{group} has no say over memory")
    if "memory" not in (group / "cgroup.subtree_control").read_text().split():
        ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
        inside = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
        if not ours.issuperset(inside):
            raise PermissionError(f"{group} holds processes that are not ours to move")
        (group / OWN).mkdir(exist_ok=True)
        for pid in inside:
            with contextlib.suppress(ProcessLookupError):
                (group / OWN / "cgroup.procs").write_text(str(pid))
        (group / "cgroup.subtree_control").write_text("+memory")
    return GroupPlace(group, 2)


def _settings(version: int, memory_bytes: int, folder: Path) -> Iterator[tuple[str, str]]:
    if version == 2:
        yield "memory.max", str(memory_bytes) if memory_bytes < NONE else "max"
        yield "memory.oom.group", "1"  # what is left of a run would wait for the one that was killed
        if (folder / "memory.swap.max").exists():
            yield "memory.swap.max", "0"
        return
    yield "memory.limit_in_bytes", str(memory_bytes)
    if (folder / "memory.memsw.limit_in_bytes").exists():
        yield "memory.memsw.limit_in_bytes", str(memory_bytes)
    yield "memory.kmem.tcp.limit_in_bytes", str(memory_bytes // TCP_SHARE)


def _remove_abandoned(folder: Path) -> None:
    """Groups whose worker was killed; its runs died with it."""
    for group in folder.glob(f"{RUN}*"):
        owner = group.name.removeprefix(RUN).rpartition("-")[0]
        if identity(int(owner.partition("-")[0])) != owner:
            _removed(group)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True
