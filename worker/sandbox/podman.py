"""Podman as a sandbox: the same promises as bubblewrap's, and limits that the kernel keeps for all processes together.

Without an image the program runs on this machine's own Python and libraries, mounted read-only. With one it runs on the
image's, which must hold this package and the environment that the Ask names.
"""

import contextlib
import functools
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import psutil

from contracts.strict_json import read_json
from contracts.types import MB
from worker.sandbox.bubblewrap import (
    TMP_BYTES,
    Bubblewrap,
    Sandbox,
    SandboxKind,
    bubblewrap_problem,
    given_to,
    kill_tree,
    own_uid,
    popen,
    staging_folder,
)
from worker.sandbox.cgroups import identity
from worker.sandbox.hiding.disguise import MOUNTABLE
from worker.sandbox.hiding.view import OUTPUT, Program, View, argv_inside, variables_inside, view

LABEL = "gpumarket.worker"  # of a container: which process looks after it
# Where podman finds its storage and settings. It passes none of these on.
PODMAN_VARIABLES = ("PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
                    "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "DBUS_SESSION_BUS_ADDRESS")  # fmt: skip


class Podman:
    """One run in a container. `image`: None for this machine's own Python."""

    kind: SandboxKind = "podman"

    def __init__(self, image: str | None = None) -> None:
        self.image = image
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._name = ""

    def problem(self) -> str | None:
        return podman_problem(self.image)

    def start(self, program: Program) -> subprocess.Popen[bytes]:
        remove_abandoned()
        uid = own_uid() if os.geteuid() == 0 else os.getuid()
        if os.geteuid() == 0:
            program = given_to(uid, program)
        if self.image is not None:
            program = replace(program, argv=["python3", *program.argv[1:]])
        self._folder = staging_folder(program)
        folder = Path(self._folder.name)
        seen = view(program, folder, host_python=self.image is None)
        root = [str(self.image)]
        if self.image is None:
            program = replace(program, argv=argv_inside(program), variables=variables_inside(program))
            make_root(folder / "root", seen)
            root = ["--rootfs", str(folder / "root")]
        self._name = f"gpumarket-{os.getpid()}-{secrets.token_hex(4)}"  # an agent may run several at once
        # When memory runs out, podman's monitor leaves a file where it was started: where the recipe can't lay a link.
        return popen(podman_command(program, seen, root, self._name, uid), _variables(), cwd=folder)

    def members(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        return []  # the container's control group has the limits

    def exceeded_memory(self) -> bool:
        return False  # the kernel's kill is all that podman tells

    def end(self, process: subprocess.Popen[bytes]) -> None:
        _podman("rm", "--force", "--ignore", "--time", "0", self._name)
        kill_tree(process)
        if self._folder is not None:
            self._folder.cleanup()


def chosen_sandbox(kind: Literal["bubblewrap", "podman"] = "bubblewrap", image: str | None = None) -> Sandbox:
    """What provider.toml chooses, for one run. Whether it works here, its `problem` says."""
    return Podman(image) if kind == "podman" else Bubblewrap()


def forget_problems() -> None:
    """Each sandbox is tried anew when it is next asked for its `problem`."""
    bubblewrap_problem.cache_clear()
    podman_problem.cache_clear()


def podman_command(program: Program, seen: View, root: Sequence[str], name: str, uid: int) -> list[str]:
    """`root`: what to run it on, as podman's last options before the program."""
    limits = program.limits
    command = ["podman", "run", "--rm", "--interactive", "--name", name, "--label", f"{LABEL}={identity(os.getpid())}"]
    command += ["--pull", "never", "--log-driver", "none", "--network", "none", "--no-hosts", "--http-proxy=false"]
    command += ["--read-only", "--read-only-tmpfs=false", "--cap-drop", "all"]
    command += ["--security-opt", "no-new-privileges", "--security-opt", "label=disable"]
    command += ["--user", f"{uid}:{uid}", "--hostname", program.variation.host_name]
    if os.geteuid() != 0:
        command += ["--userns", "keep-id"]
    memory = f"{limits.memory_mb}m"
    command += ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.processes)]
    command += ["--ulimit", f"nofile={limits.open_files}:{limits.open_files}", "--ulimit", "core=0:0"]
    command += ["--ulimit", f"nproc={limits.processes}:{limits.processes}"]  # the default may be above our own
    command += ["--tmpfs", f"/tmp:rw,nosuid,nodev,mode=1777,size={TMP_BYTES // MB}m"]
    command += ["--shm-size", f"{TMP_BYTES // MB}m", "--unsetenv-all"]
    for variable, value in program.variables.items():
        command += ["--env", f"{variable}={value}"]
    for inside, outside in seen.read_only.items():
        command += ["--mount", f"type=bind,source={outside},destination={inside},readonly"]
    command += _masks(seen)
    if seen.output is not None:
        command += ["--mount", f"type=bind,source={seen.output},destination={OUTPUT}", "--workdir", str(OUTPUT)]
    for gpu in program.gpus:
        command += ["--device", f"nvidia.com/gpu={gpu.uuid}"]  # by the container device interface
    filtered = [program.argv[0], "-m", "worker.sandbox.seccomp", *program.argv]
    return [*command, *root, *filtered]


def _masks(seen: View) -> list[str]:
    """What the runtime lets us mount on is told otherwise; of the rest of the machine nothing is told."""
    command: list[str] = []
    hidden = [name for name in seen.proc if name not in MOUNTABLE and name not in ("sys", "1")]
    for name in sorted(seen.proc.keys() & set(MOUNTABLE)):
        command += ["--mount", f"type=bind,source={seen.masks / seen.proc[name]},destination=/proc/{name},readonly"]
    hidden = sorted({*hidden, "sys/kernel/random/boot_id"})
    return [*command, "--security-opt", "mask=" + ":".join(f"/proc/{name}" for name in hidden)]


def make_root(folder: Path, seen: View) -> None:
    """An empty root file system with the places to mount on."""
    folder.mkdir()
    folder.chmod(0o755)
    for path, target in seen.links.items():
        _in(folder, path).parent.mkdir(parents=True, exist_ok=True)
        _in(folder, path).symlink_to(target)
    for inside, outside in seen.read_only.items():
        place = _in(folder, inside)
        place.parent.mkdir(parents=True, exist_ok=True)
        if outside.is_dir():
            place.mkdir(exist_ok=True)
        else:
            place.touch()
    for path in (OUTPUT, Path("/tmp"), Path("/proc"), Path("/sys"), Path("/dev"), Path("/etc"), Path("/run")):
        _in(folder, path).mkdir(exist_ok=True)


def _in(folder: Path, path: Path) -> Path:
    return folder / path.relative_to("/")


def remove_abandoned() -> None:
    """Containers whose worker was killed: a container, unlike bubblewrap's sandbox, does not die with it."""
    listed = _podman("ps", "--all", "--filter", f"label={LABEL}", "--format", "json")
    if listed.returncode != 0:
        return
    for container in read_json(listed.stdout or "[]"):
        owner = container["Labels"][LABEL]
        if identity(int(owner.partition("-")[0])) != owner:
            _podman("rm", "--force", "--ignore", "--time", "0", container["Id"])


@functools.cache
def podman_problem(image: str | None) -> str | None:
    """Why podman can't be used here, found by using it once; None if it can."""
    if shutil.which("podman") is None:
        return "podman is not installed"
    if missing := {"memory", "pids"} - set(_controllers()):
        # It would start all the same, with a warning where control groups are of version 1, and keep no limit.
        lacks = " and ".join(sorted(missing))
        return f"podman can't limit {lacks} here: as an ordinary user it needs control groups v2 that systemd delegates"
    sandbox = Podman(image)
    process = None
    try:
        process = sandbox.start(Program([sys.executable, "-c", "import worker.training.harness"]))
        _, said = process.communicate(timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"podman does not start: {error}"
    finally:
        if process is not None:
            with contextlib.suppress(OSError):
                sandbox.end(process)
    if process.returncode == 0:
        return None
    reason = (said.decode(errors="replace").strip() or f"exit code {process.returncode}").splitlines()[-1]
    return f"podman does not work here: {reason}"


def _controllers() -> list[str]:
    """What podman can limit by control groups."""
    told = _podman("info", "--format", "json")
    if told.returncode != 0:
        return []
    controllers: list[str] = read_json(told.stdout)["host"]["cgroupControllers"]
    return controllers


def _podman(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *arguments], env=_variables(), capture_output=True, text=True, check=False)


def _variables() -> dict[str, str]:
    return {name: os.environ[name] for name in PODMAN_VARIABLES if name in os.environ}
