"""Why an agent posts no Ask: what its machine lacks, what does not answer, or that it is not alone with its key."""

import time
from collections.abc import Callable

import structlog

from contracts.program.logs import Trouble
from contracts.types import MB
from worker.driver.xids import XidListener
from worker.lease.folder import Store
from worker.machine.troubles import MachineTrouble
from worker.machine.watch import MachineWatch
from worker.settings import ProviderSettings

DISK_SECONDS = 30.0  # between two looks at how much disk is taken


class Readiness:
    """Each reason is logged when it comes and when it goes; `provider status` finds them in the agent's state."""

    def __init__(self, settings: ProviderSettings, store: Store, provider: str, wake: Callable[[], None]) -> None:
        self._settings, self._store = settings, store
        self._trouble = Trouble(structlog.get_logger().bind(provider=provider))
        self.xids = XidListener(settings.gpu_names if settings.device == "cuda" else ())
        self._watch = MachineWatch(settings, self.xids, wake)
        self._room: str | None = None
        self._measure_disk_at = 0.0  # monotonic
        self._told: list[str] | None = None

    def start(self) -> None:
        self._watch.start()

    def close(self) -> None:
        self._watch.close()
        self._write([])

    def look_now(self) -> None:
        """A lease was given back: the next Ask shall not wait for the next look."""
        self._watch.look_now()

    def gpu_trouble(self) -> MachineTrouble | None:
        """What is known to be wrong with the GPUs."""
        return next((trouble for trouble in self._watch.troubles() or () if trouble.of == "gpu"), None)

    def machine_lacks(self) -> list[str] | None:
        """Of what the Ask sells, a sentence each; None while nobody has looked yet."""
        troubles = self._watch.troubles()
        for of in ("gpu", "sandbox", "environment", "disk"):
            if trouble := next((one for one in troubles or () if one.of == of), None):
                self._trouble.at(of, f"{trouble.what}: no Ask until that is mended ({trouble.mend})")
            elif troubles is not None:
                self._trouble.over(of)
        return None if troubles is None else [f"{trouble.what} ({trouble.mend})" for trouble in troubles]

    def lacks_room(self) -> str | None:
        """Why one more job does not fit into what all of them may take."""
        cap, job = self._settings.all_disk_mb, self._settings.disk_mb
        if cap is None or time.monotonic() < self._measure_disk_at:
            return self._room
        self._measure_disk_at = time.monotonic() + DISK_SECONDS
        used = self._store.used_bytes() // MB
        self._room = None
        if used + job > cap:
            self._room = f"{used} MB are used of {cap}, and a job may take {job}"
            self._trouble.at("all_disk", f"{self._room}: no Ask until there is room")
        else:
            self._trouble.over("all_disk")
        return self._room

    def tell(self, reasons: list[str]) -> None:
        """Keeps why there is no Ask, for `provider status`; empty if there is one, or need not be."""
        self._write(reasons)

    def _write(self, reasons: list[str]) -> None:
        if reasons != self._told:
            self._told = reasons
            self._store.write_state(waits=reasons)
