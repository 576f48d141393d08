"""Before a provider signs for what it trained, it makes sure that anybody could train it again.

The first steps of a lease are trained twice before it really begins, the second time by a process that goes on from a
saved state; and what the lease then trains must be the same once more.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from contracts.errors import UserError
from contracts.types import SECONDS_PER_HOUR
from worker.lease.folder import Job, LeaseFolder
from worker.lease.printed import MAX_BYTES, Printed
from worker.sandbox.log import CappedLog
from worker.sandbox.rehearsal import USUAL_CAUSES, Cut, Divergence, Rehearsal, Steps, compared
from worker.settings import ProviderSettings
from worker.training.checkpoints import TakenCheckpoint
from worker.training.failures import Failure

TIMEOUT_SHARE = 1 / 3  # of a lease's timeout, at most, for all of it
LEFT_SECONDS = 60.0  # of the timeout, for the first checkpoint itself
AUDITED_SHARE = 0.1  # of a checkpoint's time, under audited rules, where the owner wants none
CUT = "the lease's first steps could not be trained twice"
LEAST_SECONDS = 10.0  # of steps, which each process may take however short a checkpoint is
REHEARSED = "[printed in the rehearsal of the first steps, by one process and then by another:]"


class NotReproducible(UserError):
    """The recipe's steps do not repeat bit for bit: nobody could be shown that this provider was honest."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(f"not reproducible: {divergence.sentence()}", USUAL_CAUSES)
        self.trace = divergence.trace


class FirstSteps:
    """Of one lease, from where this machine begins with it."""

    def __init__(
        self, folder: LeaseFolder, settings: ProviderSettings, stopped: Callable[[], bool], printed: Printed
    ) -> None:
        """`printed` gets what the recipe prints in steps that do not repeat; else it prints the same in training."""
        self._folder, self._settings, self._stopped, self._printed = folder, settings, stopped, printed
        self._log = structlog.get_logger().bind(lease=folder.lease)
        self._seen: Steps | None = None

    def rehearse(self, job: Job, state: Path | None, options: dict[str, Any]) -> None:
        """Trains them twice, if that is still to be done. `options`: the Runner's. Raises NotReproducible.

        Under audited rules nothing is claimed without that: raises Failure or OSError if it could not be done.
        """
        file, share = self._folder.file, self._settings.rehearsal_share
        budget = min(TIMEOUT_SHARE * file.nums.timeout, file.nums.timeout - LEFT_SECONDS)
        audited = file.audits is not None
        if audited:  # by rules under which a replay that differs costs the stake, nobody goes without
            share, budget = share or AUDITED_SHARE, TIMEOUT_SHARE * file.nums.timeout
        if share == 0 or budget <= 0 or file.rehearsed or file.made != file.base:
            return
        spec, began = job.spec, time.monotonic()
        usual = SECONDS_PER_HOUR * job.bid.units / self._settings.units_per_hour  # for a checkpoint
        said = CappedLog(None, MAX_BYTES // 2)
        rehearsal = Rehearsal(
            spec,
            self._folder.job_folder,
            self._folder.rehearsal_folder,
            options | {"printed": said.write},
            until=began + budget,
            seconds=max(LEAST_SECONDS, share * usual),
            stopped=self._stopped,
        )
        try:
            _, divergence = rehearsal.short(spec.step_of(file.made), spec.step_of(spec.checkpoints), state)
        except Cut:
            if audited and not self._stopped():
                raise Failure("machine", f"{CUT} in {budget:.0f} s, and its rules have checkpoints replayed") from None
            if not self._stopped():
                self._log.info("rehearsal.cut", seconds=round(time.monotonic() - began, 1))
                self._folder.update(rehearsed=True)
            return
        except (Failure, OSError) as error:
            # What the recipe does wrong, it does again in training, which tells; else it was this machine.
            self._log.info("rehearsal.failed", problem=str(error))
            if audited:
                raise
            return
        finally:
            self._seen = rehearsal.once and replace(rehearsal.once, states=[])
            rehearsal.remove()
        if divergence is not None:
            if text := said.tail(MAX_BYTES):
                self._printed.write(f"{REHEARSED}\n{text}".encode())
            raise NotReproducible(divergence)
        self._folder.update(rehearsed=True)
        seconds = round(time.monotonic() - began, 1)
        self._log.info("rehearsal.done", seconds=seconds, unlike_after=rehearsal.unlike_after)

    def heed(self, taken: TakenCheckpoint, job: Job) -> None:
        """The first checkpoint must have come by the same steps. Raises NotReproducible."""
        seen, self._seen = self._seen, None
        if seen is None:
            return
        before = taken.step - job.spec.checkpoint_every
        divergence = compared(seen, Steps(before, digests=taken.trace()), resumed=False, but={taken.step})
        if divergence is not None:
            raise NotReproducible(divergence)
