"""What a process loses to others on this machine: measured on real processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from worker.machine.contention import Contention
from worker.sandbox.limits import descendants

SPIN = "while True: pass"


@contextmanager
def processes(program: str, count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        yield started
    finally:
        for one in started:
            one.kill()
            one.communicate()


def test_who_shares_a_core_with_others_waits() -> None:
    with processes(SPIN) as (one,), processes(SPIN, 3) as others:
        core = min(psutil.Process().cpu_affinity() or [0])
        for process in (one, *others):
            psutil.Process(process.pid).cpu_affinity([core])
        contention = Contention(lambda: descendants(one.pid), threads=1)
        began = time.monotonic()
        while contention.waited() < 1:  # three quarters of its time
            assert time.monotonic() < began + 300
            time.sleep(0.2)


def test_who_sleeps_waits_for_nobody() -> None:
    with processes("import time; print('sleeps', flush=True); time.sleep(60)") as (one,):
        assert one.stdout and one.stdout.readline() == b"sleeps\n"  # its start may well have waited
        contention = Contention(lambda: descendants(one.pid), threads=1)
        time.sleep(1)
        assert contention.waited() < 0.5
