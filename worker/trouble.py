"""Says once that something is in trouble, and once that it is over."""

from typing import Any


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
