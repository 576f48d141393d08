"""Training state: names, optimizers, files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from worker.training.failures import Failure
from worker.training.state import (
    difference,
    flatten,
    load_optimizer_state,
    optimizer_state,
    read_checkpoint,
    unflatten,
    write_checkpoint,
)


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
        ({0: torch.zeros(1)}, "the key 0"),
        ({"a/b": torch.zeros(1)}, "the key 'a/b'"),
        ({"a": {"": torch.zeros(1)}}, "the key '' under 'a/'"),
        ({"a": [torch.zeros(1)]}, "'a' is a list"),
        ({"a": None}, "'a' is a NoneType"),
    ],
)
def test_what_has_no_name_or_no_bytes_is_refused(state: dict[Any, Any], message: str) -> None:
    with pytest.raises(Failure, match=message):
        flatten(state)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    torch.manual_seed(1)
    for _ in range(steps):
        loss = module(torch.randn(8, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.9)),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), amsgrad=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_from_its_saved_state(name: str, tmp_path: Path) -> None:
    one = model()
    optimizer = OPTIMIZERS[name](one.parameters())
    train(one, optimizer, 3)
    optimizer.param_groups[0]["lr"] *= 0.5
    path = tmp_path / "state.safetensors"
    write_checkpoint(path, flatten({"model": one.state_dict(), "optimizer": optimizer_state(optimizer, one)}))

    two = model()
    other = OPTIMIZERS[name](two.parameters())
    saved = unflatten(read_checkpoint(path))
    two.load_state_dict(saved["model"])
    load_optimizer_state(other, two, saved["optimizer"])
    train(one, optimizer, 3)
    train(two, other, 3)
    assert difference(flatten(one.state_dict()), flatten(two.state_dict())) is None
    assert difference(flatten(optimizer_state(optimizer, one)), flatten(optimizer_state(other, two))) is None


def test_optimizer_state_is_named_by_parameter() -> None:
    one = model()
    optimizer = torch.optim.AdamW(one.parameters())
    train(one, optimizer, 1)
    names = flatten(optimizer_state(optimizer, one))
    assert "state/0.weight/exp_avg" in names and "groups/0/betas/1" in names


def test_an_optimizer_over_other_parameters_is_refused() -> None:
    with pytest.raises(Failure, match="4 parameters that are not the model's"):
        optimizer_state(torch.optim.SGD(model().parameters()), model())


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    path = tmp_path / "tied.safetensors"
    flat = flatten({"in": weight, "out": weight, "turned": weight.T})
    write_checkpoint(path, flat)
    assert difference(read_checkpoint(path), flat) is None


def test_difference_says_what_differs() -> None:
    one = {"a": torch.tensor([0.0])}
    assert difference(one, {"b": torch.zeros(1)}) == "only one of them has a, b"
    assert difference(one, {"a": torch.tensor([-0.0])}) == "a differs in value"
    assert difference(one, {"a": torch.zeros(2)}) == "a: torch.float32[1] against torch.float32[2]"
    nan = {"a": torch.tensor([float("nan")])}
    assert difference(nan, nan) is None
