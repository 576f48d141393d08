"""The commitment to a state in a file."""

import mmap
from pathlib import Path

from contracts.commitment import state_root, tensors_from_safetensors


def file_state_root(path: Path) -> bytes:
    """Of a safetensors file, which may be larger than memory. Raises OSError, and ValueError if it is not one."""
    with open(path, "rb") as file:
        return state_root(tensors_from_safetensors(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
