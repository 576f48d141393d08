"""What a recipe has printed and the market has not been told: it outlives the recipe's process, a pause, and the agent.

On disk in the lease's folder until it is told; of a sealed job it is sealed there, too.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from contracts.errors import UserError
from contracts.job.sealing import open_text, seal_text
from worker.files import write_atomically
from worker.training.failures import printable

MAX_BYTES = 256 * 1024  # of which the newest are kept
LINE_ENDS = (b"\n", b"\r")


class Part(NamedTuple):
    """Text to be told next."""

    text: str
    end: int  # where it ends in all that was ever printed, in bytes


class Printed:
    """Methods may be called from any thread."""

    def __init__(self, path: Path, job_key: Callable[[], bytes | None]) -> None:
        """`job_key`: None if the job is not sealed. It may raise UserError: then nothing is kept on disk."""
        self._path, self._job_key = path, job_key
        self._lock = threading.Lock()
        self._start = self._dropped = 0  # bytes that are here no more, and those of them that nobody was told
        self._bytes = bytearray(self._load())
        self._on_disk = len(self._bytes)

    def write(self, data: bytes) -> None:
        with self._lock:
            self._bytes += data
            self._leave_out(MAX_BYTES)
            self._on_disk += len(data)
            if self._on_disk > 2 * MAX_BYTES:
                self._rewrite()
            else:
                with suppress(OSError, UserError):  # a full disk is others' trouble
                    text = self._sealed(data)
                    with self._path.open("ab") as file:
                        file.write(text)

    def next(self, most: int, *, whole: bool) -> Part | None:
        """At most `most` bytes of lines, which are over; or `whole`: nothing more will come."""
        with self._lock:
            end = len(self._bytes) if whole else self._last_line(len(self._bytes))
            if end > most:
                end = self._last_line(most) or _between_characters(self._bytes, most)
            if not end:
                return None
            gap = f"[... {self._dropped} bytes dropped ...]\n" if self._dropped else ""
            text = printable(bytes(self._bytes[:end]).decode(errors="replace"))
            return Part(gap + text, self._start + end)

    def told(self, part: Part) -> None:
        with self._lock:
            self._dropped = max(0, self._start - part.end)
            self._forget(max(0, part.end - self._start))
            self._rewrite()

    def keep_newest(self, most: int) -> None:
        """Leaves out all but the last `most` bytes; the next part says so."""
        with self._lock:
            if self._leave_out(most):
                self._rewrite()

    @property
    def empty(self) -> bool:
        return not self._bytes

    def _last_line(self, most: int) -> int:
        """Where the last line that ends before `most` does."""
        return max(self._bytes.rfind(end, 0, most) for end in LINE_ENDS) + 1

    def _leave_out(self, most: int) -> bool:
        excess = max(0, len(self._bytes) - most)
        self._forget(excess)
        self._dropped += excess
        return excess > 0

    def _forget(self, count: int) -> None:
        del self._bytes[:count]
        self._start += count

    def _rewrite(self) -> None:
        self._on_disk = len(self._bytes)
        with suppress(OSError, UserError):
            if self._bytes:
                write_atomically(self._path, self._sealed(bytes(self._bytes)))
            else:
                self._path.unlink(missing_ok=True)

    def _sealed(self, data: bytes) -> bytes:
        """As it stands on disk; of a sealed job a line. (Latin-1 has a character for each byte, and back.)"""
        key = self._job_key()
        return data if key is None else seal_text(data.decode("latin-1"), key).encode() + b"\n"

    def _load(self) -> bytes:
        """What an earlier agent has left; nothing if it can't be read any more."""
        try:
            data = self._path.read_bytes()
            if (key := self._job_key()) is not None:
                lines = data.decode(errors="replace").splitlines()
                data = b"".join(open_text(line, key).encode("latin-1") for line in lines)
        except (OSError, UserError, ValueError):
            return b""
        return data[-MAX_BYTES:]


def _between_characters(data: bytearray, at: int) -> int:
    """The nearest place before `at` where no character of UTF-8 is cut."""
    return next((place for place in range(at, max(at - 4, 0), -1) if data[place] & 0xC0 != 0x80), at)
