"""What the driver answers, as sentences: no driver, a card that is lost or split, or shares the machine's memory."""

from pathlib import Path

import psutil
import pynvml
import pytest

from contracts.errors import UserError
from tests.support.nvidia_driver import FakeCard, FakeDriver
from worker.driver import nvml
from worker.driver.nvml import NoAnswer, read_gpus
from worker.sandbox import gpus as granted_gpus
from worker.sandbox.gpus import Gpu, device_nodes, granted, node_inside
from worker.training.failures import Failure


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "it was upgraded"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "kernel module is not loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "this user may not ask it"),
        (pynvml.NVML_ERROR_UNKNOWN, "Unknown Error"),
    ],
)
def test_a_driver_that_does_not_answer_is_not_no_driver(fake_driver: FakeDriver, code: int, words: str) -> None:
    fake_driver.broken = code
    with pytest.raises(NoAnswer, match="NVIDIA driver which does not answer") as caught:
        read_gpus()
    assert words in caught.value.message and caught.value.hint


def test_no_driver_and_no_card_is_nothing(
    fake_driver: FakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "PCI", tmp_path)
    monkeypatch.setattr(nvml, "LOADED", tmp_path / "version")
    fake_driver.broken = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    assert read_gpus() is None
    card = tmp_path / "0000:01:00.0"
    card.mkdir()
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030000\n")
    with pytest.raises(NoAnswer, match="there is an NVIDIA card, but the driver's library"):
        read_gpus()


def test_a_driver_that_sees_no_card(fake_driver: FakeDriver) -> None:
    fake_driver.cards.clear()
    with pytest.raises(NoAnswer, match="it sees no GPU"):
        read_gpus()


@pytest.mark.parametrize(
    ("errors", "words", "dead"),
    [
        ({"handle": pynvml.NVML_ERROR_GPU_IS_LOST}, "has fallen off the bus", True),
        ({"name": pynvml.NVML_ERROR_GPU_IS_LOST}, "has fallen off the bus", True),
        ({"ecc": pynvml.NVML_ERROR_GPU_IS_LOST}, "has fallen off the bus", True),
        ({"memory": pynvml.NVML_ERROR_RESET_REQUIRED}, "must be reset", True),
        ({"handle": pynvml.NVML_ERROR_INSUFFICIENT_POWER}, "lacks power", False),
        ({"handle": pynvml.NVML_ERROR_IRQ_ISSUE}, "gets no interrupts", False),
        ({"uuid": pynvml.NVML_ERROR_NOT_SUPPORTED}, "not supported", False),
        ({"handle": 4242}, "4242", False),
    ],
)
def test_one_cards_answer_is_its_own(fake_driver: FakeDriver, errors: dict[str, int], words: str, dead: bool) -> None:
    fake_driver.cards.append(FakeCard(uuid="GPU-2", errors=errors))
    well, ill = read_gpus() or ()
    assert well.wrong is None and ill.wrong is not None
    assert words in ill.wrong.what and ill.wrong.mend and (ill.index, ill.dead) == (1, dead)


def test_what_a_card_does_not_tell_is_not_held_against_it(fake_driver: FakeDriver) -> None:
    (gpu,) = read_gpus() or ()
    assert (gpu.ecc_errors, gpu.wrong, gpu.watts, gpu.unified) == (None, None, 450.0, False)
    fake_driver.cards[0].ecc = 0
    (gpu,) = read_gpus() or ()
    assert (gpu.ecc_errors, gpu.wrong) == (0, None)


def test_errors_that_it_reports_itself(fake_driver: FakeDriver) -> None:
    fake_driver.cards = [
        FakeCard(ecc=3),
        FakeCard(recovery=pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET),
        FakeCard(recovery=pynvml.NVML_GPU_RECOVERY_ACTION_NONE),
    ]
    ecc, reset, well = read_gpus() or ()
    assert ecc.wrong and "3 uncorrected ECC errors" in ecc.wrong.what
    assert reset.wrong and "must be reset, its driver says" in reset.wrong.what
    assert well.wrong is None


@pytest.mark.parametrize("card", [FakeCard(errors={"memory": pynvml.NVML_ERROR_NOT_SUPPORTED}), FakeCard(memory_mb=0)])
def test_unified_memory_is_the_machines(fake_driver: FakeDriver, card: FakeCard) -> None:
    fake_driver.cards = [card]
    (gpu,) = read_gpus() or ()
    assert gpu.unified and gpu.memory_mb == psutil.virtual_memory().total >> 20 and gpu.wrong is None


def test_mig_instances_are_what_can_be_used(
    fake_driver: FakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [FakeCard(uuid=f"MIG-{n}", name="NVIDIA H200 MIG 1g.18gb", memory_mb=16_384) for n in (1, 2)]
    fake_driver.cards = [FakeCard(), FakeCard(uuid="GPU-2", name="NVIDIA H200", split=True, instances=parts)]
    whole, first, second = read_gpus() or ()
    assert (whole.uuid, first.uuid, second.uuid) == ("GPU-1", "MIG-1", "MIG-2")
    assert (first.memory_mb, first.index, first.instance, second.label) == (16_384, 1, 0, "GPU 1's MIG instance 1")

    access = tmp_path / "gpu1" / "mig" / "gi3"
    (access / "ci0").mkdir(parents=True)
    (access / "access").write_text("DeviceFileMinor: 30\nDeviceFileMode: 292\n")
    (access / "ci0" / "access").write_text("DeviceFileMinor: 31\n")
    monkeypatch.setattr(granted_gpus, "CAPABILITIES", tmp_path)
    assert granted(["MIG-2"]) == (Gpu(1, "MIG-2", (30, 31)),)
    nodes = [f"nvidia-caps/nvidia-cap{number}" for number in (30, 31)]
    monkeypatch.setattr(granted_gpus, "DEV", tmp_path / "dev")
    for name in ("nvidia1", *nodes):
        (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / name).touch()
    inside = [str(node_inside(node)) for node in device_nodes(granted(["MIG-2"]))]
    assert inside == ["/dev/nvidia1", *(f"/dev/{name}" for name in nodes)]
    fake_driver.cards[1].instances.clear()
    assert [gpu.wrong and gpu.wrong.what for gpu in read_gpus() or ()] == [None, "is split by MIG, but has no instance"]


def test_a_gpu_is_found_by_its_uuid_wherever_it_stands(fake_driver: FakeDriver) -> None:
    fake_driver.cards = [FakeCard(uuid="GPU-new"), FakeCard(uuid="GPU-1")]
    assert granted(["GPU-1"]) == (Gpu(1, "GPU-1"),)
    fake_driver.cards[0].errors["handle"] = pynvml.NVML_ERROR_GPU_IS_LOST
    assert granted(["GPU-1"]) == (Gpu(1, "GPU-1"),)  # the other's trouble is not its own
    for name in ("GPU-new", 0):
        with pytest.raises(Failure, match="can't find GPU") as caught:
            granted([name])
        assert caught.value.kind == "machine" and isinstance(caught.value, UserError)
