"""Jobs for tests of the worker."""

from pathlib import Path
from typing import Any

from contracts.job.file import hash_file
from contracts.job.spec import JobSpec

TOY = Path(__file__).parent / "toy.py"


def toy_job(folder: Path, recipe: str = "Toy", **fields: Any) -> JobSpec:
    """A JobSpec whose recipe is one of toy.py's classes; its files are put into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.py").write_bytes(TOY.read_bytes())
    given = {"environment": "torch-2.13", "seed": 7, "steps": 20, "checkpoint_every": 4} | fields
    files = {"recipe.py": hash_file(folder / "recipe.py")}
    return JobSpec(recipe=f"recipe.py:{recipe}", files=files, **given)
