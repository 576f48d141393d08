"""What a state's entries were comes back as that; and a stranger's word about it is checked."""

import hashlib
import json
import math
import random
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from contracts.job.state_kinds import MAX_DEPTH, MAX_KINDS, METADATA
from contracts.statefile import check_state_file, file_state_root
from worker.training.failures import Failure
from worker.training.state import difference, flatten, read_checkpoint, unflatten, write_checkpoint

FP8 = torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)
VALUES: dict[str, Any] = {
    "int": 10,
    "negative": -(2**63),
    "wide": 2**127 + 1,
    "wider": -(2**4000),
    "just over": 2**63,
    "bool": True,
    "float": 0.1,
    "inf": float("-inf"),
    "-0": -0.0,
    "complex": 1 - 2.5j,
    "none": None,
    "text": "Grüße\n\ud800",
    "no text": "",
    "bytes": b"\x00\xff",
    "dict": {},
    "list": [],
    "tuple": (),
    "size": torch.Size([2, 3]),
    "nested": [1, (2.0, [None, {"a": []}]), torch.ones(2)],
    "int keys": {3: 1.5, 1: {"x": 2}, -7: torch.zeros(1)},
    "order": {"b": 1, "a": 2},
    "ordered": OrderedDict(a=1, b=torch.ones(2)),
    "ordered otherwise": OrderedDict({"b": 1, 3: [OrderedDict()], "a": None}),
    "counter": Counter("aab"),
    "counter otherwise": Counter({5: 2, 3: 1}),
    "counter of none": Counter(),
    "python's generator": random.Random(1).getstate(),
    "numpy's generator": np.random.default_rng(1).bit_generator.state,
    **{f"numpy {t}": np.dtype(t).type(3) for t in ("f8", "f4", "f2", "i8", "i1", "u8", "u2", "?", "c8", "c16")},
    **{f"array {t}": np.arange(6).reshape(2, 3).astype(t) for t in ("f8", "f2", "i4", "u4", "?", "c8", "c16")},
    "array of none": np.zeros((0, 3)),
    "array of no dimension": np.array(2.5),
    "turned": np.arange(6).reshape(2, 3).T,
    **{
        f"tensor {t}": torch.arange(4).to(t)
        for t in (torch.bfloat16, torch.float16, torch.complex64, torch.complex128, torch.uint16, torch.bool)
    },
    "half complex": torch.tensor([1 + 2j]).to(torch.complex32),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "fp8": FP8,
    "fp8 scale": FP8.view(torch.uint8).view(torch.float8_e8m0fnu),
    "number as tensor": torch.tensor(10),
}


def through_a_file(state: dict[str, Any], path: Path) -> Any:
    write_checkpoint(path, flatten(state))
    check_state_file(path)  # as the approver does
    return unflatten(read_checkpoint(path))


def same(one: Any, other: Any) -> bool:
    """Kind by kind, bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape and (
            one.resolve_conj().contiguous().view(-1).view(torch.uint8).tolist()
            == other.resolve_conj().contiguous().view(-1).view(torch.uint8).tolist()
        )  # fmt: skip
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    return bool(one == other)


@pytest.mark.parametrize("name", VALUES)
def test_each_kind_comes_back(name: str, tmp_path: Path) -> None:
    value = VALUES[name]
    assert same(through_a_file({"at": {"it": value}}, tmp_path / "a.safetensors"), {"at": {"it": value}})
    assert same(unflatten(flatten({"it": value})), {"it": value})


def test_a_state_that_is_itself_ordered_is_so_again(tmp_path: Path) -> None:
    for number, state in enumerate((OrderedDict(a=1, b=2), OrderedDict(b=1, a=2), Counter(a=1), Counter(b=2, a=1))):
        assert same(through_a_file(state, tmp_path / str(number)), state)


def test_a_modules_own_state_comes_back_as_a_plain_dict(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 3)
    flat = flatten({"model": module.state_dict()})
    assert not flat.kinds
    write_checkpoint(tmp_path / "a", flat)
    other = torch.nn.Linear(2, 3)
    other.load_state_dict(unflatten(read_checkpoint(tmp_path / "a"))["model"])
    assert torch.equal(module.weight, other.weight)


def test_a_schedule_with_a_counter_of_milestones_goes_on(tmp_path: Path) -> None:
    """MultiStepLR's step(epoch) asks it for its elements."""

    def schedule() -> Any:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 3])

    one, other = schedule(), schedule()
    one.step(1)
    other.load_state_dict(through_a_file({"sched": one.state_dict()}, tmp_path / "a.safetensors")["sched"])
    for epoch in range(2, 7):
        one.step(epoch)
        other.step(epoch)
        assert one.get_last_lr() == other.get_last_lr()
    assert other.get_last_lr() == [pytest.approx(0.01)]


def test_kinds_of_dicts_from_before_there_were_others_still_load(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.safetensors", {"l": [1, 0], "n": "int"})
    assert type(unflatten(read_checkpoint(path))["l"]) is dict


def test_one_tensor_under_two_names_is_one_again(tmp_path: Path) -> None:
    weight = torch.ones(2, 3)
    state = through_a_file({"in": weight, "out": {"w": weight}, "turned": weight.T}, tmp_path / "a.safetensors")
    assert state["in"] is state["out"]["w"] and state["turned"] is not state["in"]
    assert state["turned"].tolist() == weight.T.tolist()


def test_the_same_state_is_the_same_file(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(5)]
    for path in files:
        write_checkpoint(path, flatten(VALUES))
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in files}) == 1


def test_states_that_differ_in_kind_only_have_other_roots(tmp_path: Path) -> None:
    def saved(name: str, state: Any) -> tuple[bytes, Any]:
        write_checkpoint(tmp_path / name, flatten(state))
        return file_state_root(tmp_path / name), read_checkpoint(tmp_path / name)

    weight, three = torch.ones(2), torch.tensor(3)
    states: list[Any] = [
        {"n": 3, "l": [three], "w": weight, "v": weight}, {"n": three, "l": [three], "w": weight, "v": weight},
        {"n": np.int64(3), "l": [three], "w": weight, "v": weight}, {"n": 3, "l": (three,), "w": weight, "v": weight},
        {"n": 3, "l": {0: three}, "w": weight, "v": weight}, {"n": 3, "l": {"0": three}, "w": weight, "v": weight},
        {"n": 3, "l": [three], "w": weight, "v": weight, "m": None},
        {"n": 3, "l": [three], "w": weight, "v": weight, "m": {}},
        {"n": 3, "l": [three], "w": weight, "v": weight.clone()},
        {"l": [three], "n": 3, "v": weight, "w": weight},
        OrderedDict(l=[three], n=3, v=weight, w=weight),
    ]  # fmt: skip
    roots, flats = zip(*(saved(str(number), state) for number, state in enumerate(states)), strict=True)
    assert len(set(roots)) == len(states)
    for number, flat in enumerate(flats):  # and a load_state_dict that makes one of another is told so
        assert [difference(flat, other) is None for other in flats] == [at == number for at in range(len(flats))]


@pytest.mark.parametrize(
    "text",
    [
        '{"n": "int", "l": "tuple"}', '{"l":"tuple","n":"int"}', ' {\n"l"\t:"tuple","n":"int"}\n',
        '{"\\u006c": "t\\u0075ple", "n": "int"}',
    ],
)  # fmt: skip
def test_kinds_of_one_meaning_have_one_root_however_they_are_written(text: str, tmp_path: Path) -> None:
    root = file_state_root(forged(tmp_path / "usual", {"l": "tuple", "n": "int"}))
    path = forged(tmp_path / "other", text)
    assert file_state_root(path) == root != file_state_root(forged(tmp_path / "none", {}))
    check_state_file(path)


def test_no_other_metadata_are_in_the_root(tmp_path: Path) -> None:
    for number, metadata in enumerate(({}, {"format": "pt"}, {METADATA: "{}"}, {METADATA: " {} ", "more": "x" * 999})):
        save_file({"x": torch.ones(2)}, tmp_path / str(number), metadata)
    assert len({file_state_root(tmp_path / str(number)) for number in range(4)}) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"n": "int", "n": "scalar"}', "two entries have the same name"),
        ('{"l": {"ordered": [0, 1], "ordered": [1, 0]}}', "two entries have the same name"),
        ('{"n": "int", "l": NaN}', "NaN is not a number"), ('{"l": [NaN]}', "NaN is not a number"),
        ('{"l": [1e999]}', "too large a number"), ('{"l": [1.0, 0]}', "has the kind"), ("null", "a mapping of names"),
        ('{"n": "int"}' + " " * MAX_KINDS, "too long"), ('{"l": ["\\ud800", "1"]}', "is no text of Unicode"),
        ('{"l": [' + "1" * 5000 + ', "0"]}', "Exceeds the limit"),
    ],
)  # fmt: skip
def test_kinds_that_readers_could_take_otherwise_have_no_root(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        file_state_root(forged(tmp_path / "forged", text))


def forged(path: Path, kinds: object) -> Path:
    tensors = {
        "n": torch.tensor(3),
        "x": torch.ones(2),
        "y": torch.zeros(3),
        "l/0": torch.ones(1),
        "l/1": torch.ones(1),
    }
    save_file(tensors, path, {METADATA: kinds if isinstance(kinds, str) else json.dumps(kinds)})
    return path


@pytest.mark.parametrize(
    "kinds",
    [
        "[]", "no json", "{", "[" * 100_000, '{"n": 1}', '{"n": {"a": 1}}', '{"n": [[1]]}', '{"n": [true]}',
        "{" + " " * MAX_KINDS + "}",
        {"n": "float"}, {"n": "bool"}, {"n": "str"}, {"n": "complex"}, {"n": "nothing"}, {"n": "tensor:complex128"},
        {"n": "scalar:float9"}, {"x": "int"}, {"x": "scalar"}, {"x": "float"}, {"x": "list"}, {"x": "none"},
        {"n": "dict"},
        {"x": "=y"}, {"x": "=z"}, {"x": "="}, {"z": "int"}, {"z/z": "="}, {"x/0": "none"}, {"x/0": "list"},
        {"l": ["0"]}, {"l": ["0", "0"]}, {"l": ["0", "1", "2"]}, {"l": ["0", 7]}, {"l": "int"},
        {"l/7": "none", "l": "tuple"}, {"": "list"}, {"": ["n"]}, {"": "int"}, {"a/" * 80 + "a": "none"},
        {"l/0": "size"},
        {"n": "counter"}, {"n": {"counter": []}}, {"l": {"counter": ["0"]}}, {"l": {"ordered": ["0", "0"]}},
        {"l": {"default": ["0", "1"]}}, {"l": {"dict": ["0", "1"]}}, {"l": {}}, {"l": {"counter": "ordered"}},
        {"l": {"ordered": [0.5, 1]}}, {"l": {"counter": ["0", "1"], "ordered": ["0", "1"]}}, {"": {"counter": ["n"]}},
        # One meaning has one form.
        {"l": "dict"}, {"": "dict"}, {"l": ["0", "1"]}, {"l": {"counter": ["0", "1"]}}, {"": ["l", "n", "x", "y"]},
        {"l/0": "=l/1"}, '{"n": "int", "n": "int"}',
    ],
)  # fmt: skip
def test_kinds_that_do_not_fit_are_refused(kinds: object, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        unflatten(read_checkpoint(forged(tmp_path / "forged.safetensors", kinds)))
    assert caught.value.kind == "state" and caught.value.hint == "fetch it again"
    with pytest.raises(ValueError, match="contradicts itself"):
        check_state_file(tmp_path / "forged.safetensors")


@pytest.mark.parametrize("depth", [MAX_DEPTH - 2, MAX_DEPTH - 1])
@pytest.mark.parametrize("inner", [{}, [], None, 1, torch.ones(1)])
def test_what_can_be_written_can_be_read(inner: Any, depth: int, tmp_path: Path) -> None:
    state: Any = inner
    for _ in range(depth):
        state = {"a": state}
    assert same(through_a_file(state, tmp_path / "a.safetensors"), state)
    with pytest.raises(Failure, match="deep"):
        for _ in range(MAX_DEPTH - depth):
            state = {"a": state}
        flatten(state)


def test_what_passes_the_check_is_loaded_and_becomes_the_same_again(tmp_path: Path) -> None:
    """Whatever a stranger has made up: what an approver lets pass no other provider fails with."""
    rng, path, passed = random.Random(7), tmp_path / "made up.safetensors", 0
    tensors = {
        "n": torch.tensor(3), "on": torch.tensor(True), "rate": torch.tensor(0.5, dtype=torch.float64),
        "z": torch.ones(2, dtype=torch.float64), "x": torch.ones(2), "y": torch.ones(2), "half": torch.ones(2).half(),
        "t": torch.tensor([111, 107], dtype=torch.uint8), "l/0": torch.tensor(1), "l/1": torch.tensor(2),
    }  # fmt: skip
    names = [*tensors, "l", "m", "m/0", "l/2", ""]
    kinds = [
        "int", "bool", "float", "complex", "str", "bytes", "array", "scalar", "none", "dict", "list", "tuple", "size",
        "=x", "=l/0", "=half", {"ordered": ["1", "0"]}, {"counter": ["0", "1"]}, "ordered",
        "tensor:complex128", "tensor:complex32", "tensor:float8_e8m0fnu", "array:complex128",
        "scalar:complex128", ["0", "1"], ["1", "0"], [1, 0], ["0", "1", "2"], [],
    ]  # fmt: skip
    for _ in range(2500):
        there = {name: tensor for name, tensor in tensors.items() if rng.random() < 0.7}
        made_up = {rng.choice(names): rng.choice(kinds) for _ in range(rng.randint(1, 3))}
        save_file(there, path, {METADATA: json.dumps(made_up)})
        try:
            check_state_file(path)
        except ValueError:
            continue
        saved, passed = read_checkpoint(path), passed + 1
        assert difference(flatten(unflatten(saved)), saved) is None, made_up
        assert dict(flatten(unflatten(saved)).kinds) == dict(saved.kinds), made_up
    assert passed > 100


def test_kinds_that_fit_are_heeded(tmp_path: Path) -> None:
    kinds = {"n": "int", "x": "array", "l": "tuple", "m": "none", "": ["m", "n", "x", "y", "l"]}
    state = unflatten(read_checkpoint(forged(tmp_path / "a.safetensors", kinds)))
    assert list(state) == ["m", "n", "x", "y", "l"]
    assert (state["n"], state["m"], type(state["x"]), type(state["l"])) == (3, None, np.ndarray, tuple)
