"""Commitments to training state: roots of checkpoints and the chain of tips. Pure; docs/protocol.md section 3.

Trees use SHA-256 (an EVM precompile, in silicon on most CPUs); roots and tips use keccak256, as the escrow does.
"""

import hashlib
import math
import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import rfc8785
from eth_utils.crypto import keccak

from contracts.strict_json import canonical_json, read_json, without_twins, write_json

LEAF_BYTES = 4096
SAMPLES = 256
BLOCK = 1 << 14  # hashes of a tree that are held at once
# What a state may be: somebody who has never seen it must be able to check it in seconds.
MAX_HEADER = 1 << 24  # bytes of a safetensors header
MAX_TENSORS = 1 << 16
MAX_METADATA = 1 << 22  # bytes of its names and values, UTF-8
MAX_DIMENSIONS = 64  # of a tensor, as in torch
MAX_TENSOR_BYTES = (1 << 63) - 1  # dimensions of 0 counted as 1: libraries multiply all the others, too
DTYPE_BITS = (
    dict.fromkeys(("F64", "I64", "U64", "C64"), 64)
    | dict.fromkeys(("F32", "I32", "U32"), 32)
    | dict.fromkeys(("F16", "BF16", "I16", "U16"), 16)
    | dict.fromkeys(("I8", "U8", "BOOL", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | {"F4": 4}
)

_LEAF, _NODE, _HEADER, _STATE, _STEP, _TRACE, _KINDS = (bytes([tag]) for tag in range(7))
_CHECKPOINT_TAG = keccak(b"gpumarket checkpoint 2")


class Tensor(NamedTuple):
    """A named tensor as it is committed to: little-endian bytes, row-major."""

    name: str
    dtype: str  # as safetensors writes it: "F32", "I64", ...
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview


def _sha(*parts: bytes | bytearray | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """Root over 32-byte hashes, paired from the left; an odd last one moves up unchanged."""
    if not hashes:
        return _sha(_LEAF)
    level = list(hashes)
    while len(level) > 1:
        paired = [_sha(_NODE, level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def _long_merkle_root(hashes: Iterable[bytes]) -> tuple[int, bytes]:
    """How many there are, and `merkle_root` of them, of which there may be more than memory holds."""
    count, stream, roots = 0, iter(hashes), []
    while block := list(islice(stream, BLOCK)):
        count += len(block)
        roots.append(merkle_root(block))  # a node of the whole tree, as the block's size is a power of two
    return count, merkle_root(roots)


def tensor_header(tensor: Tensor) -> bytes:
    """Hash of one tensor's name, dtype, shape, length and content."""
    view = memoryview(tensor.data).cast("B")
    sha256 = hashlib.sha256
    leaves = (sha256(_LEAF + view[at : at + LEAF_BYTES]).digest() for at in range(0, len(view), LEAF_BYTES))
    name, dtype = tensor.name.encode(), tensor.dtype.encode()
    return _sha(
        _HEADER,
        struct.pack(">H", len(name)) + name,
        struct.pack(">B", len(dtype)) + dtype,
        struct.pack(f">B{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape),
        struct.pack(">Q", len(view)),
        _long_merkle_root(leaves)[1],
    )


def kinds_hash(kinds: Mapping[str, Any]) -> bytes:
    """Hash of what a state's entries were (contracts/job/state_kinds.py), whatever text they were read from."""
    return _sha(_KINDS, canonical_json(kinds))


def state_root(tensors: Iterable[Tensor], kinds: Mapping[str, Any]) -> bytes:
    """The 32-byte commitment to a whole training state, in whatever order its tensors come, and to their kinds.

    Raises ValueError if two tensors share a name.
    """
    headers: dict[bytes, bytes] = {}
    for tensor in tensors:
        key = tensor.name.encode()
        if key in headers:
            raise ValueError(f"two tensors are named {tensor.name!r}; names in a state must be unique")
        headers[key] = tensor_header(tensor)
    ordered = [headers[key] for key in sorted(headers)]
    return _sha(_STATE, struct.pack(">I", len(ordered)), merkle_root(ordered), kinds_hash(kinds))


def tensors_from_safetensors(data: bytes | bytearray | memoryview | mmap.mmap) -> list[Tensor]:
    """The tensors of a safetensors file's bytes, as views of them. Raises as state_from_safetensors does."""
    return state_from_safetensors(data)[0]


def state_from_safetensors(
    data: bytes | bytearray | memoryview | mmap.mmap,
) -> tuple[list[Tensor], dict[str, str]]:
    """The tensors of a safetensors file's bytes, as views of them, and its metadata. Raises ValueError if it is not
    one, or has more in it than a state may: whatever it is, it is known in seconds.

    Nothing is copied, so that a mapped file of any size takes no memory of this process.
    """
    view = memoryview(data)
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 + length or bytes(view[8:9]) != b"{":
        raise ValueError("not a safetensors file: it has no header")
    if length > MAX_HEADER:
        raise ValueError(f"not a safetensors file of a state: its header has {length} bytes, more than {MAX_HEADER}")
    try:
        header = read_json(str(view[8 : 8 + length], "utf-8"), pairs=without_twins, whole=_natural)
        _check_metadata(metadata := header.pop("__metadata__", {}))
        if len(header) > MAX_TENSORS:
            raise ValueError(f"it has {len(header)} tensors, more than {MAX_TENSORS}")
        found = [_tensor(name, view[8 + length :], **fields) for name, fields in header.items()]
    except (ValueError, TypeError) as error:
        raise ValueError(f"not a safetensors file: {error}") from error
    at = 0
    for begin, end in sorted(tuple(fields["data_offsets"]) for fields in header.values()):
        if begin != at:
            raise ValueError(f"not a safetensors file: a tensor begins at {begin}, not at {at}")
        at = end
    if at != len(view) - 8 - length:
        raise ValueError(f"not a safetensors file: {len(view) - 8 - length} bytes of tensors, not {at}")
    return found, metadata


def _natural(text: str) -> int:
    """-0 is none to safetensors, which has to load the file. Raises ValueError."""
    if text.startswith("-"):
        raise ValueError(f"{text[:80]} is no size or place of a tensor")
    return int(text)


def _tensor(name: str, content: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    """One entry of a safetensors header. Raises ValueError or TypeError."""
    if not isinstance(shape, list) or not isinstance(data_offsets, list):
        raise ValueError(f"{name!r:.80} has the shape {shape!r:.80} at {data_offsets!r:.80}, of which one is no list")
    begin, end = data_offsets
    if len(name.encode()) > 0xFFFF or len(shape) > MAX_DIMENSIONS:  # first: the product of a long shape takes hours
        raise ValueError(f"the name {name!r:.80} or its shape is too long")
    if not all(type(number) is int and 0 <= number < 2**64 for number in (begin, end, *shape)):
        raise ValueError(f"{name!r:.80} has the shape {shape!r:.80} at {data_offsets!r:.80}")
    if math.prod(max(1, dimension) for dimension in shape) > MAX_TENSOR_BYTES // 8:
        raise ValueError(f"{name!r:.80} has the shape {shape!r:.80}, which no library can load")
    if DTYPE_BITS.get(dtype, 0) * math.prod(shape) != 8 * (end - begin) or dtype not in DTYPE_BITS:
        raise ValueError(f"{name!r:.80} is {dtype!r:.20} {shape!r:.80} in {end - begin} bytes")
    return Tensor(name, dtype, tuple(shape), content[begin:end])


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts by their names")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size > MAX_METADATA:
        raise ValueError(f"its metadata have {size} bytes, more than {MAX_METADATA}")


def check_state_size(shapes: Mapping[str, Sequence[int]], metadata_bytes: int = 0) -> None:
    """Whether a state of tensors with these names and shapes can be a checkpoint. Raises ValueError saying what is too
    much, before anybody has trained for it.
    """
    if len(shapes) > MAX_TENSORS:
        raise ValueError(f"the state has {len(shapes)} tensors; a checkpoint holds {MAX_TENSORS} at most")
    for name, shape in shapes.items():
        if len(shape) > MAX_DIMENSIONS or math.prod(max(1, one) for one in shape) > MAX_TENSOR_BYTES // 8:
            raise ValueError(f"the state's {name!r:.200} has the shape {tuple(shape)!r:.200}, which is too large")
    # An entry as safetensors writes it, with the longest dtype and offsets that there are.
    entry = len('"":{"dtype":"F8_E4M3FNUZ","shape":[],"data_offsets":[,]},') + 2 * len(str(MAX_TENSOR_BYTES))
    size = sum(entry + len(write_json(name)) + len(write_json(list(shape))) for name, shape in shapes.items())
    size += metadata_bytes
    if size > MAX_HEADER:
        raise ValueError(
            f"names, shapes and kinds of the state's {len(shapes)} tensors take {size} bytes; "
            f"a checkpoint has room for {MAX_HEADER}"
        )


def sample_positions(seed: int, step: int, total_elements: int) -> list[int]:
    """Positions of the state elements that step `step`'s digest samples, of all tensors end to end in name order."""
    if total_elements == 0:
        return []
    stream = hashlib.shake_256(b"gpumarket sample" + struct.pack(">QQ", seed, step)).digest(8 * SAMPLES)
    return [position % total_elements for position in struct.unpack(f">{SAMPLES}Q", stream)]


def step_digest(step: int, metrics: Mapping[str, float], sampled: bytes) -> bytes:
    """Hash of one training step: its metrics' bits and the sampled state bytes."""
    parts = [struct.pack(">QH", step, len(metrics))]
    for name in sorted(metrics):
        key = name.encode()
        parts.append(struct.pack(">H", len(key)) + key + struct.pack(">d", metrics[name]))
    return _sha(_STEP, *parts, struct.pack(">I", len(sampled)), sampled)


def trace_root(digests: Iterable[bytes]) -> bytes:
    """Commitment to the step digests since the last checkpoint, of which there may be more than memory holds."""
    count, root = _long_merkle_root(digests)
    return _sha(_TRACE, struct.pack(">I", count), root)


def canonical_hash(value: Any) -> bytes:
    """keccak256 of a JSON value in RFC 8785 form."""
    return keccak(rfc8785.dumps(value))


def numerics_class(numerics: Mapping[str, Any]) -> bytes:
    """Id of what decides the bits of a result (torch version, device model, threads, ...)."""
    return canonical_hash(dict(numerics))


def machine_class(numerics: Mapping[str, Any]) -> bytes:
    """Id of what of that is the machine's, whatever number of threads it trains with."""
    return canonical_hash({name: value for name, value in numerics.items() if name != "threads"})


def checkpoint_root(
    job: bytes, index: int, step: int, state_root: bytes, trace_root: bytes, numerics_class: bytes
) -> bytes:
    """root_i of checkpoint `index` (from 1), reached after training step `step`."""
    from eth_abi.abi import encode as abi_encode  # slow to import, and a training process makes no such roots

    return keccak(
        abi_encode(
            ["bytes32", "bytes32", "uint256", "uint256", "bytes32", "bytes32", "bytes32"],
            [_CHECKPOINT_TAG, job, index, step, state_root, trace_root, numerics_class],
        )
    )


def start_tip(job: bytes, tip: bytes = bytes(20)) -> bytes:
    """tip_0: the Bid's startTip, or the first 20 bytes of the job hash if that is 0."""
    return tip if any(tip) else job[:20]


def next_tip(tip: bytes, root: bytes) -> bytes:
    """tip_i from tip_{i-1} (20 bytes) and root_i (32 bytes)."""
    if len(tip) != 20 or len(root) != 32:
        raise ValueError(f"a tip has 20 bytes and a root 32, got {len(tip)} and {len(root)}")
    return keccak(tip + root)[:20]


def step_seed(seed: int, step: int) -> int:
    """Seed of every generator before training step `step` (63 bits)."""
    digest = _sha(b"gpumarket step", struct.pack(">QQ", seed, step))
    return int.from_bytes(digest[:8], "big") & (2**63 - 1)
