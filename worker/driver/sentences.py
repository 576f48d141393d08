"""What the driver's codes mean, and what to do about each. Pure."""

from typing import NamedTuple

import pynvml


class Saying(NamedTuple):
    """`what` follows on a name, as in "GPU 0 has fallen off the bus"; `mend` says what to do."""

    what: str
    mend: str


RESTART = "restart the machine; if it comes again, look after its seating, its power supply and its heat"
RESET = "reset it (`nvidia-smi --gpu-reset -i INDEX`), or restart the machine"
SEE = "`nvidia-smi` and `dmesg | grep NVRM` tell more"

# Of the driver as a whole.
DRIVER = {
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: Saying(
        "it was upgraded, and the kernel still has the version of before (NVML/RM version mismatch)",
        "restart the machine: the kernel then loads the new version",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: Saying(
        "its kernel module is not loaded", "modprobe nvidia; `dmesg` tells why if it does not load"
    ),
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: Saying(
        "there is an NVIDIA card, but the driver's library libnvidia-ml.so.1 is not installed",
        "install NVIDIA's driver",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: Saying(
        "this user may not ask it", "let the agent's user read and write /dev/nvidiactl and /dev/nvidia0 .."
    ),
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: Saying("it is too old for this program", "upgrade NVIDIA's driver"),
}
# Of one GPU. Those of `DEAD` end what runs on it, too.
GPU = {
    pynvml.NVML_ERROR_GPU_IS_LOST: Saying("has fallen off the bus", RESTART),
    pynvml.NVML_ERROR_RESET_REQUIRED: Saying("must be reset before it works again", RESET),
    pynvml.NVML_ERROR_GPU_NOT_FOUND: Saying("is not there", RESTART),
    pynvml.NVML_ERROR_NOT_FOUND: Saying("is not there", RESTART),
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: Saying("lacks power", "plug in its power cables"),
    pynvml.NVML_ERROR_IRQ_ISSUE: Saying("gets no interrupts from the kernel", RESTART),
    pynvml.NVML_ERROR_CORRUPTED_INFOROM: Saying("has a corrupted infoROM", "have it flashed anew, or replace it"),
    pynvml.NVML_ERROR_NO_PERMISSION: Saying("may not be asked by this user", "let the agent's user use /dev/nvidia*"),
    pynvml.NVML_ERROR_OPERATING_SYSTEM: Saying("can't be reached: the operating system refused it", SEE),
    pynvml.NVML_ERROR_TIMEOUT: Saying("does not answer in time", RESTART),
    pynvml.NVML_ERROR_NOT_READY: Saying("is not ready yet", "wait a minute; " + SEE),
    pynvml.NVML_ERROR_INVALID_STATE: Saying("is in a state in which it can't work", RESET),
    pynvml.NVML_ERROR_IN_USE: Saying("is kept by another program", SEE),
    pynvml.NVML_ERROR_MEMORY: Saying("can't be asked: the machine is out of memory", "end other programs"),
    pynvml.NVML_ERROR_NOT_SUPPORTED: Saying("does not tell what it is (not supported)", "upgrade NVIDIA's driver"),
    pynvml.NVML_ERROR_UNKNOWN: Saying("answers with an unknown error", SEE),
}
DEAD = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_GPU_NOT_FOUND}
# Answers to a question that this card, or this driver, knows nothing of.
SILENT = {
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_DATA,
    pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_DEPRECATED,
}
# What the driver itself wants done with a GPU: NVML's recovery actions.
RECOVERY = {
    pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: Saying("must be reset, its driver says", RESET),
    pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: Saying("needs a restart of the machine, its driver says", RESTART),
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_P2P: Saying("can't talk to its neighbours, its driver says", RESET),
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: Saying("has bad memory until it is reset, its driver says", RESET),
    pynvml.NVML_GPU_RECOVERY_ACTION_BUS_RESET: Saying("needs a reset of its bus, its driver says", RESTART),
    pynvml.NVML_GPU_RECOVERY_ACTION_SYSTEM_REBOOT: Saying("needs a restart of the machine, its driver says", RESTART),
}


def driver_saying(error: pynvml.NVMLError) -> Saying:
    """Why the driver as a whole does not answer."""
    return DRIVER.get(error.value) or Saying(str(error), SEE)


def gpu_saying(error: pynvml.NVMLError) -> Saying:
    """What one GPU's answer means."""
    return GPU.get(error.value) or Saying(f"answers with an error: {error}", SEE)
