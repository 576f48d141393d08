"""Where logs go: standard error, and a line that can't be written is lost rather than the program."""

import sys
from contextlib import suppress
from typing import TextIO, cast


class _Forgiving:
    """A text stream whose writes may fail, as on a full disk or a closed pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def log_stream() -> TextIO:
    """Standard error for structlog's loggers."""
    return cast(TextIO, _Forgiving(sys.stderr))
