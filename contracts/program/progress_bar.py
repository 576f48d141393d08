"""Progress of commands that may take long: a bar on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_SECONDS = 30.0


class Watch(Protocol):
    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """`done` of `total` have been done of what goes on now; None: nobody knows of how many."""


def nobody(what: str, done: int = 0, total: int | None = None) -> None:
    """A Watch for who doesn't want to know."""


@contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """Shows it on `console`, which should be that of stderr: what programs read is on stdout."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)


class _Bar:
    """Of what goes on now."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._what = ""
        self._task: TaskID | None = None

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        if what != self._what or self._task is None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._what, self._task = what, self._progress.add_task(what, count="")
        self._progress.update(self._task, completed=done, total=total, count=_count(done, total))


class _Lines:
    """None for what is quick; then one every LINE_SECONDS."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = time.monotonic()

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        if time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            self._console.print(f"{what} {_count(done, total)}".rstrip(), highlight=False, soft_wrap=True)


def _count(done: int, total: int | None) -> str:
    if total is None:
        return f"{done:,}" if done else ""
    return f"{done:,} of {total:,}"
