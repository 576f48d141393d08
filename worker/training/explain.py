"""What became of a recipe's exception: where in the recipe it was raised, and what the sandbox had to do with it."""

import errno
import os
import socket
import subprocess
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_NETWORK = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ECONNREFUSED, errno.EADDRNOTAVAIL)
NETWORK_LIBRARIES = ("requests", "urllib3", "httpx", "httpcore", "aiohttp", "huggingface_hub", "botocore", "paramiko")
NETWORK_WORDS = ("name resolution", "Max retries exceeded", "Network is unreachable", "getaddrinfo", "urlopen error")
THREAD_WORDS = ("can't start new thread", "Resource temporarily unavailable")
SHARED_MEMORY_WORDS = ("bus error", "shared memory", "/dev/shm", "/torch_")
GPU_WORDS = ("NVIDIA driver", "No CUDA GPUs", "not compiled with CUDA", "cuda runtime error")

NETWORK = (
    "this is the sandbox: it has no network. List what the recipe needs under `files` in job.yaml (a file of the web "
    "by its url) and open it by data[PATH]"
)
PLACES = (
    "this is the sandbox: only the folder that the recipe starts in and /tmp can be written to. Checkpoints are the "
    "worker's task; print what you want to read"
)
PROCESSES = "this is the sandbox: it allows a number of processes and threads only; use fewer workers"
SHARED_MEMORY = (
    "this is the sandbox: /tmp and /dev/shm are memory, of 256 MB each. Use fewer workers of a DataLoader or smaller "
    "batches, and write large files to the folder that the recipe starts in"
)
MODULES = (
    "this is the sandbox: it has what docs/environments.md lists. List a module of your own under `files` in job.yaml, "
    "and do without others"
)
CALLS = "this is the sandbox: it refuses what no training needs; docs/environments.md says what"
VARIABLES = "this is the sandbox: it passes no variables on. Put what the recipe needs into `config` in job.yaml"
GPUS = "torch.cuda.is_available() tells whether there is a GPU; ask for one by `resources` in job.yaml"


def recipe_trace(error: BaseException, folder: Path) -> str:
    """The recipe's own frames of an exception and of those that led to it: file, line and source; "" if it has none.

    `folder` has the recipe's files; they are named from there.
    """
    parts: list[str] = []
    for one in reversed(list(_chain(error))):
        frames = [frame for frame in traceback.extract_tb(one.__traceback__) if _is_below(frame.filename, folder)]
        if not frames:
            continue
        shown = [
            traceback.FrameSummary(
                os.path.relpath(frame.filename, folder), frame.lineno, frame.name, lookup_line=False, line=frame.line
            )
            for frame in frames
        ]
        lines = traceback.StackSummary.from_list(shown).format()
        parts.append("".join(["Traceback of the recipe:\n", *lines, *traceback.format_exception_only(one)]))
    return "\n".join(parts)


def sandbox_hint(error: BaseException, files: Collection[str]) -> str | None:
    """What to do where the exception comes of being in the sandbox; None if it seems not to. `files`: the job's."""
    return next((hint for one in _chain(error) if (hint := _hint(one, files))), None)


def _hint(error: BaseException, files: Collection[str]) -> str | None:
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        return MODULES
    if isinstance(error, EOFError) and "reading a line" in text:
        return "this is the sandbox: nobody can answer there. Put what the recipe asks for into `config` in job.yaml"
    if isinstance(error, KeyError) and _raised_in(error, os.__file__, "<frozen os>"):
        return VARIABLES
    if _is_network(error, text):
        return NETWORK
    if isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError | OSError) and _has(text, THREAD_WORDS)):
        return PROCESSES
    if isinstance(error, OSError):
        return _of_the_system(error, files)
    if isinstance(error, RuntimeError) and _has(text, SHARED_MEMORY_WORDS):
        return SHARED_MEMORY
    if isinstance(error, RuntimeError | AssertionError) and _has(text, GPU_WORDS):
        return GPUS
    if isinstance(error, RuntimeError) and "home directory" in text:
        return PLACES
    return None


def _of_the_system(error: OSError, files: Collection[str]) -> str | None:
    name = error.filename if isinstance(error.filename, str) else ""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if _raised_in(error, subprocess.__file__):
            return f"this is the sandbox: there is no program {name!r}, only those of /usr and Python's environment"
        return _missing(name, files)
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return SHARED_MEMORY
    if error.errno == errno.EMFILE:
        return "this is the sandbox: a process may have 1024 files open; close what is not used any more"
    if error.errno in READ_ONLY:
        return PLACES if name else CALLS
    return CALLS if error.errno == errno.ENOSYS else None


def _missing(name: str, files: Collection[str]) -> str:
    same = [file for file in files if os.path.basename(file) == os.path.basename(name)]
    if same:
        return f"this is the sandbox: the job's files are elsewhere there; open data[{same[0]!r}]"
    return (
        f"this is the sandbox: of your files it has only those under `files` in job.yaml ({_listed(files)}). "
        "List the one that is missing, and open it by data[PATH]"
    )


def _listed(files: Collection[str]) -> str:
    shown = sorted(files)[:8]
    return ", ".join(shown) + (f" and {len(files) - len(shown)} more" if len(files) > len(shown) else "")


def _is_network(error: BaseException, text: str) -> bool:
    if isinstance(error, socket.gaierror | ConnectionError | socket.herror):
        return not isinstance(error, BrokenPipeError)
    if isinstance(error, OSError) and error.errno in NO_NETWORK:
        return True
    library = type(error).__module__.partition(".")[0]
    return library in NETWORK_LIBRARIES or (isinstance(error, OSError | RuntimeError) and _has(text, NETWORK_WORDS))


def _has(text: str, words: Collection[str]) -> bool:
    return any(word in text for word in words)


def _raised_in(error: BaseException, *files: str) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename in files


def _is_below(file: str, folder: Path) -> bool:
    return file.startswith(os.path.join(folder, ""))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what led to it, as Python's own tracebacks tell it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
