"""Checkpoint files: their names, and what is committed to of them. Needs no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.commitment import trace_root
from contracts.statefile import file_state_root
from worker.training.failures import Failure

DIGEST_BYTES = 32


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
        return checkpoint_state_root(self.path)

    def trace(self) -> list[bytes]:
        return list(read_trace(self.trace_path))


def checkpoint_state_root(path: Path) -> bytes:
    """The commitment to the state in a safetensors file. Raises Failure("state")."""
    try:
        return file_state_root(path)
    except ValueError as error:
        raise Failure("state", f"{path.name}: {error}") from error


def read_trace(path: Path) -> Iterator[bytes]:
    """The step digests of one stretch, one after the other: a job decides how many there are."""
    with path.open("rb") as file:
        while digest := file.read(DIGEST_BYTES):
            yield digest


def check_trace(path: Path, *, steps: int, root: bytes) -> None:
    """Raises Failure("protocol") unless the file holds `steps` digests with this root."""
    if path.stat().st_size != DIGEST_BYTES * steps or trace_root(read_trace(path)) != root:
        raise Failure("protocol", f"{path.name} is not the trace that the training process reported")
