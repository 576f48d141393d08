"""Checks of checkpoints' files, each in a process that is ended when its time is up: bytes come from strangers."""

import resource
from concurrent.futures import TimeoutError as TimeUp
from multiprocessing import get_context
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from contracts.api.bodies import CheckpointRecord
from contracts.errors import UserError
from market.approver.checks import problem_with_state

CHECKS_OF_A_PROCESS = 100  # then another one takes its place: what a check has left in memory goes
MEMORY_BYTES = 1 << 30  # of a process, its files not counted in; a state that keeps its bounds takes a fifth


class SlowCheck(UserError):
    """A file could not be checked in the time or memory that a check may take."""


class StateChecks:
    """Up to `at_once` checks beside each other, of at most `seconds` each. Threads share it."""

    def __init__(self, at_once: int, seconds: float) -> None:
        self._seconds = seconds
        # A fork of a process with threads may hang: another one, that has read what checks need, forks for it.
        context = get_context("forkserver")
        context.set_forkserver_preload([problem_with_state.__module__])
        self._pool = ProcessPool(
            max_workers=at_once,
            max_tasks=CHECKS_OF_A_PROCESS,
            initializer=_limit_memory,
            context=context,
        )

    def problem(self, path: Path, record: CheckpointRecord) -> str | None:
        """`problem_with_state`. Raises SlowCheck."""
        future = self._pool.schedule(problem_with_state, args=[path, record], timeout=self._seconds)
        try:
            return future.result()
        except TimeUp as error:
            raise SlowCheck(f"it could not be checked within {self._seconds:g} s", "see check_seconds") from error
        except (ProcessExpired, MemoryError) as error:
            raise SlowCheck(f"it could not be checked: its process ended ({error!r})") from error

    def close(self) -> None:
        """Ends what is under way, too."""
        self._pool.stop()
        self._pool.join()


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
