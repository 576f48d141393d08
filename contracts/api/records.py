"""Which of a job's checkpoint records follow from each other. What a record says of its root and tip counts for
nothing: they are computed from its parts.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from contracts.api.bodies import CheckpointRecord
from contracts.commitment import checkpoint_root, next_tip, numerics_class
from contracts.job.spec import JobSpec
from contracts.types import from_hex, to_hex


class Link(NamedTuple):
    """A record, proven to follow on the tip `before` it."""

    record: CheckpointRecord
    before: str


def root_of(record: CheckpointRecord, spec: JobSpec) -> bytes:
    """The root that the parts of a record come to, at its place in the job."""
    return checkpoint_root(
        spec.job_hash(),
        record.index,
        spec.step_of(record.index),
        from_hex(record.state_root),
        from_hex(record.trace_root),
        numerics_class(record.numerics),
    )


def tip_after(record: CheckpointRecord, spec: JobSpec, before: bytes) -> str:
    """The tip that a record leads to from the tip `before` it (20 bytes)."""
    return to_hex(next_tip(before, root_of(record, spec)))


def linked(records: Iterable[CheckpointRecord], spec: JobSpec, start: str) -> dict[tuple[int, str], Link]:
    """By index and tip the records that lead there from the job's first tip, step by step."""
    by_index: dict[int, list[CheckpointRecord]] = defaultdict(list)
    for record in records:
        by_index[record.index].append(record)
    links: dict[tuple[int, str], Link] = {}
    tips = {start}
    for index in range(1, max(by_index, default=0) + 1):
        found = {
            tip: Link(record, before)
            for record in by_index[index]
            for before in tips
            if (tip := tip_after(record, spec, from_hex(before))) == record.tip
        }
        links |= {(index, tip): link for tip, link in found.items()}
        tips = set(found)
    return links
