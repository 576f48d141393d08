"""Xids: what NVIDIA's driver reports at the moment when something on a GPU goes wrong, and tells nobody afterwards."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import pynvml
import structlog

from worker.driver.nvml import GpuName, handles
from worker.driver.sentences import SILENT, XidSaying, xid_saying

MOST = 1000  # reports taken at once: a broken card may make them faster than they are read
OF_THE_CARD = 0xFFFFFFFF  # in place of an instance of MIG
TOLD_SECONDS = 60.0  # for which the same report is not logged again

log = structlog.get_logger()


class Xid(NamedTuple):
    gpu: GpuName
    number: int

    @property
    def saying(self) -> XidSaying:
        return xid_saying(self.number)

    @property
    def sentence(self) -> str:
        return f"GPU {self.gpu} reported Xid {self.number}: {self.saying.what}"


class _Line(NamedTuple):
    gpu: GpuName
    events: Any  # NVML's event set
    instance: int | None  # of MIG


class XidListener:
    """Hears of some GPUs what is reported from now on. Safe in several threads.

    It keeps the driver open, which stands in the way of a reset. So it ends with the first Xid after which a GPU must
    be reset. A driver that reports nothing, or not to this user, costs the Xids and nothing else.
    """

    def __init__(self, gpus: Sequence[GpuName]) -> None:
        self._wanted = list(gpus)  # those that report
        self._lock = threading.Lock()
        self._open: ExitStack | None = None
        self._lines: list[_Line] = []
        self._heard: dict[Xid, float] = {}  # monotonic, when it was read last
        self._over = False

    @property
    def fault(self) -> Xid | None:
        """Of a GPU that nothing more should be trained on. It stays: nobody says when that is mended."""
        return next((xid for xid in list(self._heard) if xid.saying.blames == "gpu"), None)

    def since(self, moment: float) -> list[Xid]:
        """What was read from then on (monotonic). Does not wait for the driver."""
        return [xid for xid, at in list(self._heard.items()) if at >= moment]

    def read(self) -> None:
        """Takes what was reported meanwhile. It may take long where a driver hangs."""
        with self._lock:
            try:
                if self._open is None and self._wanted and not self._over:
                    self._listen()
                for line in self._lines:
                    for number in self._reports(line):
                        self._note(Xid(line.gpu, number))
            except pynvml.NVMLError:  # of what it is in, a look at the GPUs tells. It is tried again with the next read
                self._hang_up()
            if self.fault:
                self._end()

    def let_go(self) -> None:
        """Of the driver, until the next `read`."""
        with self._lock:
            self._hang_up()

    def close(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._over = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._open is not None:
            with suppress(pynvml.NVMLError):
                self._open.close()
        self._open, self._lines = None, []

    def _listen(self) -> None:
        with ExitStack() as stack:
            found = stack.enter_context(handles(self._wanted))
            for gpu, (handle, card) in zip(list(self._wanted), found, strict=True):
                try:
                    events = pynvml.nvmlEventSetCreate()
                    stack.callback(_free, events)
                    pynvml.nvmlDeviceRegisterEvents(card, pynvml.nvmlEventTypeXidCriticalError, events)
                    instance = None if handle is card else int(pynvml.nvmlDeviceGetGpuInstanceId(handle))
                except pynvml.NVMLError as error:
                    self._forgo(gpu, error)
                else:
                    self._lines.append(_Line(gpu, events, instance))
            if self._lines:
                self._open = stack.pop_all()

    def _reports(self, line: _Line) -> Iterator[int]:
        for _ in range(MOST):
            try:
                event = pynvml.nvmlEventSetWait_v2(line.events, 0)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_TIMEOUT:  # there is no more
                    return
                self._forgo(line.gpu, error)
                raise
            ours = line.instance is None or event.gpuInstanceId in (line.instance, OF_THE_CARD)
            if ours and event.eventType & pynvml.nvmlEventTypeXidCriticalError:
                yield int(event.eventData)

    def _note(self, xid: Xid) -> None:
        now = time.monotonic()
        if now - self._heard.get(xid, -math.inf) > TOLD_SECONDS:
            log.warning("gpu.xid", gpu=xid.gpu, xid=xid.number, meaning=xid.saying.what, hint=xid.saying.mend or None)
        self._heard[xid] = now

    def _forgo(self, gpu: GpuName, error: pynvml.NVMLError) -> None:
        """Asks this GPU no more. Raises the error again if the next time it may answer."""
        if error.value not in SILENT or error.value == pynvml.NVML_ERROR_UNINITIALIZED:
            raise error
        self._wanted.remove(gpu)
        log.info("gpu.reports_no_xids", gpu=gpu, problem=str(error))


def with_xids(text: str, heard: Sequence[Xid]) -> str:
    """What went wrong, with what the driver reported meanwhile."""
    return f"{text} ({'; '.join(xid.sentence for xid in heard)})" if heard else text


def _free(events: Any) -> None:
    with suppress(pynvml.NVMLError):
        pynvml.nvmlEventSetFree(events)
