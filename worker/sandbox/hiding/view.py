"""What a program in a sandbox sees: its files at places that are the same on every machine, whoever runs it."""

import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import contracts
import gpumarket
import worker
from worker.sandbox.gpus import Gpu, device_nodes, node_inside
from worker.sandbox.hiding.disguise import make_masks, make_places, make_timeless
from worker.sandbox.hiding.variation import PLAIN, Variation
from worker.sandbox.limits import Limits

JOB, OUTPUT, STATE = Path("/job"), Path("/out"), Path("/start.safetensors")
PACKAGES = Path("/gpumarket")  # ours
PYTHON = Path("/python")  # where this Python is not below /usr
ENVIRONMENT = Path("/env")  # with Python's packages, where they are not installed into Python itself
MASKS = Path("/neutral")  # what stands in for parts of /proc, while a sandbox is built
SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")


@dataclass(frozen=True)
class Program:
    """What to run, and all that it may have of this machine."""

    argv: Sequence[str]  # the first: this Python, sys.executable
    variables: Mapping[str, str] = field(default_factory=dict)
    read_only: Mapping[Path, Path] = field(default_factory=dict)  # paths inside, to files or folders outside
    output: Path | None = None  # becomes OUTPUT, where the program starts
    gpus: Sequence[Gpu] = ()
    limits: Limits = field(default_factory=Limits)
    threads: int = 1
    variation: Variation = PLAIN


@dataclass(frozen=True)
class View:
    """Files inside a sandbox, beside /proc, /dev, and the folders in memory."""

    links: Mapping[Path, str]
    read_only: Mapping[Path, Path]  # paths inside, to files or folders outside; a folder before what is in it
    output: Path | None
    devices: Sequence[Path]
    masks: Path  # a folder
    proc: Mapping[str, str]  # names below /proc, to names in `masks`

    def again(self) -> "View":
        """The same, seen from inside of a first sandbox."""
        tops = [path for path in self.read_only if not self.read_only.keys() & set(path.parents)]
        return replace(
            self,
            read_only={path: path for path in tops},  # what is mounted below comes along
            output=self.output and OUTPUT,
            devices=[node_inside(node) for node in self.devices],
            masks=MASKS,
        )

    def folders(self) -> list[Path]:
        """All that must be there before anything can be mounted in it."""
        return sorted({folder for path in (*self.read_only, *self.links) for folder in path.parents[:-1]})


def view(program: Program, staging: Path, *, host_python: bool = True) -> View:
    """Programs and libraries, this Python, the packages that the training process imports, and the program's files.

    Without `host_python` its files only. What has to be made for it is put into `staging`, an empty folder.
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
        files |= {path: path for path in map(Path, SYSTEM_FILES) if path.exists()}
        files |= _python_files(links, staging)
        for module in (worker, contracts, gpumarket):
            files[PACKAGES / module.__name__] = Path(module.__file__ or "").parent
    if program.gpus:
        files[Path("/sys")] = Path("/sys")  # the driver looks for its cards there
    if below_job := [path.relative_to(JOB) for path in program.read_only if path.is_relative_to(JOB)]:
        files[JOB] = staging / "job"
        make_places(files[JOB], reversed(below_job) if program.variation.backwards else below_job)
    masks = staging / "proc"
    masks.mkdir()
    proc = make_masks(
        masks, program.threads, program.limits.memory_mb, gpu=bool(program.gpus), variation=program.variation
    )
    return View(links, files | dict(program.read_only), program.output, device_nodes(program.gpus), masks, proc)


def argv_inside(program: Program) -> list[str]:
    """The program's, as it is started in a sandbox that has this Python."""
    first, *rest = program.argv
    return [str(_executable_inside()) if first == sys.executable else first, *rest]


def variables_inside(program: Program) -> dict[str, str]:
    return {**program.variables, "PYTHONPATH": str(PACKAGES)}


def _base() -> Path:
    """This Python's own folder, outside."""
    return Path(sys.base_prefix).resolve()


def _base_inside() -> Path:
    return _base() if _base().is_relative_to("/usr") else PYTHON


def _base_executable() -> Path:
    """Inside."""
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    return _base_inside() / executable.relative_to(_base()) if executable.is_relative_to(_base()) else executable


@cache
def _executable_inside() -> Path:
    return _base_executable() if sys.prefix == sys.base_prefix else ENVIRONMENT / "bin" / "python"


def _python_files(links: dict[Path, str], staging: Path) -> dict[Path, Path]:
    """This Python; a virtual environment is laid anew, as it holds its own path."""
    files = {PYTHON: _base()} if _base_inside() == PYTHON else {}
    if sys.prefix == sys.base_prefix:
        return files
    settings = staging / "pyvenv.cfg"
    settings.write_text(f"home = {_base_executable().parent}\ninclude-system-site-packages = {_sees_system()}\n")
    make_timeless(settings)
    links[_executable_inside()] = str(_base_executable())
    files[ENVIRONMENT / "pyvenv.cfg"] = settings
    for name in ("purelib", "platlib"):
        packages = Path(sysconfig.get_path(name))
        files[ENVIRONMENT / packages.relative_to(sys.prefix)] = packages
    return files


def _sees_system() -> str:
    """Whether the virtual environment has Python's own packages, too: `true` or `false`."""
    text = (Path(sys.prefix) / "pyvenv.cfg").read_text().lower().replace(" ", "")
    return "true" if "include-system-site-packages=true" in text else "false"
