"""JSON as RFC 8259 has it. Python's own reads and writes NaN and infinities as well, which no other reader takes."""

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn


def read_json(
    text: str | bytes,
    *,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
    whole: Callable[[str], int] = int,
) -> Any:
    """`pairs` makes an object of its entries, `whole` a number of its digits. Raises ValueError: for what is not JSON,
    a number too large for a double, or what is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=whole, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_json(value: Any, *, indent: int | None = None, compact: bool = False) -> str:
    """`compact`: without spaces, and keys in order. Raises ValueError for a number that is not finite, TypeError."""
    separators = (",", ":") if compact else None
    return json.dumps(value, allow_nan=False, indent=indent, sort_keys=compact, separators=separators)


def canonical_json(value: Any) -> bytes:
    """RFC 8785's form of texts, integers, and lists and objects of them; integers beyond 2^53 are in full, too.

    Raises ValueError for a text that is not Unicode.
    """
    try:
        return json.dumps(_in_order(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        at = slice(max(0, error.start - 40), error.end + 40)
        raise ValueError(f"{error.object[at]!r} is no text of Unicode") from error


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return {name: _in_order(value[name]) for name in names}
    return [_in_order(one) for one in value] if isinstance(value, list) else value


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `pairs` of read_json. Raises ValueError if an object has two entries of one name: readers differ on them."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("two entries have the same name")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number that JSON has")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is too large a number")
    return number
