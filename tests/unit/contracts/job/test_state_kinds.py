"""Kinds of a state's entries, as a stranger may have written them: what does not fit the tensors is refused."""

import json
from typing import Any

import pytest

from contracts.commitment import DTYPE_BITS, Tensor
from contracts.job.state_kinds import (
    MAX_DEPTH,
    MAX_INT,
    MAX_KINDS,
    MAX_NAME,
    METADATA,
    NOT_STORED,
    check_state_form,
    kinds_in,
)


def tensor(name: str, dtype: str, *shape: int, data: bytes | None = None) -> Tensor:
    size = DTYPE_BITS[dtype] // 8
    for dimension in shape:
        size *= dimension
    return Tensor(name, dtype, shape, bytes(size) if data is None else data)


TENSORS = [
    tensor("n", "I64"),
    tensor("on", "BOOL"),
    tensor("two", "BOOL", data=b"\2"),
    tensor("rate", "F64"),
    tensor("z", "F64", 2),
    tensor("half", "F16", 3, 2),
    tensor("x", "F32", 2),
    tensor("y", "F32", 2),
    tensor("other", "F32", 2, data=b"\1" + bytes(7)),
    tensor("text", "U8", 2, data=b"ok"),
    tensor("none", "U8", 0),
    tensor("no text", "U8", 1, data=b"\xff"),
    tensor("surrogate", "U8", 3, data=b"\xed\xa0\x80"),
    tensor("square", "U8", 1, 1),
    tensor("wide", "U8", 9, data=(2**63).to_bytes(9, "little")),
    tensor("wide below", "U8", 9, data=(-(2**63) - 1).to_bytes(9, "little", signed=True)),
    tensor("narrow", "U8", 9, data=(5).to_bytes(9, "little")),
    tensor("padded", "U8", 11, data=(2**70).to_bytes(11, "little")),
    tensor("brain", "BF16", 2),
    tensor("l/0", "I64"),
    tensor("l/1", "I64"),
    tensor("d/1", "F32", 1),
    tensor("d/b", "F32", 1),
]


def check(kinds: object, tensors: list[Tensor] = TENSORS) -> None:
    check_state_form(tensors, kinds_in({METADATA: kinds if isinstance(kinds, str) else json.dumps(kinds)}))


@pytest.mark.parametrize(
    "kinds",
    [
        {}, {"n": "int"}, {"on": "bool"}, {"rate": "float"}, {"z": "complex"}, {"text": "str"}, {"text": "bytes"},
        {"none": "str"}, {"none": "bytes"}, {"no text": "bytes"}, {"surrogate": "str"}, {"wide": "int"},
        {"wide below": "int"}, {"x": "array"}, {"n": "scalar"}, {"on": "scalar"}, {"two": "array"},
        {"z": "array:complex128"}, {"z": "scalar:complex128"}, {"z": "tensor:complex128"},
        {"half": "tensor:complex32"}, {"text": "tensor:float8_e8m0fnu"}, {"square": "tensor:float4_e2m1fn_x2"},
        {"y": "=x"}, {"m": "none"}, {"m/a": "none"}, {"m": "dict"}, {"m": "list"}, {"m": "tuple"}, {"m": "size"},
        {"l": "list"}, {"l": "tuple"}, {"l": "size", "l/0": "int", "l/1": "int"}, {"l": ["1", "0"]}, {"l": [1, 0]},
        {"l/2": "list", "l": "tuple"}, {"d": [1, "b"]}, {"d": ["b", "1"]},
        {"m": "ordered"}, {"m": "counter"}, {"d": "ordered"}, {"d": "counter"}, {"d": {"ordered": [1, "b"]}},
        {"d": {"counter": ["b", "1"]}}, {"m": "list", "m/0": {"counter": [7]}, "m/0/7": "none"},
        {"": "ordered"}, {"": "counter"},
        {"/".join("a" * (MAX_DEPTH - 1)): "none"}, {"m" * MAX_NAME: "none"},
    ],
)  # fmt: skip
def test_what_fits(kinds: dict[str, Any]) -> None:
    check(kinds)


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        # No kinds at all.
        ("", "Expecting value"), ("no json", "Expecting value"), ("{", "Expecting"), ("[]", "a mapping of names"),
        ("3", "a mapping"), ('{"n": NaN}', "NaN"), ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"), ("{" + " " * MAX_KINDS + "}", "too long"),
        ('{"n": 1}', "has the kind '1'"), ('{"n": null}', "has the kind 'None'"), ('{"n": {"a": 1}}', "has the kind"),
        ('{"n": [[1]]}', "has the kind"), ('{"n": [true]}', "has the kind"), ('{"l": [1.0, 0]}', "has the kind"),
        # Kinds that there are not.
        ({"n": "integer"}, "no 'integer'"), ({"n": "int:I64"}, "no 'int:I64'"), ({"n": "Int"}, "no 'Int'"),
        ({"n": ""}, "no ''"), ({"l": ""}, "no ''"),
        ({"l": "set"}, "no 'set'"), ({"l": "list:2"}, "no 'list:2'"), ({"n": "tensor"}, "no 'tensor'"),
        ({"n": "tensor:"}, "no 'tensor:'"), ({"z": "tensor:float64"}, "no 'tensor:float64'"),
        ({"z": "scalar:float9"}, "no 'scalar:float9'"), ({"x": "array:"}, "no 'array:'"),
        ({"half": "array:complex32"}, "no 'array:complex32'"), ({"square": "array:float8_e8m0fnu"}, "is no"),
        # Kinds of other tensors than are there.
        ({"n": "float"}, "is no"), ({"n": "bool"}, "is no"), ({"n": "str"}, "is no"), ({"n": "complex"}, "is no"),
        ({"n": "bytes"}, "is no"), ({"n": "list"}, "there twice"), ({"n": "none"}, "there twice"),
        ({"n": "dict"}, "there twice"), ({"n": ["0"]}, "is no"), ({"n": []}, "is no"), ({"two": "bool"}, "is no"),
        ({"two": "scalar"}, "is no"), ({"x": "int"}, "is no"), ({"x": "scalar"}, "is no"), ({"x": "complex"}, "is no"),
        ({"x": "tensor:complex128"}, "is no"), ({"half": "tensor:complex128"}, "is no"),
        ({"half": "scalar:complex128"}, "is no"), ({"rate": "tensor:complex128"}, "is no"),
        ({"x": "tensor:float8_e8m0fnu"}, "is no"), ({"brain": "array"}, "is no"), ({"square": "str"}, "is no"),
        ({"no text": "str"}, "is no"), ({"narrow": "int"}, "is no"), ({"padded": "int"}, "is no"),
        ({"none": "int"}, "is no"), ({"text": "int"}, "is no"),
        # The same tensor as one that is none, or another.
        ({"x": "=nobody"}, "is no"), ({"x": "="}, "is no"), ({"x": "=z"}, "is no"), ({"x": "=other"}, "is no"),
        ({"x": "=x"}, "is no"), ({"x": "=y", "y": "=x"}, "is no"), ({"x": "=y", "y": "array"}, "is no"),
        # Names of nothing, and in what holds nothing.
        ({"nobody": "int"}, "there is nothing"), ({"nobody": ["a"]}, "there is nothing"), ({"l/7": "int"}, "nothing"),
        ({"x/0": "none"}, "holds nothing"), ({"x/0": "list"}, "holds nothing"), ({"m": "none", "m/a": "none"}, "holds"),
        ({"m/a": "none", "m": "none"}, "there twice"), ({"a//b": "none"}, "empty name"), ({"/a": "none"}, "empty name"),
        ({"a/": "list"}, "empty name"), ({"\ud800": "none"}, "surrogates"),
        # What holds others.
        ({"l": ["0"]}, "other keys"), ({"l": ["0", "0"]}, "other keys"), ({"l": ["0", "1", "2"]}, "other keys"),
        ({"l": ["0", 7]}, "other keys"), ({"l": []}, "other keys"), ({"d": [1, 1]}, "other keys"),
        ({"d": {"ordered": ["b"]}}, "other keys"), ({"d": {"counter": [1, 1]}}, "other keys"),
        ({"n": {"ordered": []}}, "is no"), ({"n": "counter"}, "there twice"), ({"m": {"counter": ["a"]}}, "nothing"),
        ({"d": {"counter": {"1": 1, "b": 2}}}, "has the kind"), ({"d": {"ordered": None}}, "has the kind"),
        ({"d": {"default": [1, "b"]}}, "has the kind"), ({"d": {"ordered": [[1], "b"]}}, "has the kind"),
        ({"d": {}}, "has the kind"), ({"d": {"ordered": [1, "b"], "counter": [1, "b"]}}, "has the kind"),
        ({"l": "int"}, "no 'int'"), ({"l": "=x"}, "no '=x'"), ({"d": "list"}, "no list"), ({"d": "tuple"}, "no tuple"),
        ({"l/7": "none", "l": "tuple"}, "no tuple"), ({"l/00": "none", "l": "list"}, "no list"),
        ({"": "list"}, "no list"), ({"": "none"}, "no 'none'"), ({"": ["n"]}, "other keys"), ({"": "int"}, "no 'int'"),
        # Sizes are of integers.
        ({"l": "size"}, "no size"), ({"l": "size", "l/0": "int"}, "no size"),
        ({"l": "size", "l/0": "int", "l/1": "scalar"}, "no size"),
        ({"m": "size", "m/0": "none"}, "no size"), ({"m": "size", "m/0": "list"}, "no size"),
        # Bounds.
        ({"/".join("a" * MAX_DEPTH): "none"}, "nested over"), ({"a/" * 5000 + "a": "none"}, "nested over"),
        ({"m" * (MAX_NAME + 1): "none"}, "a name over"),
    ],
)  # fmt: skip
def test_what_does_not(kinds: object, says: str) -> None:
    with pytest.raises(ValueError, match="the state contradicts itself") as caught:
        check(kinds)
    assert says in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "tensors",
    [
        [tensor("a", "F32"), tensor("a/b", "F32")],
        [tensor("a/b", "F32"), tensor("a", "F32")],
        [tensor("", "F32")],
        [tensor("a//b", "F32")],
        [tensor("/".join("a" * MAX_DEPTH), "F32")],
        *([tensor("a", dtype, 2)] for dtype in NOT_STORED),
    ],
)
def test_tensors_that_are_no_state_by_their_names_or_dtypes(tensors: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="the state contradicts itself"):
        check({}, tensors)


def test_a_state_without_kinds_is_one_of_tensors() -> None:
    check_state_form(TENSORS, {})
    check_state_form([], kinds_in({"format": "pt"}))


def test_a_text_is_checked_in_pieces_and_an_integer_has_an_end() -> None:
    """Longer than the memory of whoever checks it they would end the check, and a state be neither good nor bad."""
    letter = "ä".encode()
    split = b"a" + letter * (1 << 20)  # a letter lies on each border of two pieces
    check({"text": "str"}, [Tensor("text", "U8", (len(split),), split)])
    with pytest.raises(ValueError, match="is no 'str'"):
        check({"text": "str"}, [Tensor("text", "U8", (len(split) - 1,), split[:-1])])
    check({"wide": "int"}, [Tensor("wide", "U8", (MAX_INT,), b"\1" * MAX_INT)])
    with pytest.raises(ValueError, match="is no 'int'"):
        check({"wide": "int"}, [Tensor("wide", "U8", (MAX_INT + 1,), b"\1" * (MAX_INT + 1))])
