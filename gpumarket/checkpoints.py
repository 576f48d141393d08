"""What a program that uses a pulled checkpoint may import; docs/checkpoints.md describes it. Needs the extra `worker`.

A file can be read without it, by safetensors: this gives numbers, text and the nesting back as the recipe had them.
"""

from os import PathLike
from pathlib import Path
from typing import Any

from worker.training.state import read_checkpoint, unflatten

__all__ = ["load_state"]


def load_state(path: str | PathLike[str]) -> dict[str, Any]:
    """The state in a checkpoint's file, as the recipe's `load_state_dict` would get it. Tensors are on the CPU.

    Raises `Failure` (its `kind` is "state") for a file that is no checkpoint.
    """
    return unflatten(read_checkpoint(Path(path)))
