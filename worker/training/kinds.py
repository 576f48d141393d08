"""What a state's entries were before they became tensors, so that load_state_dict gets them back as that.

A *kind* stands for each entry that is no plain tensor, under the entry's name. Of values:

    int, float, bool, complex, str, bytes    Python's own
    array, scalar                            numpy's
    tensor                                   of a dtype that safetensors lacks
    =NAME                                    the same tensor as NAME, in the same memory
    none                                     has no tensor

Of what holds others, named by the names on the way: list, tuple, size (torch.Size), dict (an empty one), or for a dict
whose keys are not text in order, the list of its keys. Kinds are metadata of a checkpoint's file, hence a stranger's
word: each is checked against the tensor that it is about.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contracts.strict_json import read_json, write_json

Kind = str | list[str | int]
Kinds = Mapping[str, Kind]

METADATA = "gpumarket.kinds"  # its key; there is one, since safetensors writes several in any order
MAX_KINDS = 1 << 20  # bytes of all kinds as JSON
SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "size": torch.Size}

# As safetensors writes and reads them.
STORED = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool}
    | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8}
    | {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz}
)
_AS_PARTS = {"complex128": torch.complex128, "complex32": torch.complex32}  # stored as real and imaginary part
_AS_BYTES = {"float8_e8m0fnu": torch.float8_e8m0fnu, "float4_e2m1fn_x2": torch.float4_e2m1fn_x2}
_NAMES = {dtype: name for name, dtype in (_AS_PARTS | _AS_BYTES).items()}


def stored_tensor(tensor: Tensor) -> tuple[Tensor, str]:
    """A tensor as its file has it, not copied, and the name of its dtype if that is another. Raises ValueError."""
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        what = str(tensor.layout).removeprefix("torch.") if tensor.device.type != "meta" else "meta"
        raise ValueError(f"a {what} tensor; a state holds dense ones: .to_dense()")
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype.is_complex:
        tensor = tensor.resolve_conj()
    if tensor.dtype in STORED:
        return tensor, ""
    name = _NAMES.get(tensor.dtype)
    if name is None:
        raise ValueError(f"a tensor of {tensor.dtype}, which no file of tensors can hold; change its dtype")
    return (torch.view_as_real(tensor) if name in _AS_PARTS else tensor.contiguous().view(torch.uint8)), name


def stored_array(array: Any) -> tuple[Tensor, str]:
    """The same of numpy's: an array of numbers, or one number. Raises ValueError."""
    values = np.asarray(array)
    if not (values.flags.c_contiguous and values.flags.writeable):
        values = values.copy(order="C")
    try:
        return stored_tensor(torch.from_numpy(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"numpy's {values.dtype.str}, which torch has no dtype for; change its dtype") from error


def stored_int(value: int) -> Tensor:
    """I64; where that is too small, the bytes of its two's complement, the lowest first."""
    if -(2**63) <= value < 2**63:
        return torch.tensor(value, dtype=torch.int64, device="cpu")
    return stored_bytes(value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def stored_bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def restored(kind: Kind, tensor: Tensor) -> Any:
    """What a stored tensor was. Raises ValueError if it can't have been that."""
    name, _, dtype = kind.partition(":") if isinstance(kind, str) else ("", "", "")
    match name:
        case "bool" | "int" | "float" if tensor.dim() == 0 and tensor.dtype == _NUMBERS[name]:
            return tensor.item()
        case "complex" if tensor.dtype == torch.float64 and tensor.shape == (2,):
            return complex(*tensor.tolist())
        case "int" | "str" | "bytes" if tensor.dtype == torch.uint8 and tensor.dim() == 1:
            data = tensor.numpy().tobytes()
            if name == "int":
                return int.from_bytes(data, "little", signed=True)
            return data if name == "bytes" else data.decode("utf-8", "surrogatepass")
        case "tensor":
            return _with_dtype(tensor, dtype)
        case "array":
            return _as_array(_with_dtype(tensor, dtype))
        case "scalar" if not (whole := _as_array(_with_dtype(tensor, dtype))).shape:
            return whole[()]
    raise ValueError(f"a tensor of {tensor.dtype} and shape {list(tensor.shape)} is no {str(kind)[:40]!r}")


_NUMBERS = {"bool": torch.bool, "int": torch.int64, "float": torch.float64}


def _as_array(tensor: Tensor) -> Any:
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"numpy has no {tensor.dtype}") from error


def _with_dtype(tensor: Tensor, name: str) -> Tensor:
    try:
        if name in _AS_PARTS:
            return torch.view_as_complex(tensor)
        return tensor.view(_AS_BYTES[name]) if name else tensor
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"it is no {name[:40]!r}") from error


def kinds_as_json(kinds: Kinds) -> str:
    """One text for one state, whatever order it was made in. Raises ValueError if it is too long."""
    text = write_json(kinds, compact=True)
    if len(text) > MAX_KINDS:
        raise ValueError(
            f"{len(kinds)} entries of the state are no plain tensors, and their kinds take {len(text)} bytes; "
            f"at most {MAX_KINDS} are kept"
        )
    return text


def kinds_from_json(text: str) -> dict[str, Kind]:
    """Raises ValueError unless it is of the form that kinds have; whether they fit the tensors is seen later."""
    if len(text) > MAX_KINDS:
        raise ValueError(f"kinds of {len(text)} bytes are too long")
    found = read_json(text)
    if not isinstance(found, dict):
        raise ValueError("kinds are a mapping of names")
    for name, kind in found.items():
        keys = kind if isinstance(kind, list) else []
        if not isinstance(kind, str | list) or not all(type(key) in (str, int) for key in keys):
            raise ValueError(f"{name[:80]!r} has the kind {str(kind)[:80]!r}")
    return found
