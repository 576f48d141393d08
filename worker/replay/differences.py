"""How two runs of one stretch are not the same: the first step, the tensors, the metrics."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contracts.api.bodies import CheckpointRecord
from contracts.commitment import DTYPE_BITS, Tensor
from contracts.job.state_kinds import Kind, in_order
from contracts.statefile import mapped_state
from worker.replay.findings import ReplayDifference, Rerun, TensorDifference

PIECE = 1 << 22  # bytes of two tensors that are compared at once


def find_difference(
    record: CheckpointRecord,
    mine: Rerun,
    state: Path,
    claimed_state: Path | None,
    claimed_trace: Sequence[bytes] | None,
) -> ReplayDifference:
    """Between a record and what its replay gave, whose state is in `state`. Of the claim: what is here."""
    tensors = None if claimed_state is None else unlike_tensors(claimed_state, state)
    names = record.metrics.keys() | mine.metrics.keys()
    metrics = {name: (record.metrics.get(name), mine.metrics.get(name)) for name in sorted(names)}
    return ReplayDifference(
        step=first_unlike_step(record, mine.trace, claimed_trace),
        tensors=tuple(tensors or ()),
        of_tensors=None if tensors is None else len(mapped_state(state)[0]),
        kinds={} if claimed_state is None else unlike_kinds(claimed_state, state),
        metrics={name: pair for name, pair in metrics.items() if pair[0] != pair[1]},
    )


def first_unlike_step(record: CheckpointRecord, mine: Sequence[bytes], claimed: Sequence[bytes] | None) -> int | None:
    """The first of the stretch's steps with another digest; None if none has, or the claimed ones are not known."""
    before = record.step - len(mine)
    pairs = enumerate(zip(mine, claimed or (), strict=False), before + 1)
    return next((step for step, (ours, theirs) in pairs if ours != theirs), None)


def unlike_tensors(claimed: Path, mine: Path) -> list[TensorDifference]:
    """Of two states' files, by the names' UTF-8 bytes. Raises ValueError if one is no state."""
    first, second = ({tensor.name: tensor for tensor in mapped_state(path)[0]} for path in (claimed, mine))
    found = []
    for name in sorted(first.keys() | second.keys(), key=str.encode):
        theirs, ours = first.get(name), second.get(name)
        shown = theirs or ours
        assert shown is not None
        elements = math.prod(shown.shape)
        if unlike := _unlike_elements(theirs, ours, elements):
            found.append(TensorDifference(name, shown.dtype, shown.shape, elements, unlike))
    return found


def unlike_kinds(claimed: Path, mine: Path) -> dict[str, tuple[Kind | None, Kind | None]]:
    """The kinds of entries that are not the same in two states' files, by name. Raises as unlike_tensors does."""
    theirs, ours = (mapped_state(path)[1] for path in (claimed, mine))
    pairs = {name: (theirs.get(name), ours.get(name)) for name in in_order(theirs.keys() | ours.keys())}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _unlike_elements(theirs: Tensor | None, ours: Tensor | None, elements: int) -> int:
    """How many elements of two tensors differ in a bit; all of them where the tensors are not of one kind."""
    if theirs is None or ours is None or (theirs.dtype, theirs.shape) != (ours.dtype, ours.shape):
        return max(1, elements)
    size = max(1, DTYPE_BITS[theirs.dtype] // 8)  # of an element; of those of half a byte two count as one
    unlike = 0
    for at in range(0, len(theirs.data), PIECE):
        one, other = (np.frombuffer(part.data[at : at + PIECE], np.uint8) for part in (theirs, ours))
        unlike += int((one != other).reshape(-1, size).any(axis=1).sum())
    return unlike
