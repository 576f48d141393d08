"""Training without a worker around it: `python -m tests.bench._bare JOB_FOLDER STEPS`, a process of its own.

The steps are the worker's bit for bit: the process has the same variables, threads and deterministic kernels, and
seeds before each step. Left out is what a bare loop has no need for: sandbox, limits, trace, messages, checkpoints.
"""

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

from contracts.job.file import read_job
from worker.training.recipe import load_recipe
from worker.training.starting.seeding import pin, seed_everything


def train(folder: Path, steps: int) -> dict[str, Any]:
    """Seconds that building the recipe and its steps took, by the clock and of the processor; `started` is the time
    (UTC) at which that began."""
    _, spec = read_job(folder)
    pin(threads=1)
    recipe_class = load_recipe(spec.recipe, folder)

    def make() -> Any:
        seed_everything(spec.seed, 0)
        return recipe_class(copy.deepcopy(spec.config), {path: folder / path for path in spec.files})

    make().step(1)  # the worker counts the work of a step before it starts: both have warmed up
    metrics: dict[str, float] = {}
    started, began, cpu = time.time(), time.perf_counter(), time.process_time()
    recipe = make()
    built = time.perf_counter() - began
    for step in range(1, steps + 1):
        seed_everything(spec.seed, step)
        metrics = dict(recipe.step(step))
    return {
        "started": started,
        "build_seconds": built,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "metrics": metrics,
    }


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]), int(sys.argv[2]))))
