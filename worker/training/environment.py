"""The software environments that recipes run in, by id."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from contracts.program.extras import install_command
from worker.training.failures import Failure

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
    """Raises Failure("machine") if recipes for the environment `wanted` can't run here."""
    try:
        here = environment_id()
    except PackageNotFoundError as error:
        raise Failure("machine", f"this worker has no environment: {error}", install_command("worker")) from error
    if wanted != here:
        where = f"or run it where {wanted} is installed" if wanted in ENVIRONMENTS else f"{wanted!r} is none there is"
        raise Failure(
            "machine",
            f"the job asks for the environment {wanted!r}; this worker has {here!r}",
            f"change `environment:` in job.yaml, {where}; `gpumarket recipe environments` lists them",
        )
