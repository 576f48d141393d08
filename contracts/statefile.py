"""A state in a file: its tensors, what is told of them, and the commitment to it."""

import mmap
from pathlib import Path

from contracts.commitment import Tensor, state_from_safetensors, state_root
from contracts.job.state_kinds import check_state_form


def mapped_state(path: Path) -> tuple[list[Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, which may be larger than memory.

    Raises OSError, and ValueError if it is not one.
    """
    with open(path, "rb") as file:
        return state_from_safetensors(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def mapped_tensors(path: Path) -> list[Tensor]:
    """The same without metadata."""
    return mapped_state(path)[0]


def file_state_root(path: Path) -> bytes:
    """The root of the state in a safetensors file. Raises as mapped_state does."""
    return state_root(mapped_tensors(path))


def check_state_file(path: Path) -> None:
    """Whether somebody else can load it: no root tells, as metadata are no part of it. Raises as mapped_state does."""
    check_state_form(*mapped_state(path))
