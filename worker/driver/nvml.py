"""What NVIDIA's driver says of this machine's GPUs. An answer that is an error becomes a sentence of that GPU's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pynvml

from contracts.errors import UserError
from contracts.types import MB
from worker.driver.sentences import DEAD, RECOVERY, SILENT, Saying, driver_saying, gpu_saying

PCI = Path("/sys/bus/pci/devices")
LOADED = Path("/proc/driver/nvidia/version")
NVIDIA, DISPLAYS = "0x10de", "0x03"  # PCI: vendor; class of graphics cards and of accelerators like them

GpuName = int | str  # NVML's index, or a UUID, which stays the same when another card is added or lost


class NoAnswer(UserError):
    """There is an NVIDIA driver, or a card, but it does not answer."""


@dataclass(frozen=True)
class GpuHealth:
    """A GPU, or a MIG instance of one, as NVML reports it. None: this card doesn't tell."""

    index: int  # NVML's, of the card
    name: str
    driver: str
    memory_mb: int
    free_mb: int
    celsius: int | None = None
    ecc_errors: int | None = None  # uncorrected, since the driver was loaded
    uuid: str = ""
    watts: float | None = None  # its power limit
    busy: int | None = None  # percent of the time
    unified: bool = False  # its memory is the machine's
    instance: int | None = None  # of MIG, on its card
    failure: Saying | None = None  # why it can't work
    dead: bool = False  # neither can what runs on it

    @property
    def wrong(self) -> Saying | None:
        """Why nothing should be trained on it."""
        if self.ecc_errors:
            return Saying(f"has {self.ecc_errors} uncorrected ECC errors", "reset it, or replace it if they come again")
        return self.failure

    @property
    def label(self) -> str:
        """As in a sentence: GPU 0, or GPU 0's MIG instance 2."""
        return f"GPU {self.index}" + ("" if self.instance is None else f"'s MIG instance {self.instance}")


def read_gpus() -> tuple[GpuHealth, ...] | None:
    """All GPUs; None where there is neither a card nor a driver. Raises NoAnswer."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND and not (has_card() or LOADED.exists()):
            return None
        raise _no_answer(error) from error
    try:
        count = pynvml.nvmlDeviceGetCount()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        found = tuple(gpu for index in range(count) for gpu in _read(index, driver))
    except pynvml.NVMLError as error:
        raise _no_answer(error) from error
    finally:
        pynvml.nvmlShutdown()
    if not found:
        raise NoAnswer(f"NVIDIA's driver {driver} answers, but it sees no GPU", "`lspci | grep -i nvidia` and `dmesg`")
    return found


def _no_answer(error: pynvml.NVMLError) -> NoAnswer:
    what, mend = driver_saying(error)
    return NoAnswer(f"this machine has an NVIDIA driver which does not answer: {what}", mend)


def has_card() -> bool:
    """Whether an NVIDIA graphics card sits on the bus, with or without a driver."""
    for device in PCI.glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == NVIDIA and kind.startswith(DISPLAYS):
            return True
    return False


def _read(index: int, driver: str) -> Iterator[GpuHealth]:
    """One card, or its MIG instances: these are what can be used of it."""
    try:
        card = pynvml.nvmlDeviceGetHandleByIndex(index)
        if not _is_split(card):
            yield _health(index, driver, card, card)
            return
        instances = list(_instances(card))
    except pynvml.NVMLError as error:
        yield GpuHealth(index, "", driver, 0, 0, failure=gpu_saying(error), dead=error.value in DEAD)
        return
    for number, handle in instances:
        try:
            yield _health(index, driver, card, handle, number)
        except pynvml.NVMLError as error:
            failure = gpu_saying(error)
            yield GpuHealth(index, "", driver, 0, 0, instance=number, failure=failure, dead=error.value in DEAD)
    if not instances:
        nothing = Saying("is split by MIG, but has no instance", "make some: `nvidia-smi mig -cgi ... -C`; or end MIG")
        yield GpuHealth(index, str(pynvml.nvmlDeviceGetName(card)), driver, 0, 0, failure=nothing)


def _is_split(card: Any) -> bool:
    """Whether MIG is on."""
    return _told(lambda: pynvml.nvmlDeviceGetMigMode(card)[0]) == pynvml.NVML_DEVICE_MIG_ENABLE


def _instances(card: Any) -> Iterator[tuple[int, Any]]:
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        try:
            yield number, pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_NOT_FOUND:
                raise


def _health(index: int, driver: str, card: Any, handle: Any, instance: int | None = None) -> GpuHealth:
    """`handle`: of the instance, or again the card's. Raises NVMLError for what makes a GPU useless."""
    memory_mb, free_mb, unified = _memory(handle)
    milliwatts = _told(lambda: pynvml.nvmlDeviceGetPowerManagementLimit(card))
    return GpuHealth(
        index=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        driver=driver,
        memory_mb=memory_mb,
        free_mb=free_mb,
        celsius=_told(lambda: pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU)),
        ecc_errors=_told(
            lambda: pynvml.nvmlDeviceGetTotalEccErrors(
                handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
            )
        ),
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        watts=None if milliwatts is None else milliwatts / 1000,
        busy=_told(lambda: pynvml.nvmlDeviceGetUtilizationRates(card).gpu),
        unified=unified,
        instance=instance,
        failure=_failure(card),
    )


def _memory(handle: Any) -> tuple[int, int, bool]:
    """MB of it, MB free, and whether it is the machine's: NVML has no number for a GPU without memory of its own."""
    try:
        told = pynvml.nvmlDeviceGetMemoryInfo(handle)
        if told.total:
            return told.total // MB, told.free // MB, False
    except pynvml.NVMLError as error:
        if error.value not in SILENT:
            raise
    machine = psutil.virtual_memory()
    return machine.total // MB, machine.available // MB, True


def _failure(card: Any) -> Saying | None:
    """What makes a GPU that answers useless all the same."""
    if (rows := _told(lambda: pynvml.nvmlDeviceGetRemappedRows(card)[3])) is not None and rows:
        return Saying("has bad memory rows and none to spare for them", "replace it")
    action = _told(lambda: _field(card, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION))
    return RECOVERY.get(action) if action else None


def _field(card: Any, field: int) -> int | None:
    (value,) = pynvml.nvmlDeviceGetFieldValues(card, [field])
    return int(value.value.uiVal) if value.nvmlReturn == pynvml.NVML_SUCCESS else None


def _told(ask: Callable[[], Any]) -> int | None:
    """None if this card does not tell; raises NVMLError if it is in no state to."""
    try:
        said = ask()
    except pynvml.NVMLError as error:
        if error.value in SILENT:
            return None
        raise
    return None if said is None else int(said)


# ------------------------------------------------------------------ which


def named(gpus: Sequence[GpuHealth], name: GpuName) -> GpuHealth | None:
    """The GPU of this UUID, or the card of this index; None if it is not there."""
    return next((gpu for gpu in gpus if name in (gpu.uuid, gpu.index)), None)


@contextmanager
def handles(names: Sequence[GpuName]) -> Iterator[list[tuple[Any, Any]]]:
    """NVML's handles of these GPUs, of all cards if none are named, as long as the context lasts.

    Each with its card's, which is the same but for a MIG instance. Raises NVMLError.
    """
    pynvml.nvmlInit()
    try:
        found: dict[GpuName, tuple[Any, Any]] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                card = pynvml.nvmlDeviceGetHandleByIndex(index)
            except pynvml.NVMLError:
                if index in names or not names:
                    raise
                continue  # another one's trouble
            found |= dict.fromkeys((index, str(pynvml.nvmlDeviceGetUUID(card))), (card, card))
            if _is_split(card):
                found |= {str(pynvml.nvmlDeviceGetUUID(one)): (one, card) for _, one in _instances(card)}
        chosen = names or [name for name in found if isinstance(name, int)]
        if any(name not in found for name in chosen):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_NOT_FOUND)
        yield [found[name] for name in chosen]
    finally:
        pynvml.nvmlShutdown()
