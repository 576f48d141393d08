"""A stand-in for NVIDIA's driver, below NVML: cards that tests take away, split, or spoil while an agent runs.

There is no way to make a real card fail on demand, and none at all where tests run.
"""

from collections import deque
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


@dataclass(eq=False)
class FakeEvents:
    """A set of events, of the one card that was registered with it."""

    card: FakeCard | None = None
    waiting: deque[Any] = field(default_factory=deque)


class FakeDriver:
    """`broken`: the code that nvmlInit answers with."""

    def __init__(self, *cards: FakeCard) -> None:
        self.cards = list(cards)
        self.broken: int | None = None
        self.looks = 0
        self.opened = 0  # how often it was initialised, and not shut down
        self.listening: list[FakeEvents] = []

    def init(self) -> None:
        self.looks += 1
        if self.broken is not None:
            raise pynvml.NVMLError(self.broken)
        self.opened += 1

    def shutdown(self) -> None:
        self.opened -= 1

    def report(self, xid: int, card: int = 0, instance: int = 0xFFFFFFFF) -> None:
        """To whoever listens now, as the driver does."""
        event = SimpleNamespace(eventType=pynvml.nvmlEventTypeXidCriticalError, eventData=xid, gpuInstanceId=instance)
        for events in self.listening:
            if events.card is self.cards[card]:
                events.waiting.append(event)

    def register(self, card: FakeCard, types: int, events: FakeEvents) -> None:
        events.card = self._answer(card, "register", card)
        self.listening.append(events)

    def free(self, events: FakeEvents) -> None:
        if events in self.listening:
            self.listening.remove(events)

    def event(self, events: FakeEvents, milliseconds: int) -> Any:
        assert events.card is not None and milliseconds == 0
        if events.waiting:
            return events.waiting.popleft()
        return self._answer(events.card, "wait", None, pynvml.NVML_ERROR_TIMEOUT)

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
            "nvmlShutdown": self.shutdown,
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
            "nvmlEventSetCreate": FakeEvents,
            "nvmlDeviceRegisterEvents": self.register,
            "nvmlEventSetWait_v2": self.event,
            "nvmlEventSetFree": self.free,
        }
        for name, call in calls.items():
            monkeypatch.setattr(pynvml, name, call)


@pytest.fixture
def fake_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """One card, which works."""
    driver = FakeDriver(FakeCard())
    driver.install(monkeypatch)
    yield driver
