"""Where logs go: standard error, and a line that can't be written is lost rather than the program."""

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


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


def log_warnings_only() -> None:
    """For commands that are no services: what they found is on stdout, and how they got there is of no interest."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(log_stream()),
    )
