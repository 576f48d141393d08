"""Values of a state, made of tensors and made into tensors, by the kinds of contracts/job/state_kinds.py."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contracts.job.state_kinds import BYTES, MAX_INT, PARTS, Kind

SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "size": torch.Size}
MAPPINGS: dict[str, Any] = {"dict": dict, "ordered": OrderedDict, "counter": Counter}
TENSORS = (Tensor, torch.nn.Parameter)  # both come back as the first
_PLAINER: dict[type, str] = {Mapping: "dict", list: "list", tuple: "tuple"} | {
    kind: kind.__name__ for kind in (int, float, complex, str, bytes)
}

# As safetensors writes and reads them.
STORED = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool}
    | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8}
    | {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz}
)
_DTYPES = {name: getattr(torch, name) for name in (*PARTS, *BYTES)}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def no_kind(value: Any) -> str:
    """What a value is that no state can hold, and what to do about it: what derives of a kind is another kind."""
    told = f"a {type(value).__name__}"
    plain = next((plain for kind, plain in _PLAINER.items() if isinstance(value, kind)), None)
    if plain is None:
        return told
    what = f"an {plain}" if plain == "int" else f"a {plain}"
    return f"{told}; make it {what}: " + (f"{plain}(...)" if not isinstance(value, Enum) else ".value")


def stored_tensor(tensor: Tensor) -> tuple[Tensor, str]:
    """A tensor as its file has it, not copied, and the name of its dtype if that is another. Raises ValueError."""
    if type(tensor) not in TENSORS:
        raise ValueError(
            f"a {type(tensor).__name__}, which derives of torch's Tensor: put in the plain tensors that it is made of"
        )
    if tensor.is_nested:
        raise ValueError("a nested tensor; put its parts in: .unbind()")
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
    return (torch.view_as_real(tensor) if name in PARTS else tensor.contiguous().view(torch.uint8)), name


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
    size = value.bit_length() // 8 + 1
    if size > MAX_INT:
        raise ValueError(f"an integer of {size} bytes; {MAX_INT} are the most")
    return stored_bytes(value.to_bytes(size, "little", signed=True))


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
        if name in PARTS:
            return torch.view_as_complex(tensor)
        return tensor.view(_DTYPES[name]) if name else tensor
    except (KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"it is no {name[:40]!r}") from error
