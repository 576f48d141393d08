"""The loopback of a sandbox: the buffers of its sockets are memory of the kernel that no process has."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from contracts.types import MB
from worker.sandbox import small_buffers
from worker.sandbox.limits import Limits, descendants

START_SECONDS = 20.0  # for a sandbox to have its own network
SCRIPT_SECONDS = 30.0


def with_small_buffers(pid: int, limits: Limits) -> Limits:
    """Makes TCP's buffers small in the sandbox that process `pid` is making, before a recipe runs in it.

    Where this machine does not allow that, the limits that come back have as few sockets as may be large.
    """
    inside = _first_inside(pid)
    if inside is None:  # it has ended, or there is no sandbox
        return limits
    command = [sys.executable, "-S", "-E", small_buffers.__file__, str(inside)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=SCRIPT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return replace(limits, sockets=min(limits.sockets, limits.memory_mb * MB // _largest()))
    return limits


def _first_inside(pid: int) -> int | None:
    """A process that has another network than this one; None if none has one soon."""
    own = os.stat("/proc/self/ns/net").st_ino
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and (alive := descendants(pid)):
        for process in reversed(alive):
            try:
                if os.stat(f"/proc/{process.pid}/ns/net").st_ino != own:
                    return process.pid
            except OSError:
                continue
        time.sleep(0.01)
    return None


def _largest() -> int:
    """Bytes that both buffers of one socket may come to, by this machine's settings."""
    sizes = [Path("/proc/sys/net/ipv4", name).read_text().split() for name in small_buffers.BUFFERS]
    return sum(int(largest) for _, _, largest in sizes)
