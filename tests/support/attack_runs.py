"""Runs whose recipe attacks, for tests of the sandboxes: what each ends with.

Root runs the tests marked `as_anybody` once more as an ordinary user, see attacks/test_ordinary_user.py.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.job.file import hash_file
from contracts.job.spec import JobSpec
from tests.support.recipes import ATTACKS
from worker.sandbox import bubblewrap
from worker.sandbox.limits import Limits
from worker.sandbox.runner import Runner
from worker.training.failures import Failure
from worker.training.messages import Checkpoint, Failed, Message, Ready

SECRET = "correct-horse-battery-staple"
LIMITS = Limits(memory_mb=800, disk_mb=64, files=2000, processes=48, start_seconds=100, hang_seconds=30)

as_anybody = pytest.mark.as_anybody


def job(folder: Path, recipe: str, config: dict[str, Any], steps: int = 20, source: Path = ATTACKS) -> JobSpec:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.py").write_bytes(source.read_bytes())
    return JobSpec(
        recipe=f"recipe.py:{recipe}",
        files={"recipe.py": hash_file(folder / "recipe.py")},
        environment="torch-2.13",
        seed=7,
        steps=steps,
        checkpoint_every=4,
        config=config,
    )


def attack(
    folder: Path,
    recipe: str,
    runtime: bubblewrap.Sandbox | None = None,
    limits: Limits = LIMITS,
    steps: int = 20,
    source: Path = ATTACKS,
    before: Callable[[Runner], object] = lambda run: None,
    **config: Any,
) -> Failed:
    """What the run ends with. It always is a failure, and the worker that runs it is still there to say so."""
    spec = job(folder / "job", recipe, config, steps, source)
    last: Message | None = None
    with Runner(spec, folder / "job", folder / "work", limits=limits, runtime=runtime) as run:
        assert run.sandbox == ("podman" if runtime else "bubblewrap")
        for last in run.messages():
            if isinstance(last, Ready):
                before(run)
                run.go()
            if isinstance(last, Checkpoint):
                with contextlib.suppress(Failure):  # it is the last message, too
                    run.take(last)
    assert isinstance(last, Failed), last
    return last
