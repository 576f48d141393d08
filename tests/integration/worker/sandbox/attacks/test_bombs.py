"""What a recipe can use up: each bomb is named by what it took, and nothing of it is left."""

import re
from pathlib import Path

import pytest

from tests.support.attack_runs import as_anybody, attack
from worker.sandbox import bubblewrap
from worker.sandbox.limits import Limits
from worker.sandbox.podman import Podman
from worker.sandbox.runner import LOG_BYTES_PER_SECOND


@as_anybody
@pytest.mark.parametrize(
    ("recipe", "kind", "message"),
    [
        ("ForkBomb", "processes", "48 are allowed"),
        ("MemoryBomb", "memory", "memory"),
        ("DiskFiller", "disk", "over 64 MB"),
        ("HidesFiles", "disk", "over 64 MB"),
        ("DeepFolders", "disk", "hides its content"),
        ("Sockets", "memory", "sockets are open, 256 are allowed"),
        ("ManyFiles", "disk", "/dev/shm has over 2000 files"),
    ],
)
def test_a_bomb_is_named(tmp_path: Path, recipe: str, kind: str, message: str) -> None:
    failed = attack(tmp_path, recipe)
    assert failed.kind == kind and message in failed.message, failed


@pytest.mark.podman
@pytest.mark.parametrize(
    ("recipe", "hang_seconds", "kinds"),
    [("ForkBomb", 4, {"hang", "memory"}), ("MemoryBomb", 90, {"memory", "exit"})],
)
def test_a_bomb_in_podman(tmp_path: Path, podman: None, recipe: str, hang_seconds: int, kinds: set[str]) -> None:
    """The kernel keeps the limits there: forks are refused, and who takes too much memory is killed."""
    limits = Limits(memory_mb=800, processes=48, hang_seconds=hang_seconds)
    failed = attack(tmp_path, recipe, Podman(), limits)
    assert failed.kind in kinds, failed
    assert not (Path.cwd() / "oom").exists()  # podman's monitor writes such a file where it stands


def test_folders_in_memory_have_a_size(tmp_path: Path) -> None:
    failed = attack(tmp_path, "MemoryFolders")
    assert failed.message == f"RuntimeError: wrote {2 * bubblewrap.TMP_BYTES >> 20} MB"


def test_a_flood_of_log_is_kept_short_and_costs_little(tmp_path: Path) -> None:
    failed = attack(tmp_path, "LogFlood", limits=Limits(memory_mb=800, log_bytes=20_000))
    assert failed.message == "RuntimeError: the flood is over"
    log = (tmp_path / "work" / "log.txt").read_bytes()
    assert len(log) < 25_000
    dropped = re.search(rb"(\d+) bytes dropped", log)
    assert dropped and int(dropped[1]) < 3 * 2 * LOG_BYTES_PER_SECOND


@as_anybody
def test_what_ignores_every_signal_and_hides_is_ended_as_a_hang(tmp_path: Path) -> None:
    failed = attack(tmp_path, "IgnoresTheEnd", limits=Limits(memory_mb=2000, hang_seconds=2))
    assert failed.kind == "hang", failed
