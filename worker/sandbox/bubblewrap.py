"""What a stranger's recipe runs in: bubblewrap, podman (podman.py), or nothing for recipes that are trusted.

Inside there is no network; the system and the Python environment are read-only, and so are the job's files;
one output folder is writable, and a small /tmp in memory. Nothing else of this machine can be seen: no
home, no other process, no environment variable. docs/environments.md says what is promised.
"""

import contextlib
import functools
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import psutil

import contracts
import gpumarket
import worker
from contracts.errors import UserError
from contracts.types import MB
from worker.recipes import SHIPPED
from worker.sandbox import seccomp
from worker.sandbox.cgroups import MemoryGroup, new_memory_group
from worker.sandbox.gpus import Gpu, device_nodes, node_inside
from worker.sandbox.limits import Limits, descendants
from worker.training.failures import Failure

SandboxKind = Literal["bubblewrap", "podman", "none"]

JOB, OUTPUT, STATE = Path("/job"), Path("/out"), Path("/start.safetensors")
NOBODY = "65534"
TMP_BYTES = 256 << 20  # of /tmp, and of /dev/shm
END_SECONDS = 5.0
SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
FIRST_OWN_UID, OWN_UIDS = 0x7000_0000, 0x0FF0_0000  # which no system gives to its users
HOW_TO_MEND: dict[SandboxKind, str] = {
    "bubblewrap": "install bubblewrap 0.8 or later (Debian, Ubuntu: apt install bubblewrap), and allow it user "
    "namespaces; docs/environments.md says how, and how to use podman instead",
    "podman": 'docs/environments.md says what podman needs; or set sandbox = "bubblewrap" in provider.toml',
}


@dataclass(frozen=True)
class Program:
    """What to run, and all that it may have of this machine."""

    argv: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    read_only: Mapping[Path, Path] = field(default_factory=dict)  # paths inside, to files or folders outside
    output: Path | None = None  # becomes OUTPUT, where the program starts
    gpus: Sequence[Gpu] = ()
    limits: Limits = field(default_factory=Limits)


class Sandbox(Protocol):
    """A way to run a recipe. One object serves one run."""

    @property
    def kind(self) -> SandboxKind: ...

    def problem(self) -> str | None:
        """Why it can't be used here; None if it can."""

    def start(self, program: Program) -> subprocess.Popen[bytes]:
        """Its standard streams are pipes. Raises OSError or UserError."""

    def members(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """What runs, to be measured by the worker; empty where the kernel limits all together."""

    def exceeded_memory(self) -> bool:
        """Whether the kernel has ended a process of it for its memory. Known after `end`, too."""

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kills all that was started; returns when it is gone."""


class Bare:
    """No sandbox at all: an ordinary child process."""

    kind: SandboxKind = "none"

    def problem(self) -> str | None:
        return None

    def start(self, program: Program) -> subprocess.Popen[bytes]:
        return popen(program.argv, program.variables, cwd=program.output)

    def members(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        return descendants(process.pid)

    def exceeded_memory(self) -> bool:
        return False

    def end(self, process: subprocess.Popen[bytes]) -> None:
        kill_tree(process)


class Bubblewrap(Bare):
    """Run by root, the program belongs to a user of its own, so that it is nobody's owner, and countable."""

    kind: SandboxKind = "bubblewrap"

    def __init__(self) -> None:
        self._group: MemoryGroup | None = None
        self._exceeded = False

    def problem(self) -> str | None:
        return bubblewrap_problem()

    def start(self, program: Program) -> subprocess.Popen[bytes]:
        uid = own_uid() if os.geteuid() == 0 else None
        if uid is not None:
            program = given_to(uid, program)
        with filter_file() as (passed, options):
            command = bubblewrap_command(program, options, uid=uid)
            self._group = new_memory_group(program.limits.memory_mb * MB)
            if self._group is not None:
                command = self._group.command(command)
            # Of the worker's variables bubblewrap needs none, and its own are readable inside.
            return popen(command, {"PATH": os.environ.get("PATH", os.defpath)}, pass_fds=passed)

    def exceeded_memory(self) -> bool:
        if self._group is not None:
            self._exceeded = self._exceeded or self._group.kills() > 0
        return self._exceeded

    def end(self, process: subprocess.Popen[bytes]) -> None:
        self.exceeded_memory()
        kill_tree(process)
        if self._group is not None:
            self._group.remove()


_runs = itertools.count()


def own_uid() -> int:
    """A user id that no account and no other run of this machine has."""
    return FIRST_OWN_UID + (os.getpid() * 64 + next(_runs) % 64) % OWN_UIDS


def scratch_folder(output: Path) -> Path:
    """What a sandbox needs beside the output folder, while it runs."""
    return output.parent / "scratch"


def given_to(uid: int, program: Program) -> Program:
    """The same program, with files that the user `uid` can read, and an output folder of its own."""
    if program.output is None:
        return program
    os.chown(program.output, uid, uid)
    files = dict(program.read_only)
    for inside, outside in files.items():
        if not outside.stat().st_mode & 0o004:
            # Not for everybody, and a mount keeps it so. The copy lives as long as the run.
            copy = scratch_folder(program.output) / "readable" / inside.relative_to("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(outside, copy)
            copy.chmod(0o444)
            files[inside] = copy
    return replace(program, read_only=files)


@contextlib.contextmanager
def filter_file() -> Iterator[tuple[Sequence[int], Sequence[str]]]:
    """The seccomp filter as an open file: (descriptors to pass on, options for bubblewrap)."""
    code = seccomp.program()
    if code is None:
        yield (), []
        return
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb") as file:
        file.write(code)  # fits a pipe
        file.close()
        yield (reader,), ["--seccomp", str(reader)]


def popen(
    command: Sequence[str], variables: Mapping[str, str], *, cwd: Path | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(variables),
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kills the process, its group, and what it started; returns when they are gone."""
    family = descendants(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=END_SECONDS)


# What is seen inside


@dataclass(frozen=True)
class View:
    """Files inside a sandbox, beside /proc, /dev, and the folders in memory."""

    links: Mapping[Path, str]
    read_only: Mapping[Path, Path]  # paths inside, to files or folders outside
    output: Path | None
    devices: Sequence[Path]

    def again(self) -> "View":
        """The same, seen from inside."""
        return replace(
            self,
            read_only={path: path for path in self.read_only},
            output=self.output and OUTPUT,
            devices=[node_inside(node) for node in self.devices],
        )


def view(program: Program, *, host_python: bool = True) -> View:
    """Programs and libraries, this Python, the packages that the training process imports, and the program's files.

    Without `host_python` its files only.
    """
    links: dict[Path, str] = {}
    files: dict[Path, Path] = {}
    if host_python:
        files[Path("/usr")] = Path("/usr")
        for name in SYSTEM_LINKS:
            path = Path("/", name)
            if path.is_symlink():
                links[path] = str(path.readlink())
            elif path.is_dir():
                files[path] = path
        packages = [Path(module.__file__ or "").parent for module in (worker, contracts, gpumarket)]
        there = [path for path in map(Path, SYSTEM_FILES) if path.exists()]
        for path in [*there, Path(sys.base_prefix), Path(sys.prefix), *packages]:
            if not any(path.is_relative_to(other) for other in files):
                files[path] = path
    if program.gpus:
        files[Path("/sys")] = Path("/sys")  # the driver looks for its cards there
    return View(links, files | dict(program.read_only), program.output, device_nodes(program.gpus))


# Bubblewrap


def bubblewrap_command(program: Program, options: Sequence[str] = (), *, uid: int | None = None) -> list[str]:
    """The program inside a sandbox. `uid`: root starts it, and it shall be that user's."""
    seen = view(program)
    inner = _inner(program, seen if uid is None else seen.again(), options)
    return inner if uid is None else _as_user(uid, seen, inner)


def _inner(program: Program, seen: View, options: Sequence[str]) -> list[str]:
    command = [
        "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
    ]
    command += ["--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox", "--cap-drop", "ALL", "--clearenv"]
    for name, value in program.variables.items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--remount-ro", "/proc", *_devices(seen), "--remount-ro", "/dev"]
    for memory_folder in ("/tmp", "/dev/shm"):
        command += ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", memory_folder]
    command += _mounts(seen)  # after /tmp: this Python may be installed below it
    if seen.output is not None:
        command += ["--chdir", str(OUTPUT)]
    return [*command, "--remount-ro", "/", *options, "--", *program.argv]


def _devices(seen: View) -> list[str]:
    command = ["--dev", "/dev"]
    for node in seen.devices:
        command += ["--dev-bind", str(node), str(node_inside(node))]
    return command


def _mounts(seen: View) -> list[str]:
    command: list[str] = []
    for path, target in seen.links.items():
        command += ["--symlink", target, str(path)]
    for inside, outside in seen.read_only.items():
        command += ["--ro-bind", str(outside), str(inside)]
    if seen.output is not None:
        command += ["--bind", str(seen.output), str(OUTPUT)]
    return command


def _as_user(uid: int, seen: View, inner: Sequence[str]) -> list[str]:
    """Another user could not walk to files below root's folders: so root first mounts what shall be seen, no more,
    and the user builds the sandbox from that. The outer process namespace makes sure that all of it dies with us."""
    command = ["bwrap", "--unshare-pid", "--die-with-parent", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    command += ["--cap-drop", "ALL"]
    for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
        command += ["--cap-add", capability]
    command += ["--perms", "1777", "--tmpfs", "/tmp"]  # where the inner bubblewrap works
    for folder in sorted({folder for path in seen.read_only for folder in path.parents[:-1]}):
        command += ["--perms", "0755", "--dir", str(folder)]  # bubblewrap would make them root's alone
    # Not a fresh /proc: root's would cover some of its files, and then the kernel allows the user none of its own.
    command += ["--bind", "/proc", "/proc", *_devices(seen), *_mounts(seen), "--"]
    command += ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return [*command, "--inh-caps=-all", "--bounding-set=-all", "--", *inner]


@functools.cache
def bubblewrap_problem() -> str | None:
    """Why bubblewrap can't be used here, found by using it once; None if it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    sandbox = Bubblewrap()
    try:
        process = sandbox.start(Program([sys.executable, "-S", "-c", ""]))
        try:
            _, said = process.communicate(timeout=30)
        finally:
            sandbox.end(process)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start: {error}"
    if process.returncode == 0:
        return None
    reason = (said.decode(errors="replace").strip() or f"exit code {process.returncode}").splitlines()[-1]
    return f"bubblewrap does not work here: {reason}"


# Which


def sandbox_for(recipe_file: Path, wanted: Sandbox | None = None, *, trusted: bool) -> Sandbox:
    """The sandbox for a recipe: bubblewrap unless another is `wanted`. Raises Failure("machine") if there is none,
    and the recipe needs one.

    Without one only shipped recipes may run, and those that this machine's owner has called `trusted`.
    """
    wanted = wanted or Bubblewrap()
    problem = wanted.problem()
    if problem is None:
        return wanted
    if trusted or sha256_of(recipe_file) in SHIPPED:
        return Bare()
    raise Failure("machine", f"{recipe_file.name} needs a sandbox to run in, and {problem}", HOW_TO_MEND[wanted.kind])


def sha256_of(file: Path) -> str:
    """0x-hex, as in a JobSpec's files."""
    try:
        return "0x" + hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"can't read the recipe {file}: {error.strerror}") from error
