"""An optimizer goes on from a checkpoint as if it had never stopped, whatever it keeps, and wherever it keeps it."""

from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.recipes.resuming import CountingAdam
from worker.training.failures import Failure
from worker.training.kinds import no_kind
from worker.training.optimizers import load_optimizer_state, optimizer_state
from worker.training.state import difference, flatten, read_checkpoint, unflatten, write_checkpoint


class Schedules(torch.optim.SGD):
    """Makes of its groups, in its steps, what the constructor has not put there; its rate depends on each of that."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1  # as apex' FusedAdam
            plan = group.setdefault("plan", {"n": 0, "seen": Counter(), "rates": [], "last": None})
            plan["n"] += 1
            plan["seen"][group["step"] % 2] += 1
            plan["rates"].append(group["lr"])
            plan["last"] = torch.tensor([group["lr"]])
            group["history"] = [*group.get("history", []), group["lr"]]
            group["phase"] = "late" if group["step"] > 2 else "early"
            group["wide"] = np.float32(group["step"])
            best = group["best"]
            group["best"] = group["step"] if best is None else min(best, group["step"])
            fall = len(group["history"]) + plan["n"] + max(plan["seen"].elements()) + group["best"] + group["wide"]
            group["lr"] = 0.5 / float(fall) * (0.5 if group["phase"] == "late" else 1) * float(plan["last"]) ** 0.1

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        for group in self.param_groups:
            group["best"] = None


class Notes(torch.optim.SGD):
    """Keeps of each parameter what only steps put there, not all of it in a dict of tensors."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        self.state["order"] = self.state.get("order", OrderedDict(b=1, a=0))
        self.state["order"]["b"] += 1
        for parameter in self.param_groups[0]["params"]:
            kept = self.state[parameter]
            kept["mode"] = "slow" if kept.get("mode") == "fast" else "fast"
            kept["past"] = np.append(kept.get("past", np.zeros(1)), len(kept.get("past", [])))
            kept.setdefault("counts", Counter())[kept["mode"]] += 1
            kept["last"] = None if kept.get("last", 1) else 1
            kept["nested"] = {"turn": ["x", kept["mode"]], "mean": parameter.detach() * 0.5}
            scale = 1 + kept["past"].sum() + kept["counts"]["fast"] + self.state["order"]["b"]
            with torch.no_grad():
                parameter.add_(
                    kept["nested"]["mean"], alpha=-0.01 / scale * (2 if kept["nested"]["turn"][1] == "fast" else 1)
                )


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
    "IntStep": lambda p: CountingAdam(p, {"lr": 1e-3}),
    "what steps put into groups": lambda p: Schedules(p),
    "what steps put beside a parameter": lambda p: Notes(p, lr=0.1, momentum=0.9),
    "names of parameters": lambda p: torch.optim.AdamW([(f"p{n}", one) for n, one in enumerate(p)], lr=0.01),
    "numpy's rate": lambda p: torch.optim.SGD(p, lr=np.float32(0.1), momentum=0.9),
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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_from_another_ones_state(name: str) -> None:
    """Which comes through no file, and is not shared: both go on."""
    one, two = model(), model()
    optimizer, other = (OPTIMIZERS[name](module.parameters()) for module in (one, two))
    train(one, optimizer, 3)
    two.load_state_dict(one.state_dict())
    load_optimizer_state(other, two, optimizer_state(optimizer, one))
    train(one, optimizer, 3)
    train(two, other, 3)
    assert difference(flatten(one.state_dict()), flatten(two.state_dict())) is None
    assert difference(flatten(optimizer_state(optimizer, one)), flatten(optimizer_state(other, two))) is None


def test_lbfgs_goes_on_from_its_lists(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    inputs = torch.linspace(-1, 1, 32).reshape(8, 4)

    def steps(module: nn.Module, optimizer: Any) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = (module(inputs) - 1).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)

    one, two = model(), model()
    optimizer, other = (torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=3) for module in (one, two))
    steps(one, optimizer)
    write_checkpoint(path, flatten({"model": one.state_dict(), "optimizer": optimizer_state(optimizer, one)}))
    saved = unflatten(read_checkpoint(path))
    two.load_state_dict(saved["model"])
    load_optimizer_state(other, two, saved["optimizer"])
    steps(one, optimizer)
    steps(two, other)
    assert difference(flatten(one.state_dict()), flatten(two.state_dict())) is None


def test_numbers_of_checkpoints_from_before_kinds_are_made_of_tensors(tmp_path: Path) -> None:
    one, two = model(), model()
    optimizer, other = (torch.optim.AdamW(module.parameters(), lr=0.01, betas=(0.8, 0.9)) for module in (one, two))
    train(one, optimizer, 3)
    path = tmp_path / "state.safetensors"
    write_checkpoint(path, dict(flatten(optimizer_state(optimizer, one))))  # a plain dict has no kinds
    saved = unflatten(read_checkpoint(path))
    assert isinstance(saved["groups"]["0"]["lr"], torch.Tensor)
    two.load_state_dict(one.state_dict())
    load_optimizer_state(other, two, saved)
    assert other.param_groups[0]["betas"] == (0.8, 0.9) and type(other.param_groups[0]["lr"]) is float
    train(one, optimizer, 3)
    train(two, other, 3)
    assert difference(flatten(one.state_dict()), flatten(two.state_dict())) is None


def test_optimizer_state_is_named_by_parameter() -> None:
    one = model()
    optimizer = torch.optim.AdamW(one.parameters())
    train(one, optimizer, 1)
    names = flatten(optimizer_state(optimizer, one))
    assert "state/0.weight/exp_avg" in names and "groups/0/betas/1" in names


def test_an_optimizer_over_other_parameters_is_refused() -> None:
    with pytest.raises(Failure, match="4 parameters that are not the model's"):
        optimizer_state(torch.optim.SGD(model().parameters()), model())


def saved_by_a_former_version(saved: dict[str, Any]) -> dict[str, Any]:
    """Which left out what is no number, and made dicts of tuples and lists."""

    def numbers(values: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in values.items() if isinstance(value, bool | int | float)}
        places = {key: value for key, value in values.items() if isinstance(value, list | tuple)}
        return kept | {key: numbers({str(at): one for at, one in enumerate(value)}) for key, value in places.items()}

    return saved | {"groups": {number: numbers(group) for number, group in saved["groups"].items()}}


def test_a_former_versions_checkpoint_is_taken_up(tmp_path: Path) -> None:
    """As weights to start from, by the door's functions."""
    one, two = model(), model()

    def made(module: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adafactor(module.parameters(), lr=0.01)
        optimizer.param_groups[0].update({"name": "all", "kinds": b"x"})
        return optimizer

    optimizer, other = made(one), made(two)
    train(one, optimizer, 3)
    path = tmp_path / "state.safetensors"
    write_checkpoint(path, flatten(saved_by_a_former_version(optimizer_state(optimizer, one))))
    two.load_state_dict(one.state_dict())
    load_optimizer_state(other, two, unflatten(read_checkpoint(path)))
    assert other.param_groups[0]["eps"] == (None, 1e-3)
    train(one, optimizer, 3)
    train(two, other, 3)
    assert difference(flatten(one.state_dict()), flatten(two.state_dict())) is None
    assert optimizer_state(other, two)["groups"]["0"]["name"] == "all"


def test_what_a_group_holds_that_no_state_can_is_named() -> None:
    one = model()
    optimizer = torch.optim.SGD(one.parameters())
    optimizer.param_groups[0]["rate_of"] = {"step": no_kind}
    with pytest.raises(Failure, match="the state's 'opt/groups/0/rate_of/step' is a function"):
        flatten({"opt": optimizer_state(optimizer, one)})


def test_what_is_left_out_is_the_constructors() -> None:
    one = model()
    optimizer, other = (torch.optim.SGD(one.parameters(), lr=lr) for lr in (0.1, 0.2))
    other.param_groups[0]["rate_of"] = no_kind
    saved = optimizer_state(optimizer, one)
    del saved["groups"]["0"]["momentum"]
    load_optimizer_state(other, one, saved)
    assert other.param_groups[0]["rate_of"] is no_kind and other.param_groups[0]["momentum"] == 0
    assert other.param_groups[0]["lr"] == 0.1


def test_what_is_loaded_is_copied() -> None:
    one = model()
    optimizer, other = Schedules(one.parameters()), Schedules(one.parameters())
    train(one, optimizer, 2)
    load_optimizer_state(other, one, optimizer_state(optimizer, one))
    mine, its = (opt.param_groups[0] for opt in (optimizer, other))
    assert its["plan"] is not mine["plan"] and its["plan"]["rates"] is not mine["plan"]["rates"]
    assert its["plan"]["last"].data_ptr() != mine["plan"]["last"].data_ptr() and its["history"] is not mine["history"]
