"""`python -m tests.support.curious_run FOLDER`: runs the curious recipe as a lease would, and prints what it found out.

A program of its own, so that it can be run by another user, on another day, and on a machine of another name.
"""

import sys
from pathlib import Path

from tests.support.recipes import CURIOUS, toy_job
from worker.machine.hardware import answered
from worker.sandbox.hiding.disguise import make_timeless
from worker.sandbox.hiding.variation import PLAIN, Variation
from worker.sandbox.runner import Runner


def curious(folder: Path, variation: Variation = PLAIN) -> str:
    """A line of JSON."""
    printed: list[bytes] = []
    spec = toy_job(folder / "job", "Curious", source=CURIOUS, steps=4)
    make_timeless(folder / "job" / "recipe.py")  # as `fetch_files` does
    job, work = folder / "job", folder / "work"
    with Runner(spec, job, work, printed=printed.append, trusted=False, variation=variation) as run:
        assert run.sandbox == "bubblewrap"
        for _ in answered(run):
            pass
    return next(line for line in b"".join(printed).decode().splitlines() if line.startswith("{"))


if __name__ == "__main__":
    sys.stdout.write(curious(Path(sys.argv[1])))
