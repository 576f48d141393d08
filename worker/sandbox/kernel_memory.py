"""Memory of the kernel that a run holds, and that is no process's own: what of it can be seen from outside.

A control group (cgroups.py) counts all of it. This is for machines without; there the filter of system calls refuses
what can't be seen.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from worker.training.failures import Failure

EVENT_POLLS = 128  # each may watch thousands of files, at 200 bytes a watch
IN_FLIGHT = 64  # files that are on their way in messages, where nobody has them open
FILE_LOCKS = 2_000
LOCK_BYTES = 1 << 18  # of the machine's list of locks, which is looked at first
MAPPINGS = 500_000  # of memory, of all processes together, at 220 bytes each
FEW_PROCESSES = 7  # can't have so many: the kernel allows each 65,530
POLL_LINK = "anon_inode:[eventpoll]"
COUNTED = ("VmSwap:", "VmPTE:", "HugetlbPages:")  # on disk, page tables, huge pages of the reserve: all in kB


@dataclass
class Handles:
    """What processes have open."""

    count: int = 0
    deleted: dict[int, int] = field(default_factory=dict)  # bytes of files of one disk that have no name, by inode
    sockets: set[int] = field(default_factory=set)
    in_flight: int = 0
    polls: int = 0
    before: int = 0  # sockets in use when the look at these began


def beside_resident(pid: int) -> int:
    """Bytes that a process takes beside its resident memory."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(COUNTED)) * 1024
    except (OSError, IndexError, ValueError):  # it has ended
        return 0


def open_handles(processes: Iterable[psutil.Process], disk: int, most: int) -> Handles:
    """`disk`: of which deleted files are counted, by its device number. Raises Failure("disk") for over `most`."""
    members = list(processes)
    found = Handles(before=_most_sockets(members))
    for process in members:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{process.pid}/fd") as entries:
            for entry in entries:
                found.count += 1
                if found.count > most:
                    raise Failure("disk", f"over {most} files are open", "open fewer files")
                with contextlib.suppress(OSError):
                    _look_at(found, process.pid, entry, disk)
    return found


def _look_at(found: Handles, pid: int, entry: os.DirEntry[str], disk: int) -> None:
    file = entry.stat()
    if stat.S_ISSOCK(file.st_mode):
        if file.st_ino not in found.sockets:
            found.sockets.add(file.st_ino)
            found.in_flight += _number(Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text(), "scm_fds:")
    elif stat.S_ISREG(file.st_mode):
        if file.st_dev == disk and not file.st_nlink:
            found.deleted[file.st_ino] = file.st_blocks * 512
    elif not stat.S_IFMT(file.st_mode) and os.readlink(entry.path) == POLL_LINK:
        found.polls += 1


def _number(text: str, name: str) -> int:
    words = text.split()
    return int(words[words.index(name) + 1]) if name in words else 0


def check_handles(found: Handles, processes: Iterable[psutil.Process], sockets: int) -> None:
    """Raises Failure("memory") if more sockets, files on their way, watches or locks are held than training needs."""
    members = list(processes)
    used = _most_sockets(members)
    if used > sockets:
        raise Failure("memory", f"{used} sockets are open, {sockets} are allowed", "use fewer")
    # Those that were opened or closed while the handles were looked at are held by somebody.
    if (unseen := min(used, found.before) - len(found.sockets)) > IN_FLIGHT:
        raise Failure("memory", f"{unseen} sockets are held by no process, {IN_FLIGHT} may be", "accept them, or close")
    if found.in_flight > IN_FLIGHT:
        message = f"{found.in_flight} open files are on their way between sockets, {IN_FLIGHT} may be"
        raise Failure("memory", message, "receive them before you send more")
    if found.polls > EVENT_POLLS:
        raise Failure("memory", f"{found.polls} epoll objects are open, {EVENT_POLLS} are allowed", "use fewer")
    if _has_too_many_mappings(members):
        message = f"over {MAPPINGS} mappings of memory are held by {len(members)} processes"
        raise Failure("memory", message, "start fewer processes, or map larger pieces")
    if _file_locks(members) > FILE_LOCKS:
        raise Failure("memory", f"over {FILE_LOCKS} locks on files are held", "lock whole files")


def _has_too_many_mappings(members: Sequence[psutil.Process]) -> bool:
    """Slow, a second for a million: only the whole list tells their number. Only many processes can have them."""
    if len(members) <= FEW_PROCESSES:
        return False
    found = 0
    for process in members:
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/maps", "rb", buffering=0) as maps:
            while found <= MAPPINGS and (some := maps.read(1 << 16)):
                found += some.count(b"\n")
    return found > MAPPINGS


def _most_sockets(processes: Iterable[psutil.Process]) -> int:
    return max((_sockets_in_use(process.pid) for process in processes), default=0)


def _sockets_in_use(pid: int) -> int:
    """In the process's own network; 0 if that is ours: then it is not in a sandbox, or what starts one."""
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            return 0
        return int(Path(f"/proc/{pid}/net/sockstat").read_text().split()[2])
    except (OSError, IndexError):
        return 0


def _file_locks(members: Iterable[psutil.Process]) -> int:
    """Locks on parts of files. Slow where this machine has many, whoever holds them: counting then ends early."""
    with open("/proc/locks", "rb") as all_locks:
        if all_locks.read(LOCK_BYTES).count(b"\n") <= FILE_LOCKS:
            return 0
    held = 0
    for process in members:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{process.pid}/fdinfo") as entries:
            for entry in entries:
                with contextlib.suppress(OSError), open(entry.path, "rb") as info:
                    held += info.read(LOCK_BYTES).count(b"lock:")
                if held > FILE_LOCKS:
                    return held
    return held
