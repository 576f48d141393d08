"""What a state's entries were before they became tensors, so that load_state_dict gets them back as that. Pure.

A *kind* stands for each entry that is no plain tensor, under the entry's name. Of values:

    int, float, bool, complex, str, bytes    Python's own
    array, scalar                            numpy's
    tensor:DTYPE                             of a dtype that safetensors lacks; array and scalar may have one, too
    =NAME                                    the same tensor as NAME, in the same memory
    none                                     has no tensor

Of what holds others, named by the names on the way: list, tuple, size (torch.Size), dict (an empty one), ordered
(OrderedDict), counter (Counter). If the keys of a dict are not text in order, its kind is the list of them, and
{"ordered": KEYS} or {"counter": KEYS} of the other two. Kinds are metadata of a checkpoint's file, hence a stranger's
word: they are checked against the tensors that they are about. What passes is loaded to a state that becomes the same
file again: one meaning has one form, and so one root; docs/protocol.md section 3.
"""

import codecs
from collections.abc import Iterable, Mapping
from typing import Any

from contracts.commitment import Tensor
from contracts.strict_json import canonical_json, read_json, without_twins

Keys = list[str | int]
Kind = str | Keys | dict[str, Keys]
Kinds = Mapping[str, Kind]

METADATA = "gpumarket.kinds"  # its key; there is one, since safetensors writes several in any order
MAX_KINDS = 1 << 20  # bytes of all kinds as JSON
SEPARATOR = "/"  # of the names on the way to an entry
MAX_DEPTH = 64  # of dicts and lists in each other
MAX_INT = 1 << 20  # bytes of an integer that is too large for I64
MAX_NAME = 0xFFFF  # bytes; a commitment writes its length so
HOLDERS = ("list", "tuple", "size")
DICTS = ("ordered", "counter")  # that are not Python's plain one
PARTS = {"complex128": "F64", "complex32": "F16"}  # dtypes stored as real and imaginary part, and as what these are
BYTES = ("float8_e8m0fnu", "float4_e2m1fn_x2")  # dtypes stored as U8
NOT_STORED = ("F8_E8M0", "F4")  # safetensors' own names of these
# What numpy has of safetensors' dtypes.
_NUMPY = frozenset({"F64", "F32", "F16", "C64", "BOOL", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"})
_PIECE = 1 << 20  # bytes of two tensors that are compared at once


def kinds_as_json(kinds: Kinds) -> str:
    """One text for one state, whatever order it was made in. Raises ValueError if it is too long."""
    text = canonical_json(kinds)
    if len(text) > MAX_KINDS:
        raise ValueError(
            f"{len(kinds)} entries of the state are no plain tensors, and their kinds take {len(text)} bytes; "
            f"at most {MAX_KINDS} are kept"
        )
    return text.decode()


def kinds_from_json(text: str) -> dict[str, Kind]:
    """Raises ValueError unless it is of the form that kinds have; whether they fit the tensors, `check_kinds` says."""
    if (size := len(text.encode())) > MAX_KINDS:
        raise ValueError(f"kinds of {size} bytes are too long")
    found = read_json(text, pairs=without_twins)
    if not isinstance(found, dict):
        raise ValueError("kinds are a mapping of names")
    for name, kind in found.items():
        if not isinstance(kind, str) and not _are_keys(kind) and not (_is_dict(kind) and _are_keys(keys_of(kind))):
            raise ValueError(f"{name[:80]!r} has the kind {str(kind)[:80]!r}")
    return found


def kinds_in(metadata: Mapping[str, str]) -> dict[str, Kind]:
    """Of a safetensors file with this metadata; none if it tells none. Raises ValueError as kinds_from_json does."""
    try:
        return kinds_from_json(metadata.get(METADATA, "{}"))
    except ValueError as error:
        raise ValueError(f"the state contradicts itself: its kinds can't be read: {error}") from error


def _are_keys(keys: Any) -> bool:
    return isinstance(keys, list) and all(type(key) in (str, int) for key in keys)


def _is_dict(kind: Any) -> bool:
    return isinstance(kind, dict) and len(kind) == 1 and kind.keys() <= set(DICTS)


def keys_of(kind: Kind | None) -> Keys | None:
    """Of a dict with this kind; None if they are text in order, or it is no dict's."""
    if isinstance(kind, dict):
        return next(iter(kind.values()))
    return kind if isinstance(kind, list) else None


def in_order(names: Iterable[str]) -> list[str]:
    """Ascending by UTF-8 bytes: the order of a state's tensors, and of a dict's keys unless its kind lists them."""
    return sorted(names, key=str.encode)


def check_state_form(tensors: Iterable[Tensor], kinds: Kinds) -> None:
    """Whether these tensors and kinds are a state that somebody else can load, in the one form that it has.

    Raises ValueError saying what is wrong with it.
    """
    named = {tensor.name: tensor for tensor in tensors}
    try:
        for tensor in named.values():
            if tensor.dtype in NOT_STORED:
                raise ValueError(f"{tensor.name[:100]!r} has the dtype {tensor.dtype}, which states have as U8")
        check_kinds(kinds, named)
    except ValueError as error:
        raise ValueError(f"the state contradicts itself: {error}") from error


def check_kinds(kinds: Kinds, tensors: Mapping[str, Tensor]) -> None:
    """Whether kinds fit the tensors of their state, by name. Raises ValueError."""
    for name in (*tensors, *kinds):
        if len(name.encode()) > MAX_NAME:
            raise ValueError(f"{name[:100]!r} is a name over {MAX_NAME} bytes")
        if "" in name.split(SEPARATOR) and (name or name in tensors):
            raise ValueError(f"{name[:100]!r} has an empty name on its way")
    left = dict(kinds)
    _check_node(state_tree(tensors, kinds), "", kinds, left, tensors)
    if left:
        raise ValueError(f"there is nothing that has the kind of {next(iter(left))!r:.100}")


def state_tree(flat: Mapping[str, Any], kinds: Kinds) -> dict[str, Any]:
    """A state's dicts and lists, all as dicts, with what `flat` has where they end, or None. Raises ValueError."""
    tree: dict[str, Any] = {}
    for name in flat:
        _put(tree, name, flat[name])
    for name, kind in kinds.items():
        if kind == "none":
            _put(tree, name, None)
        elif name and isinstance(kind, str) and kind in ("dict", *DICTS, *HOLDERS):
            _put(tree, name, {})
    return tree


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    """`value` is a tensor, None, or {}: what holds others, and is there already if it holds any."""
    *path, last = name.split(SEPARATOR)
    if len(path) >= MAX_DEPTH - 1:
        raise ValueError(f"{name[:100]!r} is nested over {MAX_DEPTH} deep")
    for key in path:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ValueError(f"{name[:100]!r} lies in what holds nothing")
    if last in tree and not (isinstance(value, dict) and isinstance(tree[last], dict)):
        raise ValueError(f"{name[:100]!r} is there twice")
    tree.setdefault(last, value)


def _check_node(node: Any, name: str, kinds: Kinds, left: dict[str, Kind], tensors: Mapping[str, Tensor]) -> None:
    """Takes the kinds that it has used out of `left`."""
    kind = left.pop(name, None)
    if node is None:
        return
    if isinstance(node, Tensor):
        if kind is not None and not _fits(kind, node, kinds, tensors):
            what = f"a tensor of {node.dtype} and shape {str(list(node.shape))[:80]}"
            raise ValueError(f"{name[:100]!r}: {what} is no {str(kind)[:40]!r}")
        return
    for key, part in node.items():
        _check_node(part, f"{name}{SEPARATOR}{key}" if name else key, kinds, left, tensors)
    if (keys := keys_of(kind)) is not None:
        if sorted(map(str, keys)) != sorted(node):
            raise ValueError(f"{name[:100]!r} has other keys than its kind says")
        if all(isinstance(key, str) for key in keys) and keys == in_order(map(str, keys)):
            raise ValueError(f"{name[:100]!r} has a list of its keys, which are text in order: they need none")
    elif kind == "dict" and (node or not name):
        raise ValueError(f"{name[:100]!r} is called a dict, which what holds entries is without that")
    elif kind in HOLDERS:
        places = {str(place): f"{name}{SEPARATOR}{place}" for place in range(len(node))}
        if not name or node.keys() != places.keys() or (kind == "size" and not _are_sizes(places, node, kinds)):
            raise ValueError(f"{name[:100]!r} is no {kind}")
    elif kind not in (None, "dict", *DICTS):
        raise ValueError(f"{name[:100]!r} is no {str(kind)[:40]!r}")


def _are_sizes(places: Mapping[str, str], node: Mapping[str, Any], kinds: Kinds) -> bool:
    return all(
        isinstance(node[place], Tensor) and node[place].dtype == "I64" and kinds.get(name) == "int"
        for place, name in places.items()
    )


def _fits(kind: Kind, tensor: Tensor, kinds: Kinds, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is what an entry of that kind becomes."""
    if not isinstance(kind, str):
        return False
    if kind.startswith("="):
        twin = tensors.get(kind[1:])  # the first of those in one memory, which no empty ones are in
        is_first = twin is not None and twin.name.encode() < tensor.name.encode() and len(tensor.data) > 0
        return twin is not None and is_first and kind[1:] not in kinds and _same(tensor, twin)
    name, colon, dtype = kind.partition(":")
    if name in ("tensor", "array", "scalar") and (colon or name != "tensor"):
        shape = _shape_as(dtype, tensor) if colon else tensor.shape
        if shape is None or (name == "scalar" and (shape != () or not _is_truth(tensor))):
            return False
        return name == "tensor" or dtype == "complex128" or (not colon and tensor.dtype in _NUMPY)
    number, text = (tensor.dtype, tensor.shape), tensor.dtype == "U8" and len(tensor.shape) == 1
    match kind:
        case "bool":
            return number == ("BOOL", ()) and _is_truth(tensor)
        case "int":
            return number == ("I64", ()) or (text and len(tensor.data) <= MAX_INT and _is_wide(bytes(tensor.data)))
        case "float":
            return number == ("F64", ())
        case "complex":
            return number == ("F64", (2,))
        case "bytes":
            return text
        case "str":
            return text and _is_text(tensor.data)
    return False


def _shape_as(dtype: str, tensor: Tensor) -> tuple[int, ...] | None:
    """Of a tensor that is stored as another dtype than it has; None if it can't be of that one."""
    if dtype in PARTS:
        fits = tensor.dtype == PARTS[dtype] and tensor.shape[-1:] == (2,)
        return tensor.shape[:-1] if fits else None
    return tensor.shape if dtype in BYTES and tensor.dtype == "U8" else None


def _same(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    starts = range(0, len(one.data), _PIECE)
    return all(bytes(one.data[at : at + _PIECE]) == bytes(other.data[at : at + _PIECE]) for at in starts)


def _is_truth(tensor: Tensor) -> bool:
    """Or of another dtype. What is neither 0 nor 1 would become 1."""
    return tensor.dtype != "BOOL" or bytes(tensor.data) in (b"\0", b"\1")


def _is_wide(data: bytes) -> bool:
    """Whether an integer is stored as bytes that is too large for I64, in as few as there are for it."""
    value = int.from_bytes(data, "little", signed=True)
    return not -(2**63) <= value < 2**63 and len(data) == value.bit_length() // 8 + 1


def _is_text(data: bytes | bytearray | memoryview) -> bool:
    """Of any length: in pieces, as whoever checks a stranger's state has less memory than it may have bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    try:
        for at in range(0, len(data), _PIECE):
            decoder.decode(bytes(data[at : at + _PIECE]))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
