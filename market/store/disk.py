"""Whether there is room to write: on the disks of a market, which fill up while it runs."""

import errno
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import DBAPIError

LEAST_FREE = 8 << 20  # bytes: with less nothing is sure to be stored
FULL_SECONDS = 60.0  # for which a disk counts as full after something did not fit
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DATABASE_FULL = ("database or disk is full", "no space left on device", "could not extend file")


def leaves_no_room(error: BaseException) -> bool:
    """Whether it is raised where a disk, a quota or a limit on files leaves no room."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, DBAPIError) and any(words in str(error.orig).lower() for words in _DATABASE_FULL)


class Disks:
    """Those that a market writes to. Threads may share it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._until = 0.0  # monotonic

    def did_not_fit(self) -> None:
        with self._lock:
            self._until = time.monotonic() + FULL_SECONDS

    def trouble(self) -> str | None:
        """Why nothing can be stored; None if it can."""
        for folder in self._folders:
            try:
                free = shutil.disk_usage(folder).free
            except OSError as error:
                return f"the market's disk can't be used: {folder}: {error.strerror}"
            if free < LEAST_FREE:
                return f"the market's disk is full: {free >> 20} MiB are free at {folder}"
        with self._lock:
            full = time.monotonic() < self._until
        return "the market's disk is full: something did not fit a moment ago" if full else None
