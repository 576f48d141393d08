"""The software environments that recipes run in, by id, and the variables of their process.

Nothing of the worker's own variables reaches a recipe.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from contracts.errors import UserError
from worker.gpus import Gpu

Device = Literal["cpu", "cuda"]

CPU_LIBRARIES = {
    "MKL_DYNAMIC": "FALSE",  # never fewer threads than asked for
    "MKL_CBWR": "AUTO",  # no code path chosen by how memory happens to be aligned
}


@dataclass(frozen=True)
class Environment:
    """What a recipe may count on. `contents`: names to versions, as docs/environments.md lists them."""

    id: str
    contents: Mapping[str, str]


ENVIRONMENTS = {
    environment.id: environment
    for environment in (
        Environment(
            "torch-2.13",
            {
                "Python": "3.11 or later; its standard library",
                "torch": "2.13; the CPU or the CUDA build",
                "numpy": "2.x",
                "safetensors": "0.6 or later",
            },
        ),
    )
}


def installed() -> dict[str, str]:
    """The same names with the versions that are here; "missing" if a package is not."""
    found = {"Python": platform.python_version()}
    for name in ("torch", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def environment_id() -> str:
    """The environment that this installation is, as a JobSpec names it; docs/environments.md."""
    major, minor = version("torch").split(".")[:2]
    return f"torch-{major}.{minor}"


def check_environment(wanted: str) -> None:
    """Raises UserError if recipes for the environment `wanted` can't run here."""
    if wanted != environment_id():
        where = f"or run it where {wanted} is installed" if wanted in ENVIRONMENTS else f"{wanted!r} is none there is"
        raise UserError(
            f"the job asks for the environment {wanted!r}; this worker has {environment_id()!r}",
            f"change `environment:` in job.yaml, {where}; `gpumarket recipe environments` lists them",
        )


def training_environment(threads: int, gpus: Sequence[Gpu], home: str) -> dict[str, str]:
    """For a process that may use these GPUs and no other."""
    variables = {
        "PATH": "/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "USER": "nobody",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        **CPU_LIBRARIES,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONHASHSEED": "0",
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus),
    }
    if gpus and "LD_LIBRARY_PATH" in os.environ:
        variables["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return variables
