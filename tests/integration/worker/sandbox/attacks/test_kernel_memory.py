"""Memory that the kernel holds for a recipe, and no process has: refused, counted or capped, also without a group."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attack_runs import as_anybody, attack
from tests.support.recipes import KERNEL_MEMORY
from worker.sandbox import cgroups, small_buffers
from worker.sandbox.limits import Limits

SMALL = Limits(memory_mb=512, disk_mb=64, files=2000, processes=48, start_seconds=100, hang_seconds=30)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a control group, as where this machine lets us make none."""
    monkeypatch.setattr("worker.sandbox.bubblewrap.new_memory_group", lambda _: None)


@pytest.fixture
def group() -> Iterator[None]:
    """In a control group, of which nothing is left."""
    place = cgroups.group_place()
    if place is None:
        pytest.skip("this machine lets nobody make control groups")
    yield
    assert not list(place.folder.glob(f"{cgroups.RUN}{cgroups.identity(os.getpid())}-*"))


@as_anybody
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("Semaphores", "semget: EPERM"),
        ("MessageQueues", "mq_open: EPERM"),
        ("HugePages", "huge mmap: ENOMEM"),
        ("PipeSizes", "[Errno 1]"),
        ("SplicedPages", "vmsplice: ENOSYS"),
        ("SentFiles", "[Errno 38]"),
        ("Watches", "inotify_init1: ENOSYS"),
        ("Rules", "landlock: ENOSYS"),
        ("Requests", "io_setup: ENOSYS"),
        ("Filters", "prctl: EPERM"),
        ("Signals", f"timer_create: {errno.errorcode[errno.EAGAIN]} after 10"),
    ],
)
def test_what_training_has_no_use_for_is_refused(tmp_path: Path, recipe: str, message: str) -> None:
    failed = attack(tmp_path, recipe, limits=SMALL, source=KERNEL_MEMORY)
    assert failed.kind == "exception" and message in failed.message, failed


@pytest.mark.parametrize("recipe", ["TcpBuffers", "UnixBuffers"])
def test_no_socket_gets_a_greater_buffer_by_its_own_wish(tmp_path: Path, recipe: str) -> None:
    failed = attack(tmp_path, recipe, limits=SMALL, source=KERNEL_MEMORY, wish=True)
    assert failed.message == "PermissionError: [Errno 1] Operation not permitted", failed


@as_anybody
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("EventPolls", "400 epoll objects are open"),
        ("FileLocks", "over 2000 locks on files are held"),
        ("InFlight", "open files are on their way between sockets"),
        ("SocketsInFlight", "sockets are held by no process"),
    ],
)
def test_what_training_needs_little_of_is_counted(tmp_path: Path, recipe: str, message: str) -> None:
    failed = attack(tmp_path, recipe, limits=SMALL, source=KERNEL_MEMORY)
    assert failed.kind == "memory" and message in failed.message, failed


def the_tables_count(folder: Path) -> None:
    failed = attack(folder, "PageTables", limits=SMALL, source=KERNEL_MEMORY)
    assert failed.kind == "memory" and "512 MB are allowed" in failed.message, failed


def the_buffers_are_small(folder: Path, recipe: str) -> None:
    """230 sockets, each as full as it gets: with the kernel's own sizes, TCP's would hold a gigabyte and more."""
    failed = attack(folder, recipe, limits=SMALL, source=KERNEL_MEMORY)
    assert failed.kind == "exception" and failed.message.startswith("RuntimeError: sent "), failed
    assert 0 < int(failed.message.split()[2]) < 200, failed


@as_anybody
def test_page_tables_are_counted(tmp_path: Path, alone: None) -> None:
    the_tables_count(tmp_path)


@as_anybody
@pytest.mark.parametrize("recipe", ["TcpBuffers", "UnixBuffers"])
def test_the_buffers_of_sockets_are_small(tmp_path: Path, alone: None, recipe: str) -> None:
    the_buffers_are_small(tmp_path, recipe)


@as_anybody
def test_mappings_of_many_processes_are_counted(tmp_path: Path, alone: None) -> None:
    failed = attack(tmp_path, "Mappings", limits=SMALL, source=KERNEL_MEMORY)
    assert failed.kind == "memory" and "over 500000 mappings of memory are held by" in failed.message, failed


def test_page_tables_count_in_a_group(tmp_path: Path, group: None) -> None:
    the_tables_count(tmp_path)


@pytest.mark.parametrize("recipe", ["TcpBuffers", "UnixBuffers"])
def test_the_buffers_are_small_in_a_group(tmp_path: Path, group: None, recipe: str) -> None:
    the_buffers_are_small(tmp_path, recipe)


def test_files_in_memory_count_in_a_group(tmp_path: Path, group: None) -> None:
    failed = attack(tmp_path, "Folders", limits=SMALL, source=KERNEL_MEMORY)
    assert failed.kind == "memory" and "its files in /tmp and /dev/shm" in failed.message, failed


def test_where_buffers_can_not_be_made_small_sockets_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "refused.py"
    script.write_text("raise PermissionError('as in a container whose /proc/sys is read-only')")
    monkeypatch.setattr(small_buffers, "__file__", str(script))
    failed = attack(tmp_path, "TcpBuffers", limits=SMALL, source=KERNEL_MEMORY)
    assert failed.kind == "memory" and "sockets are open" in failed.message, failed
