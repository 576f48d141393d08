"""A state in a file: its tensors, and the commitment to it."""

import mmap
from pathlib import Path

from contracts.commitment import Tensor, state_root, tensors_from_safetensors


def mapped_tensors(path: Path) -> list[Tensor]:
    """Of a safetensors file, which may be larger than memory. Raises OSError, and ValueError if it is not one."""
    with open(path, "rb") as file:
        return tensors_from_safetensors(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def file_state_root(path: Path) -> bytes:
    """The root of the state in a safetensors file. Raises as mapped_tensors does."""
    return state_root(mapped_tensors(path))
