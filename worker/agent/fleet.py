"""Several lots of one machine under one command: an agent process for each key, restarted if it dies.

A lot is what is sold together: some GPUs, or some cores. Processes and not threads: a crash, a full disk's exception or
memory gone wild in one lot leaves the others' leases alone, and each has its own cores, password and log lines.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from contracts.errors import UserError
from contracts.settings import home
from contracts.wallet import keys
from worker.driver.nvml import GpuName
from worker.machine.hardware import Machine
from worker.machine.presence import FLEET
from worker.settings import SETTINGS_FILE, ProviderSettings, read_provider_settings

log = structlog.get_logger()
RESTART_SECONDS = (1.0, 60.0)  # first and longest pause before a dead agent is started again
HEALTHY_SECONDS = 300.0  # after which its next death counts as the first
POLL_SECONDS = 0.2
EXTRA_SECONDS = 15.0  # beyond the grace time, for a process to end


def registered() -> list[str]:
    """Keys that have been registered as providers here."""
    return sorted(path.parent.name for path in (home() / "provider").glob(f"*/{SETTINGS_FILE}"))


def check_lots(lots: Mapping[str, ProviderSettings], machine: Machine) -> None:
    """Raises UserError if the lots together sell more than the machine has, or one thing twice."""
    owner: dict[GpuName, str] = {}
    for name, lot in lots.items():
        for gpu in lot.gpu_names:
            here = machine.gpu(gpu)  # one may be named by its index here and by its UUID there
            same = (here and here.uuid) or gpu
            if same in owner:
                raise UserError(
                    f"the lots '{owner[same]}' and '{name}' both sell GPU {gpu}",
                    f"register one of them anew with other --gpus, or `gpus` in its {SETTINGS_FILE}",
                )
            owner[same] = name
    totals = (
        ("CPU threads", "--threads", sum(lot.threads for lot in lots.values()), machine.threads),
        ("MB of memory", "--memory", sum(lot.resources.memory_mb for lot in lots.values()), machine.memory_mb),
    )
    for what, option, sold, there in totals:
        if sold > there and len(lots) > 1:
            raise UserError(
                f"the lots {', '.join(lots)} sell {sold} {what} together; this machine has {there}",
                f"register them anew with smaller {option}",
            )


def split_cores(threads: Mapping[str, int], cores: Sequence[int]) -> dict[str, set[int]]:
    """Cores for each lot, none twice: as many as its threads, and of those left over an equal part."""
    left = list(cores)
    found = {name: {left.pop(0) for _ in range(min(count, len(left)))} for name, count in threads.items()}
    names = list(found)
    for number, core in enumerate(left):
        found[names[number % len(names)]].add(core)
    return found


class LotProcess:
    """The agent process of one key."""

    def __init__(self, key: str, password: str, cores: set[int], options: Sequence[str]) -> None:
        self.key, self._password, self._cores, self._options = key, password, cores, options
        self.process: subprocess.Popen[bytes] | None = None
        self._started = self._start_at = 0.0  # monotonic
        self._deaths = 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start_if_due(self) -> None:
        if not self.running and time.monotonic() >= self._start_at:
            self._started = time.monotonic()
            self.process = self._spawn()
            log.info("lot.started", lot=self.key, pid=self.process.pid, cores=sorted(self._cores))

    def ended_well(self) -> bool:
        """Looks after the process: whether it has done all it should. One that died is started again later."""
        if self.process is None or (code := self.process.poll()) is None:
            return False
        if code == 0:
            return True
        self.process = None
        if time.monotonic() > self._started + HEALTHY_SECONDS:
            self._deaths = 0
        pause = min(RESTART_SECONDS[0] * 2**self._deaths, RESTART_SECONDS[1])
        self._deaths = min(self._deaths + 1, 10)
        self._start_at = time.monotonic() + pause
        log.error("lot.died", lot=self.key, code=code, restart_in=pause)
        return False

    def _spawn(self) -> subprocess.Popen[bytes]:
        # The password goes through a pipe: neither the command line nor the environment shows it.
        reader, writer = os.pipe()
        try:
            os.write(writer, self._password.encode())
            os.close(writer)
            variables = {name: value for name, value in os.environ.items() if name != "GPUMARKET_PASSWORD"}
            variables |= {"GPUMARKET_PASSWORD_FILE": f"/dev/fd/{reader}", FLEET: str(os.getpid())}
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, self._cores or before)  # of this thread; the child inherits it
            try:
                return subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "contracts.cli.main",
                        "provider",
                        "start",
                        "--key",
                        self.key,
                        *self._options,
                    ],
                    env=variables,
                    pass_fds=(reader,),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for this process, which then tells its lots
                )
            finally:
                os.sched_setaffinity(0, before)
        finally:
            os.close(reader)


class Fleet:
    """Runs until `stop`, or until all lots have ended by themselves."""

    def __init__(self, lots: Mapping[str, ProviderSettings], machine: Machine, options: Sequence[str] = ()) -> None:
        """`options` go to each `provider start`. Asks for the passwords. Raises UserError."""
        check_lots(lots, machine)
        cores = split_cores({key: lot.threads for key, lot in lots.items()}, sorted(os.sched_getaffinity(0)))
        self._lots = [LotProcess(key, _password(key), cores[key], options) for key in lots]
        self._grace = max(lot.grace_seconds for lot in lots.values()) + EXTRA_SECONDS
        self.stopping = False

    def stop(self) -> None:
        """Asks all lots to hand over and to end. Safe to call in a signal handler."""
        self.stopping = True

    def hurry(self) -> None:
        """Ends all at once; their next start goes on from disk."""
        self._tell()

    def run(self) -> None:
        left = list(self._lots)
        try:
            while left and not self.stopping:
                for lot in left:
                    lot.start_if_due()
                time.sleep(POLL_SECONDS)
                left = [lot for lot in left if not lot.ended_well()]
            self._tell()
            self._wait()
        finally:
            for lot in self._lots:
                if lot.process and lot.running:
                    lot.process.kill()
                    lot.process.wait()
            log.info("fleet.ended")

    def _wait(self) -> None:
        gives_up = time.monotonic() + self._grace
        while any(lot.running for lot in self._lots) and time.monotonic() < gives_up:
            time.sleep(POLL_SECONDS)

    def _tell(self) -> None:
        for lot in self._lots:
            if lot.process and lot.running:
                lot.process.terminate()


def _password(key: str) -> str:
    """A key's password, tried: a wrong one is better found now than by a process in the background."""
    password = keys.read_password(f"Password for key '{key}'")
    keys.load(key, password)
    return password


def read_lots(names: Sequence[str]) -> dict[str, ProviderSettings]:
    return {name: read_provider_settings(name) for name in names}


def stop_without_fleet(stop: Callable[[], None]) -> None:
    """For a lot: calls `stop` when the fleet that started this process is gone. Does nothing where there is none."""
    parent = os.environ.get(FLEET)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        stop()

    threading.Thread(target=watch, daemon=True).start()
