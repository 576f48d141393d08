"""Where recipes imported from before there was `gpumarket.recipe`. They are signed by their hash and can't be changed:
so these names stay. Nothing new comes here.
"""

from contracts.job.state_kinds import SEPARATOR
from worker.training.optimizers import load_optimizer_state, optimizer_state
from worker.training.state import (
    as_bytes,
    difference,
    flatten,
    read_checkpoint,
    unflatten,
    write_checkpoint,
    written,
)

__all__ = [
    "SEPARATOR",
    "as_bytes",
    "difference",
    "flatten",
    "load_optimizer_state",
    "optimizer_state",
    "read_checkpoint",
    "unflatten",
    "write_checkpoint",
    "written",
]
