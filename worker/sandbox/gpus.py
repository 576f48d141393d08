"""The GPUs that a training run is granted: their device nodes, and the variables by which CUDA selects them.

Nothing of the worker's own variables reaches a recipe.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pynvml

from contracts.errors import UserError
from worker.training.environment import CPU_LIBRARIES

DEV = Path("/dev")
CONTROL_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")  # which all GPUs of a machine share


@dataclass(frozen=True)
class Gpu:
    number: int  # of /dev/nvidiaN, which need not be NVML's index
    uuid: str  # what CUDA_VISIBLE_DEVICES takes, whatever else can be seen


def granted(indices: Sequence[int]) -> tuple[Gpu, ...]:
    """The GPUs with these NVML indices; all of the machine's if none are given. Raises UserError."""
    try:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in indices or range(pynvml.nvmlDeviceGetCount())]
            return tuple(
                Gpu(int(pynvml.nvmlDeviceGetMinorNumber(handle)), str(pynvml.nvmlDeviceGetUUID(handle)))
                for handle in handles
            )
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise UserError(
            f"can't find GPU {', '.join(map(str, indices)) or '0'} on this machine: {error}",
            '`nvidia-smi` shows what the driver sees; name those under `gpus`, or set device = "cpu"',
        ) from error


def device_nodes(gpus: Sequence[Gpu]) -> list[Path]:
    """What a sandbox with these GPUs needs of /dev, as far as it is there; nothing without a GPU."""
    if not gpus:
        return []
    nodes = [DEV / f"nvidia{gpu.number}" for gpu in gpus] + [DEV / name for name in CONTROL_NODES]
    return [node for node in nodes if node.exists()]


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
