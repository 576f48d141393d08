"""Keeps transfers below a rate."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 20  # bytes to move at a time without one
BURST_SECONDS = 1.0  # of the rate, which may go at once after a rest


class Throttle:
    """At most `rate` bytes a second over all threads that share it."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0  # monotonic: when all that was let through is paid for

    @property
    def chunk(self) -> int:
        """Bytes to move at a time: at most what a tenth of a second allows, lest transfers go in jerks."""
        return max(1, min(CHUNK, self.rate // 10))

    def wait(self, count: int) -> None:
        """Returns when `count` bytes may go."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - BURST_SECONDS) + count / self.rate
            pause = self._free_at - now
        if pause > 0:
            time.sleep(pause)


def chunks_of(path: Path, throttle: Throttle | None) -> Iterator[bytes]:
    """A file's bytes, at the throttle's rate."""
    with path.open("rb") as file:
        while chunk := file.read(throttle.chunk if throttle else CHUNK):
            if throttle:
                throttle.wait(len(chunk))
            yield chunk
