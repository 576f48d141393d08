"""What decides the bits of a training step. Two runs of one numerics class must agree bit for bit."""

import os
import platform
import re
from typing import Any

import numpy as np
import torch

from worker.training.environment import CPU_LIBRARIES


def numerics(device: str = "cpu") -> dict[str, Any]:
    """Facts as strings and integers; `contracts.commitment.numerics_class` is their hash."""
    build = torch.__config__.show()
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "torch_commit": torch.version.git_version,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "device": device,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "blas": _first(r"BLAS_INFO=(\w+)", build),
        "mkl": _first(r"Math Kernel Library Version (\S+)", build),
        "onednn": _first(r"MKL-DNN v(\S+)", build),
        **{name.lower(): os.environ.get(name, "") for name in CPU_LIBRARIES},
    }
    if device == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda or "",
            "cudnn": torch.backends.cudnn.version() or 0,
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
        }
    return facts


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""
