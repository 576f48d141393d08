"""The extras of this installation: whether one is here, and the command that adds it."""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from contracts.errors import UserError
from contracts.strict_json import read_json

PROJECT = "gpumarket"
PACKAGES = ("contracts", "gpumarket", "market", "worker")  # come with every installation


@contextmanager
def needed_by(what: str, *extras: str) -> Iterator[None]:
    """What is imported inside comes with `extras`. Raises UserError if it doesn't because one is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        explained = missing_extra(what, extras, error)
        if explained is None:
            raise
        raise explained from error


def missing_extra(what: str, extras: Sequence[str], error: ModuleNotFoundError) -> UserError | None:
    """Which extra a missing module comes with. None if no extra brings it: that is a bug, whose traceback is needed."""
    lacking = [extra for extra in extras if not is_here(extra)]
    if not lacking or error.name is None or error.name.partition(".")[0] in PACKAGES:
        return None
    return UserError(
        f"{what} needs the extra '{','.join(lacking)}': there is no module named '{error.name}'",
        install_command(*lacking),
    )


def is_here(extra: str) -> bool:
    """Whether all that an extra asks for is installed; also what the extras ask for that it includes."""
    for requirement in distribution(PROJECT).requires or ():
        wanted, _, marker = requirement.partition(";")
        found = re.match(r"([\w.-]+)(?:\[([\w,. -]+)\])?", wanted)
        if found is None or f"extra == '{extra}'" not in marker.replace('"', "'"):
            continue
        name, included = found.groups()
        if not (all(map(is_here, included.split(","))) if name == PROJECT else _is_installed(name)):
            return False
    return True


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def install_command(*extras: str) -> str:
    """What adds extras to the very installation that runs, from where it came."""
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else ["pip", "--python", sys.executable]
    return shlex.join([*pip, "install", *_wanted(",".join(extras))])


def _wanted(extras: str) -> list[str]:
    """This project with extras, for pip. PEP 610's direct_url.json says where it came from, if not from an index."""
    origin = read_json(distribution(PROJECT).read_text("direct_url.json") or "{}")
    url, path = origin.get("url", ""), None
    if url.startswith("file:"):
        path = Path(unquote(urlsplit(url).path))
    if not url or (path and not path.exists()):  # what it was installed from may be gone
        return [f"{PROJECT}[{extras}]"]
    if path and "dir_info" in origin:
        editable = ["--editable"] if origin["dir_info"].get("editable") else []
        return [*editable, f"{path}[{extras}]"]
    if control := origin.get("vcs_info"):
        url = f"{control['vcs']}+{url}@{control['commit_id']}"
    if folder := origin.get("subdirectory"):
        url += f"#subdirectory={folder}"
    return [f"{PROJECT}[{extras}] @ {url}"]
