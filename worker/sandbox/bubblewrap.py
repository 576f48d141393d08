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
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import psutil

from contracts.errors import UserError
from contracts.types import MB
from worker.recipes import SHIPPED
from worker.sandbox import seccomp
from worker.sandbox.cgroups import MemoryGroup, new_memory_group
from worker.sandbox.gpus import node_inside
from worker.sandbox.hiding.disguise import make_timeless
from worker.sandbox.hiding.view import MASKS, OUTPUT, Program, View, argv_inside, variables_inside, view
from worker.sandbox.limits import descendants
from worker.training.failures import Failure

SandboxKind = Literal["bubblewrap", "podman", "none"]

NOBODY = "65534"
TMP_BYTES = 256 << 20  # of /tmp, and of /dev/shm
END_SECONDS = 5.0
FIRST_OWN_UID, OWN_UIDS = 0x7000_0000, 0x0FF0_0000  # which no system gives to its users
# If the machine runs out of memory, the kernel shall end what is started here, and not the worker. A process says so of
# itself, since an ordinary user may not say it of one in a sandbox. Some shells export where they are.
ENDED_FIRST = 'echo 1000 2>/dev/null >/proc/self/oom_score_adj; unset PWD OLDPWD SHLVL; exec "$@"'
HOW_TO_MEND: dict[SandboxKind, str] = {
    "bubblewrap": "install bubblewrap 0.8 or later (Debian, Ubuntu: apt install bubblewrap), and allow it user "
    "namespaces; docs/environments.md says how, and how to use podman instead",
    "podman": 'docs/environments.md says what podman needs; or set sandbox = "bubblewrap" in provider.toml',
}


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
        self._staging: tempfile.TemporaryDirectory[str] | None = None

    def problem(self) -> str | None:
        return bubblewrap_problem()

    def start(self, program: Program) -> subprocess.Popen[bytes]:
        uid = own_uid() if os.geteuid() == 0 else None
        if uid is not None:
            program = given_to(uid, program)
        self._staging = staging_folder(program)
        seen = view(program, Path(self._staging.name))
        with filter_file() as (passed, options):
            command = bubblewrap_command(program, seen, options, uid=uid)
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
        if self._staging is not None:
            self._staging.cleanup()


_runs = itertools.count()


def own_uid() -> int:
    """A user id that no account and no other run of this machine has."""
    return FIRST_OWN_UID + (os.getpid() * 64 + next(_runs) % 64) % OWN_UIDS


def scratch_folder(output: Path) -> Path:
    """What a sandbox needs beside the output folder, while it runs."""
    return output.parent / "scratch"


def staging_folder(program: Program) -> tempfile.TemporaryDirectory[str]:
    """A folder for what a sandbox is built with; in the scratch folder, if the program has one."""
    beside = program.output and scratch_folder(program.output)
    if beside:
        beside.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=beside)


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
            make_timeless(copy)
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
        ["/bin/sh", "-c", ENDED_FIRST, "sh", *command],
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


# Bubblewrap


def bubblewrap_command(
    program: Program, seen: View, options: Sequence[str] = (), *, uid: int | None = None
) -> list[str]:
    """The program inside a sandbox. `uid`: root starts it, and it shall be that user's."""
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
    command += [
        "--uid",
        NOBODY,
        "--gid",
        NOBODY,
        "--hostname",
        program.variation.host_name,
        "--cap-drop",
        "ALL",
        "--clearenv",
    ]
    for name, value in variables_inside(program).items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", *_masks(seen), "--remount-ro", "/proc", *_devices(seen), "--remount-ro", "/dev"]
    for memory_folder in ("/tmp", "/dev/shm"):
        command += ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", memory_folder]
    command += _mounts(seen)  # after /tmp: this Python may be installed below it
    if seen.output is not None:
        command += ["--chdir", str(OUTPUT)]
    return [*command, "--remount-ro", "/", *options, "--", *argv_inside(program)]


def _masks(seen: View) -> list[str]:
    return [word for name, mask in seen.proc.items() for word in ("--ro-bind", str(seen.masks / mask), f"/proc/{name}")]


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
    for folder in seen.folders():
        command += ["--perms", "0755", "--dir", str(folder)]  # bubblewrap would make them root's alone
    # Not a fresh /proc: root's would cover some of its files, and then the kernel allows the user none of its own.
    command += ["--bind", "/proc", "/proc", "--ro-bind", str(seen.masks), str(MASKS)]
    command += [*_devices(seen), *_mounts(seen), "--"]
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
