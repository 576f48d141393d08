"""Training state: names, optimizers, files."""

from collections import ChainMap, OrderedDict, defaultdict
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from contracts import commitment
from worker.training.failures import Failure
from worker.training.state import (
    check_state,
    difference,
    flatten,
    read_checkpoint,
    unflatten,
    write_checkpoint,
)


class Color(IntEnum):
    RED = 1


class Phase(StrEnum):
    WARM = "warm"


class Meters(float): ...


class Loud(dict[str, int]): ...


class Stack(list[int]): ...


class Noted(torch.Tensor): ...


class Eighth(torch.Tensor):
    """Holds bytes and a scale, and looks like float32: as moments of 8 bits do."""

    data_bytes: torch.Tensor
    scale: torch.Tensor

    @staticmethod
    def __new__(cls, data_bytes: torch.Tensor, scale: torch.Tensor) -> "Eighth":
        made: Eighth = torch.Tensor._make_wrapper_subclass(cls, data_bytes.shape, dtype=torch.float32)  # type: ignore[attr-defined]
        made.data_bytes, made.scale = data_bytes, scale
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError(func)


class Pair(NamedTuple):
    one: int
    other: int


def test_nested_state_gets_flat_ordered_names_and_comes_back() -> None:
    state = {"model": {"b.weight": torch.ones(2), "a": torch.zeros(1)}, "step": 3, "best": 0.5, "done": False}
    flat = flatten(state)
    assert list(flat) == ["best", "done", "model/a", "model/b.weight", "step"]
    assert [flat[name].dtype for name in ("step", "best", "done")] == [torch.int64, torch.float64, torch.bool]
    nested = unflatten(flat)
    assert nested["model"]["b.weight"] is not None and int(nested["step"]) == 3
    assert difference(flatten(nested), flat) is None


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({0.5: torch.zeros(1)}, "the key 0.5"),
        ({True: torch.zeros(1)}, "the key True"),
        ({"a": {1: 1, "1": 2}}, "two keys '1' under 'a/'"),
        ({"a\ud800": 1}, "a name that is no text"),
        ({"a" * 70_000: 1}, "a name over 65535 bytes"),
        ({"a/b": torch.zeros(1)}, "the key 'a/b'"),
        ({"a": {"": torch.zeros(1)}}, "the key '' under 'a/'"),
        ({"a": [{"b": {1, 2}}]}, "'a/0/b' is a set"),
        ({"a": Decimal(1)}, "'a' is a Decimal"),
        ({"a": Color.RED}, "'a' is a Color"),
        ({"a": Pair(1, 2)}, r"'a' is a Pair; make it a tuple: tuple\(...\)"),
        ({"a": {"b": Phase.WARM}}, "'a/b' is a Phase; make it a str: .value"),
        ({Phase.WARM: 1}, "the key <Phase.WARM: 'warm'>"),
        ({np.str_("a"): 1}, r"the key np.str_\('a'\)"),
        ({"a": Meters(2)}, r"'a' is a Meters; make it a float: float\(...\)"),
        ({"a": [Stack([1])]}, r"'a/0' is a Stack; make it a list: list\(...\)"),
        ({"a": Loud(x=1)}, r"'a' is a Loud; make it a dict: dict\(...\)"),
        ({"a": defaultdict(int)}, r"'a' is a defaultdict; make it a dict: dict\(...\)"),
        ({"a": MappingProxyType({"x": 1})}, r"'a' is a mappingproxy; make it a dict: dict\(...\)"),
        ({"a": ChainMap({"x": 1})}, r"'a' is a ChainMap; make it a dict: dict\(...\)"),
        (defaultdict(int, a=1), r"what state_dict\(\) returned is a defaultdict; make it a dict"),
        ({"a": torch.ones(2).as_subclass(Noted)}, r"'a' is a Noted, which derives of torch's Tensor"),
        (
            {"a": Eighth(torch.zeros(2, dtype=torch.int8), torch.ones(1))},
            "'a' is a Eighth, .* put in the plain tensors",
        ),
        ({"a": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, "'a' is a nested tensor"),
        ({"a": torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged)}, "'a' is a NestedTensor"),
        ({"a": torch.nn.UninitializedParameter()}, "'a' is a UninitializedParameter"),
        ({"a": np.longdouble(1)}, r"'a' is numpy's <f16"),
        ({"a": np.array(["x"])}, "'a' is numpy's <U1"),
        ({"a": np.zeros(2, ">f4")}, "'a' is numpy's >f4"),
        ({"a": np.zeros(2, "datetime64[s]")}, r"'a' is numpy's <M8\[s\]"),
        ({"a": np.ma.zeros(2)}, "'a' is a MaskedArray"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "'a' is a sparse_coo tensor"),
        ({"a": torch.zeros(2, device="meta")}, "'a' is a meta tensor"),
        ({"a": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8)}, "'a' is a tensor of torch.quint8"),
        ({"a": {"b": lambda: 0}}, "'a/b' is a function"),
        ([torch.zeros(1)], r"state_dict\(\) returned a list"),
    ],
)
def test_what_has_no_name_or_no_bytes_is_refused(state: dict[Any, Any], message: str) -> None:
    with pytest.raises(Failure, match=message):
        flatten(state)


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    path = tmp_path / "tied.safetensors"
    flat = flatten({"in": weight, "out": weight, "turned": weight.T})
    write_checkpoint(path, flat)
    assert difference(read_checkpoint(path), flat) is None


def test_difference_says_what_differs() -> None:
    one = flatten({"a": torch.tensor([0.0])})
    assert difference(one, flatten({"b": torch.zeros(1)})) == "only one of them has a, b"
    assert difference(one, flatten({"a": torch.tensor([-0.0])})) == "a differs in value"
    assert difference(one, flatten({"a": torch.zeros(2)})) == "a: torch.float32[1] against torch.float32[2]"
    assert difference(one, flatten({"a": np.zeros(1, np.float32)})) == "a is of no kind against array"
    assert difference(flatten(OrderedDict(a=1)), flatten({"a": 1})) == "its top is ordered against of no kind"
    nan = flatten({"a": torch.tensor([float("nan")])})
    assert difference(nan, nan) is None


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({str(n): torch.zeros(1) for n in range(commitment.MAX_TENSORS + 1)}, "65537 tensors"),
        ({"a": torch.zeros((0, 2**61))}, "'a' has the shape"),
    ],
)
def test_a_state_that_nobody_could_check_is_told_at_once(state: dict[str, Any], says: str) -> None:
    with pytest.raises(Failure, match=says) as caught:
        check_state(flatten(state))
    assert caught.value.kind == "state" and caught.value.hint
