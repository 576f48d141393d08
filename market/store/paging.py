"""Lists in pages: a cursor holds the sort key of the last row that was given."""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import BigInteger, ColumnElement, literal, tuple_
from sqlmodel import Session
from sqlmodel.sql.expression import SelectOfScalar

from contracts.api.bodies import Page
from contracts.api.problems import Code, Problem
from contracts.strict_json import read_json, write_json
from market.store.columns import UtcTime

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
PAGE_BYTES = 1 << 20  # of JSON, after which a page ends
BATCH, LARGE = 100, 8  # rows that are held at once; and where each may be large
SCAN = 2_000  # rows that one request looks at, at most, for a filter that the database can't apply

Row = TypeVar("Row")
Out = TypeVar("Out", bound=BaseModel)


def encode_cursor(values: Sequence[Any]) -> str:
    """A cursor of these, which JSON can hold."""
    return base64.urlsafe_b64encode(write_json(values).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: Sequence[type]) -> list[Any]:
    """The values in a cursor. Raises Problem if it has not as many, of these very types."""
    try:
        values = read_json(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise _not_ours(cursor) from error
    if not isinstance(values, list) or [type(value) for value in values] != list(kinds):
        raise _not_ours(cursor)
    return values


def _not_ours(cursor: str) -> Problem:
    return Problem(
        422,
        Code.VALIDATION_FAILED,
        f"after: {cursor!r} is not a cursor of this list",
        "Pass the `next` of the page before, as it is.",
    )


class Keyset:
    """A sort order by columns that name a row uniquely, and cursors in it."""

    def __init__(self, *columns: Any, descending: bool = False) -> None:
        self.columns = columns
        self.descending = descending

    def after(self, query: SelectOfScalar[Row], cursor: str | None, limit: int) -> SelectOfScalar[Row]:
        """The next `limit` rows of the query behind a cursor. Raises Problem for a cursor that is none of ours."""
        if cursor is not None:
            values = self._decode(cursor)
            here: ColumnElement[Any] = tuple_(*self.columns)
            there = tuple_(*(literal(value, column.type) for value, column in zip(values, self.columns, strict=True)))
            query = query.where(here < there if self.descending else here > there)
        order = [column.desc() if self.descending else column.asc() for column in self.columns]
        return query.order_by(*order).limit(limit)

    def cursor(self, row: Any) -> str:
        values = [getattr(row, column.key) for column in self.columns]
        return encode_cursor([value.isoformat() if isinstance(value, datetime) else value for value in values])

    def _decode(self, cursor: str) -> list[Any]:
        kinds = [str if isinstance(column.type, UtcTime) else column.type.python_type for column in self.columns]
        values = decode_cursor(cursor, kinds)
        try:
            return [self._typed(value, column) for value, column in zip(values, self.columns, strict=True)]
        except ValueError as error:
            raise _not_ours(cursor) from error

    @staticmethod
    def _typed(value: Any, column: Any) -> Any:
        if isinstance(value, str) and not value.isprintable():  # NUL and lone surrogates among them
            raise ValueError("a text that a database can't compare")
        if isinstance(value, int) and not 0 <= value < 1 << (63 if isinstance(column.type, BigInteger) else 31):
            raise ValueError("a number that the column can't have")
        if not isinstance(column.type, UtcTime):
            return value
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("a time without a zone")
        try:
            return moment.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("a time before the first year, or after the last") from error


def read_page(
    session: Session,
    query: SelectOfScalar[Row],
    order: Keyset,
    cursor: str | None,
    limit: int,
    convert: Callable[[Sequence[Row]], Sequence[Out | None]],
    batch: int = BATCH,
) -> Page[Out]:
    """One page of a query. `convert` turns rows to bodies; None for a row that is not to be shown.

    A page may have fewer than `limit` items and still a `next`.
    """
    filling: Filling[Out] = Filling(limit)
    batch, scanned = min(batch, limit), 0
    while True:
        rows = session.exec(order.after(query, cursor, batch + 1)).all()
        for row, out in zip(rows[:batch], convert(rows[:batch]), strict=True):
            if not filling.takes(out):
                return filling.page(cursor)
            cursor = order.cursor(row)
        scanned += len(rows)
        if len(rows) <= batch:
            return filling.page(None)
        if scanned >= SCAN:
            return filling.page(cursor)


class Filling(Generic[Out]):
    """A page that is being filled: until it has `limit` items, or their JSON more than PAGE_BYTES."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._items: list[Out] = []

    def takes(self, item: Out | None) -> bool:
        """Whether there was room for it; for the first there always is. None, not to be shown, needs a little."""
        if len(self._items) == self._limit:
            return False
        if item is None:
            return True
        self._bytes += len(item.model_dump_json())
        if self._items and self._bytes > PAGE_BYTES:
            return False
        self._items.append(item)
        return True

    def page(self, following: str | None) -> Page[Out]:
        return Page(items=self._items, next=following)
