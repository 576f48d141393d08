"""Rows of strangers' messages, read one by one: what an older market took, and no reader takes any more, is skipped."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter
from sqlalchemy import inspect

from contracts.api.bodies import CheckpointRecord
from contracts.errors import first_sentence
from contracts.program.logs import ToldOnce
from market.store.models import CheckpointRow, ReplacedClaimRow

Row = TypeVar("Row")
Out = TypeVar("Out")
BROKEN = (ValueError, KeyError, TypeError, ArithmeticError)  # what reading such a row raises

log = structlog.get_logger()


class Unreadable:
    """Skips, counts, and names in the log once, what can't be read."""

    def __init__(self, counter: Counter) -> None:
        """`counter` has the label `table`."""
        self._counter = counter
        self._told = ToldOnce()

    def each(self, rows: Sequence[Row], read: Callable[[Row], Out]) -> list[Out | None]:
        """What `read` makes of each row, None where it can't."""
        return [self.one(row, read) for row in rows]

    def reader(self, read: Callable[[Row], Out]) -> Callable[[Sequence[Row]], list[Out | None]]:
        """`each`, for the rows of a page."""
        return lambda rows: self.each(rows, read)

    def one(self, row: Row, read: Callable[[Row], Out]) -> Out | None:
        try:
            return read(row)
        except BROKEN as error:
            state: Any = inspect(row)
            self._tell(str(row.__tablename__), "/".join(map(str, state.identity or ())), error)  # type: ignore[attr-defined]
            return None

    def made_of(self, table: str, key: str, make: Callable[[], Out]) -> Out | None:
        """The same for what was read already, and of which more is made."""
        try:
            return make()
        except BROKEN as error:
            self._tell(table, key, error)
            return None

    def _tell(self, table: str, key: str, error: Exception) -> None:
        self._counter.labels(table).inc()
        if self._told.is_new(f"{table} {key}"):
            log.warning("market.unreadable_row", table=table, key=key, problem=first_sentence(error))


def record_of(row: CheckpointRow | ReplacedClaimRow) -> CheckpointRecord | None:
    """None for one that can't be read: its maker may report the checkpoint again."""
    try:
        return CheckpointRecord.model_validate(row.record)
    except ValueError:
        return None
