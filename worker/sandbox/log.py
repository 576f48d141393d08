"""A log of bounded size that keeps how it began and how it ended."""

import threading
import time
from pathlib import Path

from worker.training.failures import printable

REWRITE_SECONDS = 1.0


class CappedLog:
    """What is written to it stands in `path`, if any: all, or from `limit` bytes on its beginning and end."""

    def __init__(self, path: Path | None, limit: int) -> None:
        self.path = path
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._saved_at = 0.0
        self._lock = threading.Lock()
        self._save()

    def write(self, data: bytes) -> None:
        with self._lock:
            room = self._half - len(self._head)
            self._head += data[:room]
            self._tail += data[room:]
            excess = len(self._tail) - self._half
            if excess > 0:
                del self._tail[:excess]
                self._dropped += excess
            if time.monotonic() - self._saved_at >= REWRITE_SECONDS:
                self._save()

    def close(self) -> None:
        with self._lock:
            self._save()

    def tail(self, limit: int = 4_000) -> str:
        """The last `limit` bytes, as text."""
        with self._lock:
            kept = self._tail if len(self._tail) >= limit else self._content()
            return printable(bytes(kept[-limit:]).decode(errors="replace"))

    def _content(self) -> bytes:
        gap = f"\n[... {self._dropped} bytes dropped ...]\n".encode() if self._dropped else b""
        return bytes(self._head) + gap + bytes(self._tail)

    def _save(self) -> None:
        if self.path is not None:
            self.path.write_bytes(self._content())
        self._saved_at = time.monotonic()
