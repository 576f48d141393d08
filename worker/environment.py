"""The software environment that recipes run in, and the variables of their process.

Nothing of the worker's own variables reaches a recipe.
"""

import os
from importlib.metadata import version
from typing import Literal

from contracts.errors import UserError

Device = Literal["cpu", "cuda"]

CPU_LIBRARIES = {
    "MKL_DYNAMIC": "FALSE",  # never fewer threads than asked for
    "MKL_CBWR": "AUTO",  # no code path chosen by how memory happens to be aligned
}


def environment_id() -> str:
    """The environment that this installation is, as a JobSpec names it; docs/environments.md."""
    major, minor = version("torch").split(".")[:2]
    return f"torch-{major}.{minor}"


def check_environment(wanted: str) -> None:
    """Raises UserError if recipes for the environment `wanted` can't run here."""
    if wanted != environment_id():
        raise UserError(
            f"the job asks for the environment {wanted!r}; this worker has {environment_id()!r}",
            f"change `environment:` in job.yaml, or run it where {wanted} is installed",
        )


def training_environment(threads: int, device: Device, home: str) -> dict[str, str]:
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
        "CUDA_VISIBLE_DEVICES": "",
    }
    if device == "cuda":
        del variables["CUDA_VISIBLE_DEVICES"]
        passed = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
        variables |= {name: os.environ[name] for name in passed if name in os.environ}
    return variables
