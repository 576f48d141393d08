"""Checkpoint files: their names, and what is committed to of them. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from contracts import statefile
from contracts.commitment import trace_root
from worker.failures import Failure

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
        return file_state_root(self.path)

    def trace(self) -> list[bytes]:
        return read_trace(self.trace_path)


def file_state_root(path: Path) -> bytes:
    """The commitment to the state in a safetensors file. Raises Failure("state")."""
    try:
        return statefile.file_state_root(path)
    except ValueError as error:
        raise Failure("state", f"{path.name}: {error}") from error


def read_trace(path: Path) -> list[bytes]:
    """The step digests of one stretch. Raises Failure("state")."""
    data = path.read_bytes()
    if len(data) % DIGEST_BYTES:
        raise Failure("state", f"{path.name} has {len(data)} bytes, not a multiple of {DIGEST_BYTES}")
    return [data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)]


def check_trace(path: Path, *, steps: int, root: bytes) -> None:
    """Raises Failure("protocol") unless the file holds `steps` digests with this root."""
    digests = read_trace(path)
    if len(digests) != steps or trace_root(digests) != root:
        raise Failure("protocol", f"{path.name} is not the trace that the training process reported")
