"""Does this machine repeat itself? A short stretch is trained twice in the sandbox; the bits must be the same.

Who sells training that a replay must find equal needs that first. Memory that forgets, and a processor or a GPU that is
driven too fast or too hot, show here.
"""

import tempfile
from pathlib import Path
from typing import Any

from worker.machine.hardware import benchmark_job
from worker.sandbox.podman import chosen_sandbox
from worker.sandbox.rehearsal import Divergence, Rehearsal, compared
from worker.settings import ProviderSettings

REPEATED_STEPS = 12
FIRST, SECOND = "first", "second"


def train_twice(settings: ProviderSettings) -> Divergence | None:
    """How two processes that train the same REPEATED_STEPS differ; None if not. Raises Failure if one fails."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        options: dict[str, Any] = {"threads": settings.threads, "device": settings.device, "gpus": settings.gpu_names}
        runs = []
        for name in (FIRST, SECOND):
            # A sandbox serves one run.
            runtime = chosen_sandbox(settings.sandbox, settings.image)
            spec = benchmark_job(folder, settings.device)
            rehearsal = Rehearsal(spec, folder, folder / "runs", options | {"runtime": runtime})
            runs.append(rehearsal.train(name, 0, REPEATED_STEPS, 1, None))
        return compared(*runs, resumed=False)
