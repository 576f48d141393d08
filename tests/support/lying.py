"""A provider that hands in what it has not trained, and claims it on chain."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from contracts.api.bodies import LeaseOut
from tests.support.whole_market import Stage, wait_for
from worker.lease.folder import LeaseFile
from worker.sandbox.runner import Runner
from worker.training.checkpoints import TakenCheckpoint
from worker.training.messages import Checkpoint


@contextmanager
def lying(at: int, no_number: str | None = None) -> Iterator[None]:
    """Whoever trains in this process changes a bit of checkpoint `at`, or makes the first element of a tensor of floats
    no number, and waits for no approver's commitment.
    """
    take = Runner.take

    def lie(runner: Runner, message: Checkpoint, **options: Any) -> TakenCheckpoint:
        taken = take(runner, message, **options)
        if taken.index == at:
            state = bytearray(taken.path.read_bytes())
            if no_number is None:
                state[-4] ^= 1  # the least of the last number
            else:
                length = int.from_bytes(state[:8], "little")
                place = 8 + length + json.loads(state[8 : 8 + length])[no_number]["data_offsets"][0]
                state[place : place + 4] = struct.pack("<f", float("nan"))
            taken.path.write_bytes(state)
        return taken

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "take", lie)
        patch.setattr(LeaseFile, "audits", property(lambda _: None))
        yield


def claimed(stage: Stage, job: str, n: int) -> LeaseOut:
    """The job's newest lease, when its claim up to checkpoint n is on chain."""

    def found() -> LeaseOut | None:
        lease = max(stage.leases(job), key=lambda one: one.start, default=None)
        return lease if lease and stage.chain.state(lease.id).claimed == n else None

    lease: LeaseOut = wait_for("the claim on chain", found)
    return lease
