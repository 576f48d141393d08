"""Looks at what the Asks sell while an agent runs, in a thread of its own: a driver may take long, or never answer."""

import threading
import time
from collections.abc import Callable

import structlog

from worker.driver.xids import XidListener
from worker.machine.troubles import (
    MachineTrouble,
    disk_trouble,
    environment_trouble,
    gpu_trouble,
    sandbox_trouble,
    xid_trouble,
)
from worker.settings import ProviderSettings

LOOK_SECONDS = 10.0
SANDBOX_SECONDS = {"bubblewrap": 60.0, "podman": 600.0}  # between two uses of one that worked: podman takes seconds
HANGS_SECONDS = 120.0  # without an end of a look, after which the machine is not taken to be well

log = structlog.get_logger()


class MachineWatch(threading.Thread):
    """`changed` is called in this thread when another trouble than before was found, or none any more.

    At its end it closes `xids`.
    """

    def __init__(self, settings: ProviderSettings, xids: XidListener, changed: Callable[[], None]) -> None:
        super().__init__(name="machine watch", daemon=True)
        self._settings, self._xids, self._changed = settings, xids, changed
        self._closed, self._again = threading.Event(), threading.Event()
        self._began = time.monotonic()  # the newest look
        self._looking = False
        self._found: list[MachineTrouble] | None = None
        self._sandbox: MachineTrouble | None = None
        self._try_sandbox_at = 0.0  # monotonic

    def close(self) -> None:
        self._closed.set()
        self._again.set()

    def look_now(self) -> None:
        """Something has failed here that may be this machine's trouble."""
        self._try_sandbox_at = 0.0
        self._again.set()

    def troubles(self) -> list[MachineTrouble] | None:
        """What was found last; None before the first look has ended. Does not wait."""
        seconds = time.monotonic() - self._began
        if self._looking and seconds > HANGS_SECONDS:
            what = f"a look at this machine has not come to an end for {seconds:.0f} s: its driver or its disk hangs"
            return [MachineTrouble("gpu", what, "`dmesg` tells why; restart the machine")]
        return self._found

    def run(self) -> None:
        while not self._closed.is_set():
            self._began, self._looking = time.monotonic(), True
            try:
                found = self._look()
            except Exception as error:  # a bug of ours, or a disk that is gone: no reason to stop looking
                log.exception("machine.look_failed")
                found = [MachineTrouble("disk", f"can't look at this machine: {error}", "see the agent's log")]
            self._looking = False
            if found != self._found:
                self._found = found
                self._changed()
            self._again.wait(LOOK_SECONDS)
            self._again.clear()
        self._xids.close()

    def _look(self) -> list[MachineTrouble]:
        gpu = xid_trouble(self._xids) or gpu_trouble(self._settings)
        if gpu is not None:  # mending it may need a reset, which is refused while the driver is open
            self._xids.let_go()
        found = [gpu]
        found += [look(self._settings) for look in (environment_trouble, disk_trouble)]
        if time.monotonic() >= self._try_sandbox_at:
            self._sandbox = sandbox_trouble(self._settings)
            pause = LOOK_SECONDS if self._sandbox else SANDBOX_SECONDS[self._settings.sandbox]
            self._try_sandbox_at = time.monotonic() + pause
        return [trouble for trouble in (*found, self._sandbox) if trouble]
