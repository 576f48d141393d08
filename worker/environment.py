"""Environment variables of the training process. Nothing of the worker's own environment reaches it."""

import os
from typing import Literal

Device = Literal["cpu", "cuda"]

CPU_LIBRARIES = {
    "MKL_DYNAMIC": "FALSE",  # never fewer threads than asked for
    "MKL_CBWR": "AUTO",  # no code path chosen by how memory happens to be aligned
}


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
