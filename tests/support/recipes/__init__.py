"""Recipes for tests of the worker, each a file that is copied into a job's folder as its recipe.py."""

from pathlib import Path
from typing import Any

from contracts.job.file import hash_file
from contracts.job.spec import JobSpec

TOY, SLOW, JUDGED, ATTACKS, RESUMING, KERNEL_MEMORY, AT_HOME, PRINTING, CURIOUS = (
    Path(__file__).with_name(f"{name}.py")
    for name in ("toy", "slow", "judged", "attacks", "resuming", "kernel_memory", "at_home", "printing", "curious")
)
KEYED = Path(__file__).with_name("keyed.py")


def toy_job(folder: Path, recipe: str = "Toy", *, source: Path = TOY, **fields: Any) -> JobSpec:
    """A JobSpec whose recipe is one of the classes of `source`; its files are put into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.py").write_bytes(source.read_bytes())
    given = {"environment": "torch-2.13", "seed": 7, "steps": 20, "checkpoint_every": 4} | fields
    files = {"recipe.py": hash_file(folder / "recipe.py")}
    return JobSpec(recipe=f"recipe.py:{recipe}", files=files, **given)
