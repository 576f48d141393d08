"""A state in a file: its tensors, what is told of them, and the commitment to it."""

import mmap
from pathlib import Path

from contracts.commitment import Tensor, state_from_safetensors, state_root
from contracts.job.state_kinds import Kind, check_state_form, kinds_in


def read_state(data: bytes | mmap.mmap) -> tuple[list[Tensor], dict[str, Kind]]:
    """Tensors and kinds of a safetensors file's bytes. Raises ValueError if it is not one, or its kinds are none."""
    tensors, metadata = state_from_safetensors(data)
    return tensors, kinds_in(metadata)


def mapped_state(path: Path) -> tuple[list[Tensor], dict[str, Kind]]:
    """Tensors and kinds of a safetensors file, which may be larger than memory.

    Raises OSError, and ValueError if it is not one, or its kinds are none.
    """
    with open(path, "rb") as file:
        return read_state(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def file_state_root(path: Path) -> bytes:
    """The root of the state in a safetensors file. Raises as mapped_state does."""
    return state_root(*mapped_state(path))


def check_state_file(path: Path) -> None:
    """Whether somebody else can load it: a root does not tell. Raises as mapped_state does."""
    check_state_form(*mapped_state(path))
