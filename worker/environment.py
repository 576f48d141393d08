"""The software environment that recipes run in, and the variables of their process.

Nothing of the worker's own variables reaches a recipe.
"""

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

from contracts.errors import UserError
from worker.gpus import Gpu

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
