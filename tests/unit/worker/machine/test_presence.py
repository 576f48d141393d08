"""Who else is at work on this machine, and the owner's wish on disk."""

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.worker_leases import OFFER
from worker.machine import presence
from worker.machine.presence import FLEET, Presence, read_wish, write_wish
from worker.settings import OwnerRules, write_provider_settings


@pytest.fixture(autouse=True)
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    monkeypatch.delenv(FLEET, raising=False)
    write_provider_settings("rig", OFFER)


def watching(**rules: object) -> Presence:
    return Presence("rig", OFFER.model_copy(update={"owner": OwnerRules.model_validate(rules)}))


def test_a_wish_is_kept_until_it_is_taken_back() -> None:
    assert read_wish("rig") is None and watching().look() is None
    write_wish("rig", math.inf)
    pause = watching().look()
    assert pause is not None and (pause.reason, pause.until) == ("paused by hand", math.inf)
    write_wish("rig", time.time() + 100)
    until = watching().look()
    assert until is not None and 90 < until.seconds(time.time()) <= 100
    write_wish("rig", time.time() - 1)
    assert watching().look() is None
    write_wish("rig", None)
    write_wish("rig", None)
    assert read_wish("rig") is None


def test_a_file_that_nobody_can_read_is_a_pause() -> None:
    (presence.provider_folder("rig") / presence.PAUSE_FILE).write_text("2h please")
    assert read_wish("rig") == math.inf


def test_cpu_time_of_ours_counts_what_has_ended() -> None:
    own = presence.cpu_seconds(presence.os.getpid())
    subprocess.run([sys.executable, "-c", "x = sum(range(3_000_000))"], check=True)
    assert presence.cpu_seconds(presence.os.getpid()) > own


class Machine:
    """Its clock and its CPU time, as the test sets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
        self.now, self.ours, self.others = 1_000.0, 0.0, 0.0
        monkeypatch.setattr(presence, "time", self)
        monkeypatch.setattr(presence, "cpu_seconds", lambda root: self.ours)
        monkeypatch.setattr(presence.psutil, "cpu_count", lambda: cores)
        monkeypatch.setattr(presence.psutil, "cpu_times", self.cpu_times)

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def cpu_times(self) -> "Times":
        return Times(user=self.ours + self.others, idle=10**6 + self.now)

    def goes_on(self, seconds: float, *, ours: float = 0, others: float = 0) -> None:
        """`ours` and `others`: cores in use."""
        self.now += seconds
        self.ours += ours * seconds
        self.others += others * seconds


class Times(NamedTuple):
    user: float
    idle: float


def test_others_at_work_pause_and_ours_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, cores=4)
    watch = watching(others_cpu=0.5, quiet_seconds=60)
    assert watch.look() is None
    machine.goes_on(10, ours=4)
    assert watch.look() is None
    machine.goes_on(10, ours=1, others=1.9)
    assert watch.look() is None
    machine.goes_on(10, ours=1, others=2.1)
    pause = watch.look()
    assert pause is not None and pause.reason == "other programs use 52% of the CPU"
    assert pause.seconds(machine.now) == 0  # nobody knows for how long
    machine.goes_on(59)
    assert watch.look() is not None  # not quiet for long enough yet
    machine.goes_on(2)
    assert watch.look() is None


def test_looks_are_not_taken_more_often_than_they_mean_something(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, cores=4)
    watch = watching(others_cpu=0.5, quiet_seconds=60)
    watch.look()
    machine.goes_on(1, others=4)
    assert watch.look() is None
    machine.goes_on(presence.LOOK_SECONDS, others=4)
    assert watch.look() is not None


def test_a_key_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, cores=4)
    monkeypatch.setattr(presence, "seconds_since_typed", lambda: 20.0)
    assert watching(typed_seconds=20).look() is None
    pause = watching(typed_seconds=21).look()
    assert pause is not None and pause.reason == "somebody typed 20 s ago"
