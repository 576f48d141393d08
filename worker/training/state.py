"""Training state as flat named tensors, and checkpoint files. Their hash is contracts.commitment.state_root.

A state may nest: {"model": model.state_dict(), "optimizer": optimizer_state(optimizer, model)} becomes
tensors named `model/<parameter>` and `optimizer/state/<parameter>/exp_avg`. Integers and booleans become
I64 and BOOL tensors of no dimension, floats F64; what they were is kept beside them (contracts/job/state_kinds.py).
An optimizer's: worker/training/optimizers.py.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file as save_tensors
from torch import Tensor

from contracts.commitment import check_state_size
from contracts.job.state_kinds import (
    MAX_DEPTH,
    MAX_NAME,
    METADATA,
    SEPARATOR,
    Kind,
    check_kinds,
    in_order,
    keys_of,
    kinds_as_json,
    state_tree,
)
from contracts.statefile import mapped_state
from contracts.strict_json import write_json
from worker.training.failures import Failure, is_full
from worker.training.kinds import (
    MAPPINGS,
    SEQUENCES,
    no_kind,
    restored,
    stored_array,
    stored_bytes,
    stored_int,
    stored_tensor,
)

_HOLDS = "a state holds tensors, numbers, text, None, arrays of numpy, and dicts, lists and tuples of them"
_UNSAFE_NAMES = "keys are text or integers, without '/'; for an optimizer use gpumarket.recipe.optimizer_state"


class FlatState(dict[str, Tensor]):
    """A state's tensors, ascending by their names' UTF-8 bytes; and `kinds`: what they were in the state."""

    def __init__(self, tensors: Mapping[str, Tensor], state: Any = None, kinds: Mapping[str, Kind] | None = None):
        super().__init__((name, tensors[name]) for name in sorted(tensors, key=str.encode))
        self._state, self._kinds = state, kinds

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """Needed where a state is saved, and not at each step."""
        if self._kinds is not None:
            return self._kinds
        kinds: dict[str, Kind] = {}
        _same_memory(dict(_walk(self._state, "", kinds)), kinds)
        return kinds


def flatten(state: Mapping[str, Any]) -> FlatState:
    """Name -> tensor, ascending by the names' UTF-8 bytes, not copied. Raises Failure("state") naming the entry."""
    if not isinstance(state, Mapping):
        raise Failure("state", f"state_dict() returned a {type(state).__name__}", "it returns a dict")
    return FlatState(dict(_walk(state, "", None)), state)


def _walk(value: Any, name: str, kinds: dict[str, Kind] | None, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors of what is named `name`. What they were goes into `kinds`, unless nobody wants to know."""
    kind: Kind = ""
    tensor: Tensor | None = None
    inner: Iterable[tuple[str, Any]] = ()
    try:
        match value:
            case Tensor():
                tensor, dtype = stored_tensor(value)
                kind = f"tensor:{dtype}" if dtype else ""
            case None:
                kind = "none"
            case _ if (made := _PLAIN.get(type(value))) is not None:
                tensor, kind = made(value), type(value).__name__
            case dict() if type(value) in MAPPINGS.values():
                inner = _named(value, name)
                kind = _kind_of_dict(value, name) if kinds is not None else ""
            case list() | tuple() if type(value) in SEQUENCES.values():
                inner = ((_join(name, str(place)), part) for place, part in enumerate(value))
                kind = next(kind for kind, made in SEQUENCES.items() if made is type(value))
            case np.generic():
                tensor, dtype = stored_array(value)
                kind = f"scalar:{dtype}" if dtype else "scalar"
            case np.ndarray() if type(value) is np.ndarray:
                tensor, dtype = stored_array(value)
                kind = f"array:{dtype}" if dtype else "array"
            case _:
                raise ValueError(no_kind(value))
    except ValueError as error:
        what = f"the state's {name!r}" if name else "what state_dict() returned"
        raise Failure("state", f"{what} is {error}", _HOLDS) from error
    if kinds is not None and kind:
        kinds[name] = kind
    if tensor is not None:
        yield name, tensor
    if depth == MAX_DEPTH:
        raise Failure("state", f"the state's {name!r:.200} is nested over {MAX_DEPTH} deep", "make it flatter")
    for inner_name, part in inner:
        yield from _walk(part, inner_name, kinds, depth + 1)


# Python's own kinds; what derives of them (an enum's member) is another.
_PLAIN: dict[type, Callable[[Any], Tensor]] = {
    int: stored_int,
    bool: lambda value: torch.tensor(value, dtype=torch.bool, device="cpu"),
    float: lambda value: torch.tensor(value, dtype=torch.float64, device="cpu"),
    complex: lambda value: torch.tensor([value.real, value.imag], dtype=torch.float64, device="cpu"),
    str: lambda value: stored_bytes(value.encode("utf-8", "surrogatepass")),
    bytes: stored_bytes,
}


def _named(mapping: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """A mapping's values by their names in the state."""
    seen: set[str] = set()
    for key, value in mapping.items():
        name = str(key)
        if type(key) is not int and (type(key) is not str or not key or SEPARATOR in key):
            raise Failure("state", f"the state has the key {key!r:.200} under {_under(prefix)!r}", _UNSAFE_NAMES)
        if name in seen:
            raise Failure("state", f"the state has two keys {name!r} under {_under(prefix)!r}", _UNSAFE_NAMES)
        seen.add(name)
        yield _join(prefix, name), value


def _under(prefix: str) -> str:
    return prefix + SEPARATOR if prefix else "its top"


def _join(prefix: str, name: str) -> str:
    joined = f"{prefix}{SEPARATOR}{name}" if prefix else name
    if len(joined) > MAX_NAME // 4 or not joined.isascii():
        try:
            if len(joined.encode()) > MAX_NAME:
                raise Failure("state", f"the state's {joined!r:.100} has a name over {MAX_NAME} bytes", "shorten it")
        except UnicodeEncodeError as error:
            raise Failure("state", f"the state's {joined!r:.200} has a name that is no text", _UNSAFE_NAMES) from error
    return joined


def _kind_of_dict(mapping: Mapping[Any, Any], path: str) -> Kind:
    """Of a module's own state, an OrderedDict, neither that nor its order means a thing: files would be longer."""
    keys, modules = list(mapping), hasattr(mapping, "_metadata")
    name = next(name for name, made in MAPPINGS.items() if made is (dict if modules else type(mapping)))
    usual = modules or (all(type(key) is str for key in keys) and keys == in_order(keys))
    if name == "dict":
        return keys if not usual else "" if keys or not path else name
    return name if usual else {name: keys}


def _same_memory(flat: Mapping[str, Tensor], kinds: dict[str, Kind]) -> None:
    """Marks tensors that are another one of the state, such as tied weights: a change of one changes both."""
    first: dict[tuple[Any, ...], str] = {}
    for name in in_order(flat):
        tensor = flat[name]
        if name not in kinds and tensor.numel():
            memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if (twin := first.setdefault(memory, name)) != name:
                kinds[name] = "=" + twin


def unflatten(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """The state that flatten was given. Of tensors without kinds: nested dicts of them. Raises Failure("state")."""
    kinds = dict(flat.kinds) if isinstance(flat, FlatState) else {}
    try:
        state: dict[str, Any] = _restore(state_tree(flat, kinds), "", kinds, flat)
        if kinds:
            raise ValueError(f"there is nothing that has the kind of {next(iter(kinds))!r:.100}")
    except ValueError as error:
        raise Failure("state", f"the checkpoint contradicts itself: {error}", "fetch it again") from error
    return state


def _restore(node: Any, name: str, kinds: dict[str, Kind], flat: Mapping[str, Tensor]) -> Any:
    """Takes the kinds that it has used out of `kinds`."""
    kind = kinds.pop(name, "")
    if node is None:
        return None
    if isinstance(node, Tensor):
        return _leaf(node, kind, flat)
    parts = {key: _restore(part, _join(name, key), kinds, flat) for key, part in node.items()}
    if (keys := keys_of(kind)) is not None:
        if sorted(map(str, keys)) != sorted(parts):
            raise ValueError(f"{name[:100]!r} has other keys than its kind says")
        made = MAPPINGS[next(iter(kind))] if isinstance(kind, dict) else dict
        return made({key: parts[str(key)] for key in keys})
    if name and isinstance(kind, str) and kind in SEQUENCES:
        if parts.keys() != {str(place) for place in range(len(parts))}:
            raise ValueError(f"{name[:100]!r} is no {kind}")
        return SEQUENCES[kind](parts[str(place)] for place in range(len(parts)))
    if kind not in ("", *MAPPINGS):
        raise ValueError(f"{name[:100]!r} is no {str(kind)[:40]!r}")
    return MAPPINGS[kind or "dict"]({key: parts[key] for key in in_order(parts)})


def _leaf(tensor: Tensor, kind: Kind, flat: Mapping[str, Tensor]) -> Any:
    if isinstance(kind, str) and kind.startswith("="):
        twin = flat.get(kind[1:])
        if twin is None or twin.dtype != tensor.dtype or twin.shape != tensor.shape:
            raise ValueError(f"{kind[1:100]!r} is no such tensor")
        return twin
    return restored(kind, tensor) if kind else tensor


def write_checkpoint(path: Path, flat: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file; see `written`."""
    kinds = flat.kinds if isinstance(flat, FlatState) else {}
    with written(path) as partial:
        save_file(FlatState(dict(_without_shared_memory(flat)), kinds=kinds), partial)


def save_file(flat: FlatState, path: Path) -> None:
    """The tensors, with their kinds as the file's metadata. The same state is the same file, byte for byte."""
    kinds = check_state(flat)
    save_tensors(dict(flat), path, {METADATA: kinds} if flat.kinds else None)


def check_state(flat: FlatState) -> str:
    """Its kinds, as text. Raises Failure("state") if it can't be saved, or not be checked by others."""
    try:
        kinds = kinds_as_json(flat.kinds)
        check_state_size({name: tensor.shape for name, tensor in flat.items()}, len(write_json(kinds)))
    except ValueError as error:
        raise Failure("state", str(error), "keep many numbers in one tensor or array") from error
    return kinds


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


def read_checkpoint(path: Path) -> FlatState:
    """The flat state in a safetensors file. Raises Failure("state")."""
    try:
        tensors, kinds = mapped_state(path)
        if kinds:
            check_kinds(kinds, {tensor.name: tensor for tensor in tensors})
        return FlatState(load_file(path), kinds=kinds)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        raise Failure("state", f"can't read the checkpoint {path.name}: {error}", "fetch it again") from error


def difference(one: FlatState, other: FlatState) -> str | None:
    """What tells two flat states apart, in words; None if they are equal bit for bit, and in kind."""
    if one.keys() != other.keys():
        return f"only one of them has {', '.join(sorted(one.keys() ^ other.keys())[:5])}"
    for name, tensor in one.items():
        twin = other[name]
        if tensor.dtype != twin.dtype or tensor.shape != twin.shape:
            return f"{name}: {tensor.dtype}{list(tensor.shape)} against {twin.dtype}{list(twin.shape)}"
        if not torch.equal(as_bytes(tensor).cpu(), as_bytes(twin).cpu()):
            return f"{name} differs in value"
    for name in in_order(one.kinds.keys() | other.kinds.keys()):
        kinds = (one.kinds.get(name), other.kinds.get(name))
        if kinds[0] != kinds[1]:
            first, second = (str(kind or "of no kind")[:100] for kind in kinds)
            return f"{name or 'its top'} is {first} against {second}"
    return None


def as_bytes(tensor: Tensor) -> Tensor:
    """The tensor's memory, row-major, as a flat uint8 tensor."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
