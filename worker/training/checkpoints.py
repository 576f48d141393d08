"""Checkpoint files: their names, and what is committed to of them. Needs no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from contracts.commitment import Tensor, checkpoint_root, next_tip, numerics_class, trace_root
from contracts.job.state_kinds import Kind, in_order
from contracts.statefile import check_state_file, file_state_root, mapped_state
from worker.training.failures import Failure

DIGEST_BYTES = 32
PIECE = 1 << 20  # bytes of two tensors that are compared at once


def checkpoint_name(index: int) -> str:
    return f"checkpoint-{index:05}.safetensors"


def trace_name(index: int) -> str:
    """The file of the step digests that led to the checkpoint: private until a replay has been judged."""
    return f"checkpoint-{index:05}.trace"


@dataclass(frozen=True)
class TakenCheckpoint:
    """A checkpoint that the worker holds where the training process can't change it any more."""

    index: int
    step: int
    path: Path
    trace_path: Path
    metrics: dict[str, float]
    trace_root: bytes
    seconds: float

    def state_root(self) -> bytes:
        """The commitment to it. Raises Failure("state") if nobody could go on from it, so that none would approve."""
        root = checkpoint_state_root(self.path)
        try:
            check_state_file(self.path)
        except ValueError as error:
            raise Failure("state", f"{self.path.name}: {error}") from error
        return root

    def trace(self) -> list[bytes]:
        return list(read_trace(self.trace_path))

    def commit(self, job: bytes, numerics: Mapping[str, Any], before: bytes) -> "Commitment":
        """What its maker signs for: of a job (its hash), after the tip `before`. From its bytes, where the recipe can't
        reach them any more. Raises Failure("state").
        """
        state = self.state_root()
        root = checkpoint_root(job, self.index, self.step, state, self.trace_root, numerics_class(numerics))
        return Commitment(state, self.trace_root, root, next_tip(before, root))


class Commitment(NamedTuple):
    state_root: bytes
    trace_root: bytes
    root: bytes
    tip: bytes


def checkpoint_state_root(path: Path) -> bytes:
    """The commitment to the state in a safetensors file. Raises Failure("state")."""
    try:
        return file_state_root(path)
    except ValueError as error:
        raise Failure("state", f"{path.name}: {error}") from error


def state_difference(one: Path, other: Path) -> str | None:
    """Which entries of two states' files differ, in words; None if they are equal bit for bit. Raises Failure."""
    try:
        (first, kinds), (second, other_kinds) = (_by_name(path) for path in (one, other))
    except ValueError as error:
        raise Failure("state", f"{one.name} or {other.name}: {error}") from error
    names = in_order(first.keys() | second.keys() | kinds.keys() | other_kinds.keys())
    unlike = [
        name
        for name in names
        if kinds.get(name) != other_kinds.get(name) or not _same_tensor(first.get(name), second.get(name))
    ]
    if not unlike:
        return None
    shown = ", ".join(repr(name)[:100] for name in unlike[:3]) + (", ..." if len(unlike) > 3 else "")
    return f"{len(unlike)} of {len(names)} entries differ: {shown}"


def _by_name(path: Path) -> tuple[dict[str, Tensor], dict[str, Kind]]:
    tensors, kinds = mapped_state(path)
    return {tensor.name: tensor for tensor in tensors}, kinds


def _same_tensor(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    pieces = ((bytes(part.data[at : at + PIECE]) for part in (one, other)) for at in range(0, len(one.data), PIECE))
    return all(piece == twin for piece, twin in pieces)


def read_trace(path: Path) -> Iterator[bytes]:
    """The step digests of one stretch, one after the other: a job decides how many there are."""
    with path.open("rb") as file:
        while digest := file.read(DIGEST_BYTES):
            yield digest


def check_trace(path: Path, *, steps: int, root: bytes) -> None:
    """Raises Failure("protocol") unless the file holds `steps` digests with this root."""
    if path.stat().st_size != DIGEST_BYTES * steps or trace_root(read_trace(path)) != root:
        raise Failure("protocol", f"{path.name} is not the trace that the training process reported")
