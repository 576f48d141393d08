"""What a stranger's recipe runs in: bubblewrap, or nothing for the recipes that ship with this package.

Inside there is no network; the system and the Python environment are read-only, and so are the job's files;
one output folder is writable, and a small /tmp in memory. Nothing else of this machine can be seen: no
home, no other process, no environment variable.
"""

import functools
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import contracts
import worker
from contracts.errors import UserError
from worker.environment import Device
from worker.recipes import SHIPPED

SandboxKind = Literal["bubblewrap", "none"]

JOB, OUTPUT, STATE = Path("/job"), Path("/out"), Path("/start.safetensors")
NOBODY = "65534"
TMP_BYTES = 256 << 20
SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
HOW_TO_INSTALL = (
    "install bubblewrap 0.8 or later (Debian, Ubuntu: apt install bubblewrap), and allow it user namespaces; "
    "docs/environments.md says how"
)


def bubblewrap_command(
    argv: Sequence[str],
    *,
    variables: Mapping[str, str],
    read_only: Mapping[Path, Path],
    output: Path | None = None,
    device: Device = "cpu",
) -> list[str]:
    """`argv` inside a sandbox. `read_only` maps paths inside to files or folders outside."""
    command = [
        "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
    ]
    command += ["--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox", "--cap-drop", "ALL", "--clearenv"]
    for name, value in variables.items():
        command += ["--setenv", name, value]
    # /proc/sys and the like look up who is root outside: as root, a process without any capability may
    # write there.
    command += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    if device == "cuda":
        command += _nvidia()
    command += ["--remount-ro", "/dev"]
    for memory_folder in ("/tmp", "/dev/shm"):
        command += ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", memory_folder]
    command += _system()  # after /tmp: this Python may be installed below it
    for inside, outside in read_only.items():
        command += ["--ro-bind", str(outside), str(inside)]
    if output is not None:
        command += ["--bind", str(output), str(OUTPUT), "--chdir", str(OUTPUT)]
    return [*command, "--remount-ro", "/", "--", *argv]


def _system() -> list[str]:
    """Programs and libraries, this Python, and the packages that the training process imports."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in SYSTEM_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    for file in SYSTEM_FILES:
        options += ["--ro-bind-try", file, file]
    packages = [Path(module.__file__ or "").parent for module in (worker, contracts)]
    bound = [Path("/usr")]
    for folder in [Path(sys.base_prefix), Path(sys.prefix), *packages]:
        if not any(folder.is_relative_to(other) for other in bound):
            options += ["--ro-bind", str(folder), str(folder)]
            bound.append(folder)
    return options


def _nvidia() -> list[str]:
    options = ["--ro-bind-try", "/sys", "/sys"]
    for node in sorted(Path("/dev").glob("nvidia*")):
        options += ["--dev-bind", str(node), str(node)]
    return options


@functools.cache
def bubblewrap_problem() -> str | None:
    """Why bubblewrap can't be used here, found by using it once; None if it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    command = bubblewrap_command([sys.executable, "-S", "-c", ""], variables={}, read_only={})
    try:
        tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start: {error}"
    if tried.returncode == 0:
        return None
    reason = (tried.stderr.strip() or f"exit code {tried.returncode}").splitlines()[-1]
    return f"bubblewrap does not work here: {reason}"


def choose(recipe_file: Path, *, trusted: bool) -> SandboxKind:
    """The sandbox for a recipe. Raises UserError if there is none, and the recipe needs one.

    Without bubblewrap only shipped recipes may run, and those that this machine's owner has called `trusted`.
    """
    problem = bubblewrap_problem()
    if problem is None:
        return "bubblewrap"
    if trusted or sha256_of(recipe_file) in SHIPPED:
        return "none"
    raise UserError(f"{recipe_file.name} needs a sandbox to run in, and {problem}", HOW_TO_INSTALL)


def sha256_of(file: Path) -> str:
    """0x-hex, as in a JobSpec's files."""
    try:
        return "0x" + hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"can't read the recipe {file}: {error.strerror}") from error
