"""No number that JSON can't hold gets in or out, through whatever model or file."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import rfc8785
from pydantic import BaseModel, TypeAdapter, ValidationError

import contracts
from contracts.job.measured import MeasuredOn
from contracts.strict_json import canonical_json, read_json, write_json
from contracts.types import Finite

NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", '[1, {"a": [2e400]}]', "1" + "0" * 5000, "[" * 5000]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_is_not_read(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text)
    with pytest.raises(ValueError):
        read_json(text.encode())


def test_numbers_are_read_as_they_are() -> None:
    read = read_json('[1, -2, 1.5e308, 1e-999, "Infinity"]')
    assert read == [1, -2, 1.5e308, 0.0, "Infinity"]
    assert [type(one) for one in read] == [int, int, float, float, str]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_what_is_no_number_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError):
        write_json(value)


@pytest.mark.parametrize("given", ["Infinity", "NaN", "1e999", '"inf"', '"1.5"', "true", "null"])
def test_a_finite_number_is_one(given: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Finite).validate_json(given)


@pytest.mark.parametrize(
    "value",
    [
        {"é": ["\n", "\u0000\u001f\u007f", '"\\/'], "b": {"2": 1, "10": -(2**53) + 1}, "": []},
        {"\ufb03": 1, "\U0001f600": 2, "z": 3, "\u20ac": [2**53 - 1, {}]},  # UTF-16 sorts the second before the first
        "x", 7, [],
    ],
)  # fmt: skip
def test_the_canonical_form_is_that_of_rfc_8785(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


def test_integers_beyond_a_double_are_in_full_in_it() -> None:
    assert canonical_json([2**64 + 1, -(2**70)]) == b"[18446744073709551617,-1180591620717411303424]"
    with pytest.raises(ValueError, match=r"ud800.* is no text of Unicode"):
        canonical_json({"a": ["\ud800"]})
    with pytest.raises(ValueError, match="is no text"):
        canonical_json({"\ud800": 1})


def _models() -> Iterator[type[BaseModel]]:
    """All that two parties send each other."""
    for module in pkgutil.walk_packages(contracts.__path__, "contracts."):
        if module.name.startswith(("contracts.api", "contracts.job", "contracts.orders")):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel:
                    yield value


def _floats(schema: Any) -> Iterator[dict[str, Any]]:
    """The schemas of floats in a core schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "float":
            yield schema
        for key, inner in schema.items():
            if key not in ("metadata", "serialization"):
                yield from _floats(inner)
    elif isinstance(schema, list | tuple):
        for inner in schema:
            yield from _floats(inner)


def test_no_body_takes_a_number_that_json_can_not_hold() -> None:
    found = {model.__name__: list(_floats(model.__pydantic_core_schema__)) for model in _models()}
    lax = {name for name, floats in found.items() if any(one.get("allow_inf_nan", True) for one in floats)}
    lax |= {name for name, floats in found.items() if not all(one.get("strict", False) for one in floats)}
    assert not lax
    assert {"CheckpointRecord", "JobOut", "QuoteOut", "Info", "JobOnMachine", "Stop"} <= {
        name for name, floats in found.items() if floats
    }


def test_a_fields_own_bounds_hold() -> None:
    with pytest.raises(ValidationError):
        MeasuredOn(device="x", threads=1, units_per_hour=1, seconds=1e10)
