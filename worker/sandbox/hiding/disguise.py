"""What a program in a sandbox is told of the machine instead of the truth, in /proc: the same everywhere, always.

A recipe that could tell where or when it runs could train one thing for its provider, and another for whoever replays
it. docs/environments.md says what still shows.
"""

import os
import platform
from collections.abc import Iterable
from pathlib import Path

from worker.sandbox.hiding.variation import BOOT_ID, PLAIN, Variation

PROC = Path("/proc")
EMPTY, EMPTY_FOLDER = "empty", "folder"  # names in the folder of masks
# What of /proc is per process or per namespace. Links lead there, too.
OWN = ("self", "thread-self", "net", "mounts")
# What CUDA's libraries may look for in /proc is left to them.
MASKED_WITH_GPU = ("cpuinfo", "loadavg", "stat", "uptime", "sys/kernel/random/boot_id")
# What programs look up of /proc/sys; uname tells the kernel's release all the same.
SYSTEM = {
    "sys/kernel/cap_last_cap": None,  # None: as it is
    "sys/kernel/osrelease": None,
    "sys/kernel/ostype": "Linux\n",
    "sys/kernel/ngroups_max": "65536\n",
    "sys/kernel/pid_max": "32768\n",
    "sys/vm/overcommit_memory": "0\n",
}
# Names in /proc that runc lets others be mounted on.
MOUNTABLE = ("cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime")


def make_masks(
    folder: Path, threads: int, memory_mb: int, *, gpu: bool, variation: Variation = PLAIN
) -> dict[str, str]:
    """Fills an empty folder. Returns what stands in for what: names below /proc to names in the folder.

    The machine that a program is shown has as many processors as it has threads, and the memory that it may use.
    """
    told = {
        "cpuinfo": _cpuinfo(threads),
        "loadavg": "0.00 0.00 0.00 1/1 1\n",
        "meminfo": _meminfo(memory_mb, variation.used_mb),
        "stat": _stat(threads),
        "uptime": f"{variation.up_seconds}.00 0.00\n",
        "sys/kernel/random/boot_id": BOOT_ID.format(variation.boot),
    }
    if platform.machine() != "x86_64":
        del told["cpuinfo"]  # elsewhere it is where libraries learn what the processor can do
    if gpu:
        told = {name: text for name, text in told.items() if name in MASKED_WITH_GPU}
        masks = {name: name for name in told}
    else:
        told |= {name: _as_it_is(name) if text is None else text for name, text in SYSTEM.items()}
        told["sys/kernel/hostname"] = f"{variation.host_name}\n"
        masks = {
            name: name if name in told or name == "sys" else EMPTY_FOLDER if (PROC / name).is_dir() else EMPTY
            for name in sorted(os.listdir(PROC))
            if not name.isdigit() and name not in OWN and (name in told or name != "cpuinfo")
        }
        masks["1"] = EMPTY_FOLDER  # the sandbox's own first process, whose command line has this machine's paths
    (folder / EMPTY_FOLDER).mkdir()
    (folder / EMPTY).touch()
    for name, text in told.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for path in [folder, *folder.rglob("*")]:
        make_timeless(path)
    return masks


def make_timeless(path: Path) -> None:
    """A file or folder of ours that a program may read: its times and its permissions tell nothing."""
    path.chmod(0o755 if path.is_dir() else 0o444)
    os.utime(path, (0, 0))


def make_places(folder: Path, files: Iterable[Path]) -> None:
    """Folders, and empty files to mount on, of no time. `files`: relative."""
    folder.mkdir()
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    for path in sorted([folder, *folder.rglob("*")], reverse=True):
        make_timeless(path)


def _as_it_is(name: str) -> str:
    return (PROC / name).read_text()


def _cpuinfo(threads: int) -> str:
    """A processor without a name. What it can do, programs ask the processor itself (CPUID)."""
    lines = ("processor\t: {0}", "vendor_id\t: unknown", "model name\t: processor", "apicid\t\t: {0}")
    return "".join("\n".join(lines).format(number) + "\n\n" for number in range(threads))


def _stat(threads: int) -> str:
    names = ["cpu ", *(f"cpu{number}" for number in range(threads))]
    idle = "".join(f"{name} 0 0 0 0 0 0 0 0 0 0\n" for name in names)
    return f"{idle}intr 0\nctxt 0\nbtime 0\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"


def _meminfo(memory_mb: int, used_mb: int) -> str:
    size, free = memory_mb * 1024, max(0, memory_mb - used_mb) * 1024
    fields = {"MemTotal": size, "MemFree": free, "MemAvailable": free, "Buffers": 0, "Cached": 0, "SwapCached": 0,
              "SwapTotal": 0, "SwapFree": 0, "Shmem": 0, "Slab": 0}  # fmt: skip
    return "".join(f"{name + ':':15}{value:9} kB\n" for name, value in fields.items())
