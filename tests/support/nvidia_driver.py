"""A stand-in for NVIDIA's driver, below NVML: cards that tests take away, split, or spoil while an agent runs.

There is no way to make a real card fail on demand, and none at all where tests run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

MB = 1 << 20


@dataclass
class FakeCard:
    """Functions of NVML that are in `errors` answer with that code; so does the card's handle, under "handle"."""

    uuid: str = "GPU-1"
    name: str = "NVIDIA GeForce RTX 4090"
    memory_mb: int = 24_564
    ecc: int | None = None
    recovery: int | None = None
    split: bool = False
    instances: list["FakeCard"] = field(default_factory=list)  # of MIG
    errors: dict[str, int] = field(default_factory=dict)


class FakeDriver:
    """`broken`: the code that nvmlInit answers with."""

    def __init__(self, *cards: FakeCard) -> None:
        self.cards = list(cards)
        self.broken: int | None = None
        self.looks = 0

    def init(self) -> None:
        self.looks += 1
        if self.broken is not None:
            raise pynvml.NVMLError(self.broken)

    def handle(self, index: int) -> FakeCard:
        if index >= len(self.cards):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self._answer(self.cards[index], "handle", self.cards[index])

    def memory(self, card: FakeCard) -> Any:
        told = SimpleNamespace(total=card.memory_mb * MB, free=card.memory_mb * MB)
        return self._answer(card, "memory", told)

    def ecc(self, card: FakeCard, error: int, counter: int) -> int:
        code = pynvml.NVML_ERROR_NOT_SUPPORTED if card.ecc is None else None
        return int(self._answer(card, "ecc", card.ecc, code))

    def fields(self, card: FakeCard, fields: list[int]) -> list[Any]:
        unknown = pynvml.NVML_ERROR_NOT_SUPPORTED if card.recovery is None else pynvml.NVML_SUCCESS
        return [SimpleNamespace(nvmlReturn=unknown, value=SimpleNamespace(uiVal=card.recovery or 0))]

    def instance(self, card: FakeCard, number: int) -> FakeCard:
        if number >= len(card.instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return card.instances[number]

    def _answer(self, card: FakeCard, what: str, value: Any, code: int | None = None) -> Any:
        if (error := card.errors.get(what, code)) is not None:
            raise pynvml.NVMLError(error)
        return value

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = {
            "nvmlInit": self.init,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.cards),
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlDeviceGetHandleByIndex": self.handle,
            "nvmlDeviceGetMinorNumber": lambda card: self.cards.index(card),
            "nvmlDeviceGetName": lambda card: self._answer(card, "name", card.name),
            "nvmlDeviceGetUUID": lambda card: self._answer(card, "uuid", card.uuid),
            "nvmlDeviceGetMemoryInfo": self.memory,
            "nvmlDeviceGetPowerManagementLimit": lambda card: 450_000,
            "nvmlDeviceGetTotalEccErrors": self.ecc,
            "nvmlDeviceGetFieldValues": self.fields,
            "nvmlDeviceGetMigMode": lambda card: [int(card.split), int(card.split)],
            "nvmlDeviceGetMaxMigDeviceCount": lambda card: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": self.instance,
            "nvmlDeviceGetGpuInstanceId": lambda card: 3,
            "nvmlDeviceGetComputeInstanceId": lambda card: 0,
        }
        for name, call in calls.items():
            monkeypatch.setattr(pynvml, name, call)


@pytest.fixture
def fake_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """One card, which works."""
    driver = FakeDriver(FakeCard())
    driver.install(monkeypatch)
    yield driver
