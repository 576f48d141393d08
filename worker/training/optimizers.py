"""An optimizer's state by the names of its parameters, for recipes: gpumarket/recipe.py."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.training.failures import Failure


def optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict[str, Any]:
    """The optimizer's state by parameter name, and what its groups hold (learning rate, betas, ...)."""
    names = _parameter_names(optimizer, model)
    saved = optimizer.state_dict()
    state = {names[index]: entry for index, entry in saved["state"].items() if index in names}
    groups = {str(number): _settings(group) for number, group in enumerate(saved["param_groups"])}
    whole = {"state": {name: state[name] for name in sorted(state, key=str.encode) if _holds(state[name])}}
    others = {key: value for key, value in saved["state"].items() if key not in names}
    return whole | {"groups": groups} | ({"others": others} if others else {})


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Puts into `optimizer` what optimizer_state returned for another of its kind and parameters.

    Tensors keep the dtype that they were saved with, and numbers their kind. All is copied. What the optimizer has and
    the state lacks, it keeps. Raises KeyError for a state of other parameters or groups.
    """
    indices = {name: index for index, name in _parameter_names(optimizer, model).items()}
    groups = optimizer.state_dict()["param_groups"]
    for number, group in enumerate(groups):
        saved = state["groups"][str(number)]
        device = next((one.device for one in optimizer.param_groups[number]["params"]), torch.device("cpu"))
        group.update({key: _like(group.get(key), value, device) for key, value in saved.items()})
    entries = {indices[name]: entry for name, entry in state.get("state", {}).items()} | dict(state.get("others", {}))
    torchs = {index: _for_torch(entry) for index, entry in entries.items()}
    optimizer.load_state_dict({"state": torchs, "param_groups": groups})
    # torch has cast what belongs to a parameter to the parameter's dtype: moments in float32 beside bfloat16 weights.
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    for index, entry in entries.items():
        key = parameters.get(index, index)
        loaded = optimizer.state[key]
        made = _as_saved(loaded, entry)
        optimizer.state[key] = (
            {**made, **_lacking(loaded, made)} if isinstance(loaded, dict) and type(entry) is dict else made
        )


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """All of a group but its parameters and their names, which the optimizer is made with."""
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def _lacking(loaded: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in loaded.items() if key not in made}


def _holds(entry: Any) -> bool:
    return not isinstance(entry, Mapping) or bool(entry)


def _for_torch(entry: Any) -> Any:
    """What torch's load_state_dict should place and cast. It takes texts and arrays for iterables, and breaks them."""
    if not isinstance(entry, Mapping):
        return None if isinstance(entry, str | bytes | np.ndarray) else entry
    return {key: value for key, value in entry.items() if not isinstance(value, str | bytes | np.ndarray)}


def _as_saved(loaded: Any, saved: Any) -> Any:
    """What was saved, itself or a copy, on the device where torch has put it."""
    match saved:
        case Tensor() if isinstance(loaded, Tensor):
            fits = loaded.dtype == saved.dtype and loaded.data_ptr() != saved.data_ptr()
            return loaded if fits else saved.detach().to(loaded.device, copy=True)
        case dict() if isinstance(loaded, Mapping):
            made = copy.copy(saved)  # of its kind
            for key, part in saved.items():
                made[key] = _as_saved(loaded.get(key), part)
            return made
        case list() | tuple() if isinstance(loaded, list | tuple) and len(loaded) == len(saved):
            return type(saved)([_as_saved(*pair) for pair in zip(loaded, saved, strict=True)])
    # Some optimizers make tensors of their numbers.
    return loaded if isinstance(loaded, Tensor) and not isinstance(saved, Tensor) else copy.deepcopy(saved)


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


def _like(current: Any, saved: Any, device: torch.device) -> Any:
    """A copy of what was saved, for where the optimizer holds `current`, or nothing: then that is None.

    Tensors go where the present ones are, and where there is none to the parameters' `device`.
    """
    numbered = isinstance(current, tuple | list) and isinstance(saved, Mapping)  # as tuples and lists were saved once
    if numbered and saved.keys() <= {str(place) for place in range(len(current))}:
        parts = (_like(part, saved[str(i)], device) if str(i) in saved else part for i, part in enumerate(current))
        return type(current)(parts)
    if isinstance(current, Tensor):
        made = saved if isinstance(saved, Tensor) else torch.tensor(saved).to(current)
        return made.detach().to(current.device, copy=True)
    match saved:
        case Tensor() if isinstance(current, bool | int | float | np.generic) and _was_number(current, saved):
            return type(current)(saved.item())
        case Tensor():
            return saved.detach().to(device, copy=True)
        case dict():
            filled = copy.copy(saved)  # of its kind
            for key, part in saved.items():
                filled[key] = _like(None, part, device)
            return filled
        case list() | tuple():
            alike = isinstance(current, tuple | list) and len(current) == len(saved)
            return type(saved)(
                [
                    _like(one, part, device)
                    for one, part in zip(current if alike else [None] * len(saved), saved, strict=True)
                ]
            )
    return copy.deepcopy(saved)


def _was_number(current: Any, saved: Tensor) -> bool:
    """Checkpoints from before kinds were kept have tensors for all numbers."""
    usual = saved.dtype in (torch.float64, torch.int64, torch.bool)
    return not saved.dim() and (usual or isinstance(current, np.generic))
