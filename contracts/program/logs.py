"""Where logs go: standard error, and a line that can't be written is lost rather than the program."""

import logging
import sys
from collections import OrderedDict
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from contracts.text import without_controls


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
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            plain,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(log_stream()),
    )


def configure_logs(level: str, format: str) -> None:
    """`level` and `format` as in the settings `log_level` and `log_format`."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if format == "json":
        last: list[structlog.typing.Processor] = [
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ]
    else:
        last = [
            plain,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # the other one shows variables, so secrets too
            ),
        ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(log_stream()),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


def plain(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Without characters that a terminal would obey: paths and texts come from strangers."""
    return {name: without_controls(value) if isinstance(value, str) else value for name, value in event.items()}


class ToldOnce:
    """Remembers what was logged; of more than `most` things the oldest are told again."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._told = OrderedDict[str, None]()

    def is_new(self, what: str) -> bool:
        """Whether it is to be logged now."""
        if what in self._told:
            return False
        self._told[what] = None
        if len(self._told) > self._most:
            self._told.popitem(last=False)
        return True


class Trouble:
    def __init__(self, log: Any) -> None:
        self._log = log
        self._now: dict[str, str] = {}

    def at(self, where: str, problem: str) -> None:
        """Logs `where.trouble`, unless that problem is known there already."""
        if self._now.get(where) != problem:
            self._now[where] = problem
            self._log.warning(f"{where}.trouble", problem=problem)

    def over(self, where: str) -> None:
        if self._now.pop(where, None) is not None:
            self._log.info(f"{where}.works_again")
