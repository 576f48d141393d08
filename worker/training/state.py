"""Training state as flat named tensors, and checkpoint files. Their hash is contracts.commitment.state_root.

A state may nest: {"model": model.state_dict(), "optimizer": optimizer_state(optimizer, model)} becomes
tensors named `model/<parameter>` and `optimizer/state/<parameter>/exp_avg`. Integers and booleans become
I64 and BOOL tensors of no dimension, floats F64. Recipes use optimizer_state and load_optimizer_state.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.training.failures import Failure, is_full

SEPARATOR = "/"


def flatten(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name -> tensor, ascending by the names' UTF-8 bytes, not copied. Raises Failure("state")."""
    found = dict(_walk(state, ""))
    return {name: found[name] for name in sorted(found, key=str.encode)}


def _walk(state: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for key, value in state.items():
        if not isinstance(key, str) or not key or SEPARATOR in key:
            raise Failure(
                "state",
                f"the state has the key {key!r} under {prefix or 'its top'!r}",
                f"keys are strings without {SEPARATOR!r}; for an optimizer use gpumarket.recipe.optimizer_state",
            )
        name = prefix + key
        match value:
            case Tensor():
                yield name, value.detach() if value.requires_grad else value
            case bool() | int() | float():
                yield name, _scalar(value)
            case Mapping():
                yield from _walk(value, name + SEPARATOR)
            case _:
                raise Failure(
                    "state",
                    f"the state's {name!r} is a {type(value).__name__}",
                    "a state holds tensors, numbers, and dicts of them",
                )


def _scalar(value: bool | int | float) -> Tensor:
    dtype = {bool: torch.bool, int: torch.int64, float: torch.float64}[type(value)]
    return torch.tensor(value, dtype=dtype, device="cpu")


def unflatten(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """The nested dicts that flatten was given; an empty dict in them is lost."""
    nested: dict[str, Any] = {}
    for name, tensor in flat.items():
        *path, last = name.split(SEPARATOR)
        inner = nested
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = tensor
    return nested


def optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict[str, Any]:
    """The optimizer's state by parameter name, and the numbers of its groups (learning rate, betas, ...).

    What is neither a tensor nor a number (`foreach=None`) is the constructor's to set, and left out.
    """
    names = _parameter_names(optimizer, model)
    saved = optimizer.state_dict()
    state = {
        names[index]: {key: value for key, value in entry.items() if value is not None}
        for index, entry in saved["state"].items()
    }
    groups = {str(number): _group_numbers(group) for number, group in enumerate(saved["param_groups"])}
    return {"state": {name: entry for name, entry in state.items() if entry}, "groups": groups}


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Puts into `optimizer` what optimizer_state returned for another of its kind and parameters."""
    indices = {name: index for index, name in _parameter_names(optimizer, model).items()}
    groups = optimizer.state_dict()["param_groups"]
    for number, group in enumerate(groups):
        saved = state["groups"][str(number)]
        group.update({key: _like(group[key], value) for key, value in saved.items()})
    entries = {indices[name]: dict(entry) for name, entry in state.get("state", {}).items()}
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _parameter_names(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict[int, str]:
    """Index in the optimizer's state_dict -> the parameter's name in the model."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    unknown = sum(id(parameter) not in names for parameter in parameters)
    if unknown:
        raise Failure(
            "state",
            f"the optimizer has {unknown} parameters that are not the model's",
            "give gpumarket.recipe the module that holds all the parameters of this optimizer",
        )
    return {index: names[id(parameter)] for index, parameter in enumerate(parameters)}


def _group_numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for key, value in group.items():
        if isinstance(value, bool | int | float | Tensor):
            numbers[key] = value
        elif key != "params" and isinstance(value, tuple | list):
            numbers[key] = _group_numbers({str(place): part for place, part in enumerate(value)})
    return numbers


def _like(current: Any, saved: Any) -> Any:
    """A saved number, or tuple of numbers, as the kind of value that the optimizer holds there."""
    if isinstance(current, tuple | list):
        parts = (_like(part, saved[str(i)]) if str(i) in saved else part for i, part in enumerate(current))
        return type(current)(parts)
    return saved if isinstance(current, Tensor) else type(current)(saved.item())


def write_checkpoint(path: Path, flat: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file; see `written`."""
    with written(path) as partial:
        save_file(dict(_without_shared_memory(flat)), partial)


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A file to write, which becomes `path` if nothing is raised.

    It is not synced: training waits for a copy into the kernel's memory, not for the disk. What must outlive a power
    cut is the worker's copy of the file, and that is. Raises OSError if the disk is full, Failure("disk") for any
    other reason.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except (OSError, safetensors.SafetensorError) as error:
        partial.unlink(missing_ok=True)
        if is_full(error):
            raise OSError(errno.ENOSPC, f"no room for {path.name}") from error
        raise Failure("disk", f"can't write {path.name}: {error}", "see disk_mb in provider.toml") from error


def _without_shared_memory(flat: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """On the CPU, row-major. safetensors refuses tied weights: a second view of the same memory is copied."""
    seen: set[int] = set()
    for name, tensor in flat.items():
        row_major = tensor.to("cpu").contiguous()
        memory = row_major.untyped_storage().data_ptr()
        yield name, row_major.clone() if memory in seen else row_major
        seen.add(memory)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The flat state in a safetensors file. Raises Failure("state")."""
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise Failure("state", f"can't read the checkpoint {path.name}: {error}", "fetch it again") from error


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """What tells two flat states apart, in words; None if they are equal bit for bit."""
    if one.keys() != other.keys():
        return f"only one of them has {', '.join(sorted(one.keys() ^ other.keys())[:5])}"
    for name, tensor in one.items():
        twin = other[name]
        if tensor.dtype != twin.dtype or tensor.shape != twin.shape:
            return f"{name}: {tensor.dtype}{list(tensor.shape)} against {twin.dtype}{list(twin.shape)}"
        if not torch.equal(as_bytes(tensor).cpu(), as_bytes(twin).cpu()):
            return f"{name} differs in value"
    return None


def as_bytes(tensor: Tensor) -> Tensor:
    """The tensor's memory, row-major, as a flat uint8 tensor."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
