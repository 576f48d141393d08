"""Which jobs are closed: all their code is one reviewed file, so that they can't know where and when they run. Pure."""

from contracts.audits.verification import Verification
from contracts.job.spec import JobSpec

RECIPE = "recipe.py"
# Of files that may lie beside the recipe: formats that hold data, and nothing that is loaded as a program.
DATA = (".bin", ".csv", ".json", ".npy", ".npz", ".safetensors", ".txt")


def code_of(spec: JobSpec) -> str | None:
    """Hash of all code that a job can load: the SHA-256 of recipe.py, where nothing but data lies beside it. None for
    a job of which no such hash can be told.
    """
    beside = [path for path in spec.files if path != RECIPE]
    if spec.recipe_path != RECIPE or not all(path.endswith(DATA) for path in beside):
        return None
    return spec.files[RECIPE].sha256


def why_open(verification: Verification, spec: JobSpec) -> str | None:
    """Why a difference in this job's replays voids its lease and convicts nobody; None: the job is closed."""
    if verification.level != "closed":
        return f"its rules are {verification.level!r}"
    if spec.recipe_path != RECIPE:
        return f"its recipe is {spec.recipe_path!r}; a closed one is {RECIPE!r}"
    other = next((path for path in spec.files if path != RECIPE and not path.endswith(DATA)), None)
    if other is not None:
        return f"{other!r} lies beside its recipe and might be loaded; data are {', '.join(DATA)}"
    if code_of(spec) not in verification.recipes:
        return f"its recipe {code_of(spec)} is not among those that its rules list"
    return None
