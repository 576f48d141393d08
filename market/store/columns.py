"""Kinds of columns: hashes, amounts of up to 256 bits, times with their zone."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, String, TypeDecorator
from sqlalchemy.orm import defer
from sqlalchemy.sql.base import ExecutableOption

HASH = String(66)
ADDRESS = String(42)
TIP = String(42)


class Document(JSON):
    """JSON of parties, that no SQL looks into: PostgreSQL reads all of a document to find one key, and fails at an
    escaped NUL anywhere in it. What a query asks for is a column of its own.
    """

    class Comparator(JSON.Comparator[Any]):
        def _setup_getitem(self, index: Any) -> Any:
            raise TypeError(f"no query looks into {self.expr} for {index!r}: give it a column of its own")

    comparator_factory = Comparator


DOCUMENT = Document()
MAYBE_DOCUMENT = Document(none_as_null=True)


class Amount(TypeDecorator[int]):
    """An unsigned integer of up to 256 bits as decimal text: databases' own integers end at 63 bits."""

    impl = String(78)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        if value is not None and value < 0:
            raise ValueError(f"an amount can't be negative, got {value}")
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


class UtcTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC; SQLite would forget the zone, PostgreSQL would give it in the session's."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time needs a zone, got {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def without(*columns: Any) -> list[ExecutableOption]:
    """Options of a query whose rows come without these columns: to read one of them is an error then."""
    return [defer(column, raiseload=True) for column in columns]


def now() -> datetime:
    return datetime.now(UTC)
