"""The GPUs that a training run is granted: their device nodes, and the variables by which CUDA selects them.

Nothing of the worker's own variables reaches a recipe.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

from worker.driver.nvml import GpuName, handles
from worker.driver.sentences import DRIVER, GPU, driver_saying, gpu_saying
from worker.training.environment import CPU_LIBRARIES
from worker.training.failures import Failure

DEV = Path("/dev")
CONTROL_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")  # which all GPUs of a machine share
CAPS = "nvidia-caps"  # the folder of those for MIG


CAPABILITIES = Path("/proc/driver/nvidia/capabilities")  # where the driver tells the device nodes of MIG instances


@dataclass(frozen=True)
class Gpu:
    number: int  # of /dev/nvidiaN, which need not be NVML's index
    uuid: str  # what CUDA_VISIBLE_DEVICES takes, whatever else can be seen
    capabilities: tuple[int, ...] = ()  # of a MIG instance: numbers of /dev/nvidia-caps/nvidia-capN


def granted(names: Sequence[GpuName]) -> tuple[Gpu, ...]:
    """The GPUs with these NVML indices or UUIDs; all of the machine's if none are given. Raises Failure("machine")."""
    try:
        with handles(names) as found:
            return tuple(_granted(handle, card) for handle, card in found)
    except pynvml.NVMLError as error:
        one = error.value in GPU and error.value not in DRIVER
        saying = gpu_saying(error) if one else driver_saying(error)
        raise Failure(
            "machine",
            f"can't find GPU {', '.join(map(str, names)) or '0'} on this machine: {error}"
            + (f" (it {saying.what})" if one else ""),
            f"{saying.mend}. `nvidia-smi -L` shows what the driver sees",
        ) from error


def _granted(handle: Any, card: Any) -> Gpu:
    number, uuid = int(pynvml.nvmlDeviceGetMinorNumber(card)), str(pynvml.nvmlDeviceGetUUID(handle))
    if handle is card:
        return Gpu(number, uuid)
    of_gpu = pynvml.nvmlDeviceGetGpuInstanceId(handle)
    of_compute = pynvml.nvmlDeviceGetComputeInstanceId(handle)
    folder = CAPABILITIES / f"gpu{number}" / "mig" / f"gi{of_gpu}"
    accesses = (folder / "access", folder / f"ci{of_compute}" / "access")
    return Gpu(number, uuid, tuple(minor for file in accesses if (minor := _device_minor(file)) is not None))


def _device_minor(file: Path) -> int | None:
    """Of a file of the driver's such as "DeviceFileMinor: 30"."""
    try:
        found = re.search(r"^DeviceFileMinor:\s*(\d+)", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def device_nodes(gpus: Sequence[Gpu]) -> list[Path]:
    """What a sandbox with these GPUs needs of /dev, as far as it is there; nothing without a GPU."""
    if not gpus:
        return []
    nodes = [DEV / f"nvidia{gpu.number}" for gpu in gpus] + [DEV / name for name in CONTROL_NODES]
    nodes += [DEV / CAPS / f"nvidia-cap{number}" for gpu in gpus for number in gpu.capabilities]
    return [node for node in dict.fromkeys(nodes) if node.exists()]


def node_inside(node: Path) -> Path:
    """Where a sandbox has the device node."""
    return Path("/dev", CAPS, node.name) if node.parent.name == CAPS else Path("/dev", node.name)


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
        "TORCHINDUCTOR_DETERMINISTIC": "1",  # torch's compiler, as torch.use_deterministic_algorithms would tell it
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
