"""For every attack: nothing of a run is left after it. On request: podman, and what a stranger would look for."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import ROOT
from tests.support.attack_runs import SECRET
from worker.sandbox import bubblewrap
from worker.sandbox.podman import Podman, podman_problem


@pytest.fixture(autouse=True, scope="module")
def needs_bubblewrap() -> None:
    if problem := bubblewrap.bubblewrap_problem():
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Podman as it is set up here; else with runc and without systemd, which works in more places."""
    with pytest.MonkeyPatch.context() as patch:
        if podman_problem(None) and shutil.which("runc"):
            settings = tmp_path_factory.mktemp("podman") / "containers.conf"
            settings.write_text('[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n')
            patch.setenv("CONTAINERS_CONF", str(settings))
            podman_problem.cache_clear()
        if problem := podman_problem(None):
            pytest.skip(problem)
        yield


@pytest.fixture(params=["bubblewrap", pytest.param("podman", marks=pytest.mark.podman)])
def runtime(request: pytest.FixtureRequest) -> bubblewrap.Sandbox | None:
    """Both sandboxes, each new for one run."""
    if request.param == "bubblewrap":
        return None
    request.getfixturevalue("podman")
    return Podman()


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No process, mount or temporary file of a run is there after it."""

    def mounts() -> set[str]:
        return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}

    before = mounts()
    yield
    assert {mount for mount in mounts() - before if "gpumarket" in mount or str(tmp_path) in mount} == set()
    # Bubblewrap may end before its namespace, whose folders in memory take the kernel a moment.
    deadline = time.monotonic() + 300
    while any(_processes_of_runs()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert set(_processes_of_runs()) == set()
    for work in tmp_path.glob("work*"):
        assert {path.name for path in work.iterdir() if not path.name.startswith("checkpoint")} == {"log.txt"}


def _processes_of_runs() -> Iterator[int]:
    own_uids = range(bubblewrap.FIRST_OWN_UID + os.getpid() * 64, bubblewrap.FIRST_OWN_UID + os.getpid() * 64 + 64)
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter(["uids", "cmdline"]):
        uids, command = process.info["uids"], process.info["cmdline"] or []
        if (uids and uids.real in own_uids) or (process.pid in children and "worker.training.harness" in command):
            yield process.pid


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)
        yield listener


@pytest.fixture
def targets(tmp_path: Path, udp: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a stranger would look for: keys, sockets, the worker itself."""
    home = tmp_path / "home"
    for secret in ("keys/me.json", "provider/me/leases/0x01/job/data.bin", "provider/me/lease.json"):
        (home / secret).parent.mkdir(parents=True, exist_ok=True)
        (home / secret).write_text(SECRET)
    for name in ("HOME", "GPUMARKET_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("GPUMARKET_PASSWORD", SECRET)
    # A process of the worker's user, with the secret in its environment and in its arguments.
    other = subprocess.Popen(["sleep", "1000"], env={"GPUMARKET_PASSWORD": SECRET})
    unix = str(home / "socket")
    listeners = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    os.chdir(home)  # a socket's path must be short
    listeners[0].bind("socket")
    os.chdir(ROOT)
    listeners[1].bind(f"\0gpumarket-{os.getpid()}")
    tcp = socket.create_server(("127.0.0.1", 0))
    for listener in listeners:
        listener.listen()
    read = [home, home / "keys", home / "keys/me.json", home / "provider/me/leases/0x01/job/data.bin", tmp_path]
    read += [
        ROOT / "README.md",
        ROOT / ".git",
        "/etc/shadow",
        "/etc/passwd",
        "/root/.bashrc",
        "/home",
        "/var",
    ]
    read += [f"/proc/{pid}/environ" for pid in (os.getpid(), other.pid)]
    write = ["/usr/bin/env", "/etc/new", "/new", "/dev/new", "/job/new", "/start.safetensors", bubblewrap.__file__]
    # As root, even without any capability, a process could write these if /proc were writable.
    write += ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"]
    write += ["/sys/kernel/uevent_helper", "/proc/self/oom_score_adj", home / "keys/me.json"]
    yield {
        "read": [str(path) for path in read],
        "write": [str(path) for path in write],
        "tcp": tcp.getsockname()[1],
        "udp": udp.getsockname()[1],
        "unix": [unix, f"@gpumarket-{os.getpid()}", "/run/docker.sock", "/run/dbus/system_bus_socket",
                 "/tmp/.X11-unix/X0", "/run/postgresql/.s.PGSQL.5432", "/run/podman/podman.sock"],
        "agent": os.getpid(),
        "secret": SECRET,
    }  # fmt: skip
    other.kill()
    other.wait()
    for listener in [tcp, *listeners]:
        listener.close()
