"""What the driver's codes mean, and what to do about each. Pure."""

from typing import Literal, NamedTuple

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


class XidSaying(NamedTuple):
    """`what` follows on "GPU 0 reported Xid 79: "."""

    what: str
    # gpu: nothing more should be trained on it; once: what ran is lost, and the GPU goes on; recipe: what ran did it.
    blames: Literal["gpu", "once", "recipe"]
    mend: str = ""


LOOK = "NVIDIA's catalog of Xids says more: docs.nvidia.com/deploy/xid-errors"
POWER = "look after its power cables and its power supply, then restart the machine"
REPAIR = "reset it (`nvidia-smi --gpu-reset -i INDEX`), or restart the machine; replace it if it comes again"
# Others than these are named where training fails, and blame nobody: what a GPU is in is seen by a look at it.
XIDS = {
    8: XidSaying("its work came to no end in time", "recipe"),
    11: XidSaying("it was sent a command that it does not know", "recipe"),
    13: XidSaying("a kernel ran into an exception, as by an index outside of its tensor", "recipe"),
    31: XidSaying("a kernel used memory that it may not, as by an index outside of its tensor", "recipe"),
    43: XidSaying("a kernel ran into an error, and was stopped", "recipe"),
    45: XidSaying("what was left of a program that ended early was cleared away", "recipe"),
    46: XidSaying("it has stopped working", "gpu", REPAIR),
    48: XidSaying("a memory error of two bits, which can't be corrected", "gpu", REPAIR),
    54: XidSaying("its power cables are not plugged in", "gpu", POWER),
    61: XidSaying("its own controller stopped", "gpu", REPAIR),
    62: XidSaying("its own controller halted", "gpu", REPAIR),
    63: XidSaying("a bad part of its memory is replaced with the next reset", "once", REPAIR),
    64: XidSaying("a bad part of its memory could not be replaced", "gpu", REPAIR),
    68: XidSaying("its video decoder ran into an exception", "recipe"),
    69: XidSaying("a kernel ran into an exception of its class", "recipe"),
    74: XidSaying("its NVLink to another GPU fails", "gpu", "look after its seating and its bridges; " + REPAIR),
    79: XidSaying("it has fallen off the bus", "gpu", RESTART),
    94: XidSaying("a memory error that ended one program, and nothing else", "once", REPAIR),
    95: XidSaying("a memory error that may have reached all that runs on it", "gpu", REPAIR),
    109: XidSaying("a program could not be switched away from in time", "recipe"),
    110: XidSaying("a security fault, as of a card that is broken", "gpu", REPAIR),
    119: XidSaying("its system processor (GSP) does not answer the driver", "gpu", REPAIR),
    120: XidSaying("its system processor (GSP) failed", "gpu", REPAIR),
    136: XidSaying("its NVLink could not be trained", "gpu", "look after its seating and its bridges; " + REPAIR),
    137: XidSaying("a kernel used memory of another GPU that it may not", "recipe"),
    140: XidSaying("a memory error that it did not recover from", "gpu", REPAIR),
    143: XidSaying("it could not be started", "gpu", REPAIR),
    **dict.fromkeys(range(144, 151), XidSaying("its NVLink fails", "gpu", "look after the fabric manager; " + REPAIR)),
    157: XidSaying("a bad part of it could not be taken out of use", "gpu", REPAIR),
    158: XidSaying("it does not answer in time any more", "gpu", REPAIR),
}


def xid_saying(number: int) -> XidSaying:
    """What an Xid means."""
    return XIDS.get(number) or XidSaying(LOOK, "recipe")


def driver_saying(error: pynvml.NVMLError) -> Saying:
    """Why the driver as a whole does not answer."""
    return DRIVER.get(error.value) or Saying(str(error), SEE)


def gpu_saying(error: pynvml.NVMLError) -> Saying:
    """What one GPU's answer means."""
    return GPU.get(error.value) or Saying(f"answers with an error: {error}", SEE)
