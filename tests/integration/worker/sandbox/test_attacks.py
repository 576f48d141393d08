"""Recipes that attack: each run ends with a failure that names the cause, and nothing of it is left on the machine.

Root runs the marked ones once more as an ordinary user, and in podman where that is installed.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts.job.spec import JobSpec, hash_file
from tests.support import ROOT
from tests.support.recipes import ATTACKS
from worker.sandbox import bubblewrap
from worker.sandbox.gpus import Gpu
from worker.sandbox.limits import Limits
from worker.sandbox.podman import Podman, identity, podman_problem
from worker.sandbox.runner import LOG_BYTES_PER_SECOND, Runner
from worker.training.failures import Failure
from worker.training.messages import Checkpoint, Failed, Message, Ready

SECRET = "correct-horse-battery-staple"
LIMITS = Limits(memory_mb=800, disk_mb=64, files=2000, processes=48, start_seconds=100, hang_seconds=30)
USER = 12_345  # an ordinary one, which need not have an account

FEW = "nothing_outside or ForkBomb or dies_with"  # where being root makes the greatest difference

as_anybody = pytest.mark.as_anybody


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
    deadline = time.monotonic() + 60
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


def job(folder: Path, recipe: str, config: dict[str, Any], steps: int = 20) -> JobSpec:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.py").write_bytes(ATTACKS.read_bytes())
    return JobSpec(
        recipe=f"recipe.py:{recipe}",
        files={"recipe.py": hash_file(folder / "recipe.py")},
        environment="torch-2.13",
        seed=7,
        steps=steps,
        checkpoint_every=4,
        config=config,
    )


def attack(
    folder: Path,
    recipe: str,
    runtime: bubblewrap.Sandbox | None = None,
    limits: Limits = LIMITS,
    steps: int = 20,
    **config: Any,
) -> Failed:
    """What the run ends with. It always is a failure, and the worker that runs it is still there to say so."""
    spec = job(folder / "job", recipe, config, steps)
    last: Message | None = None
    with Runner(spec, folder / "job", folder / "work", limits=limits, runtime=runtime) as run:
        assert run.sandbox == ("podman" if runtime else "bubblewrap")
        for last in run.messages():
            if isinstance(last, Ready):
                run.go()
            if isinstance(last, Checkpoint):
                with contextlib.suppress(Failure):  # it is the last message, too
                    run.take(last)
    assert isinstance(last, Failed), last
    return last


# What it can reach


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


def reached(failed: Failed) -> list[str]:
    assert failed.message.startswith("RuntimeError: ["), failed
    found = json.loads(failed.message.removeprefix("RuntimeError: "))
    assert isinstance(found, list)
    return found


@as_anybody
def test_nothing_outside_is_in_reach(
    tmp_path: Path, targets: dict[str, Any], udp: socket.socket, runtime: bubblewrap.Sandbox | None
) -> None:
    found = reached(attack(tmp_path, "Reaches", runtime, **targets))
    if runtime is not None:  # podman makes an /etc/passwd, and leaves a process what is its own in /proc
        found = [what for what in found if what not in ("read /etc/passwd", "write /proc/self/oom_score_adj")]
    assert found == []
    with pytest.raises(TimeoutError):
        udp.recv(1)


def test_without_a_sandbox_much_of_it_would_be(
    tmp_path: Path, targets: dict[str, Any], udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same recipe with nothing around it: what the test above shows is the sandbox's doing."""
    targets["write"] = [str(tmp_path / "home" / "new")]
    spec = job(tmp_path / "job", "LooksAround", targets)
    monkeypatch.setattr(bubblewrap, "bubblewrap_problem", lambda: "bubblewrap is not installed")
    last: Message | None = None
    with Runner(spec, tmp_path / "job", tmp_path / "work", limits=LIMITS, trusted=True) as run:
        for last in run.messages():
            if isinstance(last, Ready):
                run.go()
    assert isinstance(last, Failed)
    found = reached(last)
    home = tmp_path / "home"
    assert {f"read {home / 'keys/me.json'}", f"write {home / 'new'}", f"user {os.getuid()}"} <= set(found)
    assert {"TCP", f"unix socket '{home}/socket'", "a signal to the agent"} <= set(found)
    assert udp.recv(1) == b"x"
    assert {"processes of others", "the secret in some process's environ"} <= set(found)


def test_a_file_that_only_root_may_read_is_there_inside(tmp_path: Path) -> None:
    spec = job(tmp_path / "job", "Attack", {})
    (tmp_path / "job" / "recipe.py").chmod(0o600)
    with Runner(spec, tmp_path / "job", tmp_path / "work") as run:
        assert isinstance(run.next_message(timeout=60), Ready)


def test_gpus_that_are_not_granted_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dev = tmp_path / "dev"
    dev.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-modeset"):
        (dev / name).write_text(name)
    monkeypatch.setattr("worker.sandbox.gpus.DEV", dev)
    look = [sys.executable, "-S", "-c", "import os; print(sorted(n for n in os.listdir('/dev') if 'nvidia' in n))"]
    for gpus, expected in (((), []), ((Gpu(1, "GPU-b"),), ["nvidia-uvm", "nvidia1", "nvidiactl"])):
        process = bubblewrap.Bubblewrap().start(bubblewrap.Program(look, gpus=gpus))
        said, log = process.communicate(timeout=120)
        assert said.decode().strip() == str(expected), log


# What it can use up


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


@as_anybody
def test_signals_reach_nobody_outside(tmp_path: Path, targets: dict[str, Any]) -> None:
    failed = attack(tmp_path, "Signals", **targets)
    assert failed.kind in ("exit", "killed"), failed  # it killed itself


@as_anybody
def test_it_dies_with_a_killed_worker(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from tests.integration.worker.sandbox.test_attacks import job
from worker.training.messages import Ready
from worker.sandbox.runner import Runner
folder = Path({str(tmp_path)!r})
with Runner(job(folder / "job", "IgnoresTheEnd", {{}}), folder / "job", folder / "dies") as run:
    for message in run.messages():
        if isinstance(message, Ready):
            run.go()
            while len(members := list(run._sandbox.members(run._process))) <= 4:  # it digs itself in at step 2
                time.sleep(0.1)
            print("\\n".join(str(one.pid) for one in members), flush=True)
            print("all", flush=True)
"""
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pids = [int(line) for line in iter(worker.stdout.readline, "all\n")]
    members = [process for process in psutil.process_iter() if process.pid in pids]
    assert len(members) > 4
    worker.kill()
    worker.wait()
    worker.stdout.close()
    _, alive = psutil.wait_procs(members, timeout=60)
    assert alive == []


@pytest.mark.podman
def test_a_killed_workers_container_is_removed_by_the_next_run_and_no_living_ones(tmp_path: Path, podman: None) -> None:
    program = f"""
import sys
from pathlib import Path
from worker.sandbox.podman import Podman
from worker.sandbox.bubblewrap import Program
sandbox = Podman()
folder = Path({str(tmp_path)!r}) / sys.argv[1] / "out"
folder.mkdir(parents=True)
sleeps = [sys.executable, "-S", "-c", "print(flush=True); import time; time.sleep(1000)"]
run = sandbox.start(Program(sleeps, output=folder))
run.stdout.readline()
print(sandbox._name, flush=True)
sys.stdin.read()
sandbox.end(run)
"""
    workers = {
        name: subprocess.Popen([sys.executable, "-c", program, name], cwd=ROOT, text=True, stdin=-1, stdout=-1)
        for name in ("killed", "living")
    }
    names = {one: worker.stdout.readline().strip() for one, worker in workers.items() if worker.stdout}
    assert len(set(names.values())) == 2 and set(names.values()) <= _containers()
    workers["killed"].kill()
    workers["killed"].wait()
    assert set(names.values()) <= _containers()  # unlike bubblewrap's, it lives on

    one = Podman()
    process = one.start(bubblewrap.Program([sys.executable, "-S", "-c", ""]))
    assert process.wait(120) == 0
    one.end(process)
    assert _containers() & set(names.values()) == {names["living"]}
    workers["living"].communicate(timeout=120)
    assert not _containers() & set(names.values())
    assert not list((tmp_path / "living" / "scratch").iterdir())


def _containers() -> set[str]:
    listed = subprocess.run(["podman", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def test_a_process_is_told_from_a_later_one_of_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids come again, most of all where a worker is the first process of a container of its own."""
    own = identity(os.getpid())
    assert own and own.startswith(f"{os.getpid()}-") and own != identity(os.getppid())
    child = subprocess.Popen(["true"])
    child.wait()
    assert identity(child.pid) is None


# What it can say and leave


@pytest.mark.parametrize(
    "what",
    ["symlink", "fifo", "trace", "long trace"]
    + [pytest.param(what, marks=pytest.mark.long) for what in ("folder", "socket", "hard link", "device", "sparse")],
)
def test_a_checkpoint_that_is_something_else_is_not_taken(tmp_path: Path, what: str) -> None:
    secret = tmp_path / "key"
    secret.write_text(SECRET)
    failed = attack(tmp_path, "SwapsCheckpoint", what=what, target=str(secret), at=4)
    assert failed.kind in ("protocol", "exit", "disk", "exception"), failed
    assert not list((tmp_path / "work").glob("checkpoint*"))
    assert secret.read_text() == SECRET


def test_who_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    failed = attack(tmp_path, "Deaf", steps=4 * 200)
    assert (failed.kind, failed.message) == ("protocol", "the training process does not listen")


@pytest.mark.long
def test_a_pipe_that_is_closed_is_silence(tmp_path: Path) -> None:
    limits = Limits(memory_mb=800, hang_seconds=2)
    assert attack(tmp_path, "Lies", limits=limits, lines=[], close=True).kind == "hang"


def test_what_follows_the_last_word_is_not_heard(tmp_path: Path) -> None:
    last = {"type": "failed", "kind": "nan", "message": "\x1b[31mred"}
    failed = attack(tmp_path, "Lies", lines=[json.dumps(last).encode().hex(), b'{"type": "done"}'.hex()])
    assert (failed.kind, failed.message) == ("nan", "\N{REPLACEMENT CHARACTER}[31mred")


# As somebody else


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0, reason="all of this file runs as an ordinary user already")
@pytest.mark.parametrize("which", [FEW, pytest.param("test", marks=pytest.mark.long)], ids=["few", "all"])
def test_as_an_ordinary_user(tmp_path: Path, which: str) -> None:
    """The attacks once more, by a worker that is no root.

    Where Python or this checkout is below a folder that only root may enter, the user gets a view of the machine in
    which these folders can be walked through. It has no capability there, and builds its sandbox itself.
    """
    user = tmp_path.parent / f"{tmp_path.name}-user"
    user.mkdir()
    os.chown(user, USER, USER)
    command = [
        "bwrap",
        "--dev-bind",
        "/",
        "/",
        "--die-with-parent",
        "--cap-add",
        "CAP_SETUID",
        "--cap-add",
        "CAP_SETGID",
    ]
    command += _walkable([Path(sys.base_prefix), Path(sys.prefix), ROOT, user])
    command += ["--setenv", "HOME", str(user), "--setenv", "TMPDIR", str(user), "--"]
    command += ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--inh-caps=-all"]
    command += ["--bounding-set=-all", sys.executable, "-m", "pytest", "-n", "0", "-q", "-o", f"cache_dir={user}/cache"]
    command += ["-m", "as_anybody and not podman", "-k", which, "--basetemp", str(user / "tests"), __file__]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    shutil.rmtree(user, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-2000:]


def _walkable(folders: list[Path]) -> list[str]:
    """Options of bubblewrap: closed folders above these become open ones with only these in them."""
    closed = {parent for folder in folders for parent in folder.parents if parent.stat().st_mode & 0o005 != 0o005}
    options: list[str] = []
    tops = sorted(one for one in closed if not any(other in one.parents for other in closed))
    for top in tops:
        options += ["--perms", "0755", "--tmpfs", str(top)]
        for folder in sorted({one for one in folders if one.is_relative_to(top)}):
            for parent in reversed([one for one in folder.parents if one.is_relative_to(top) and one != top]):
                options += ["--perms", "0755", "--dir", str(parent)]
            options += ["--bind", str(folder), str(folder)]
    return options
