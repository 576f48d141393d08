"""Where the command `gpumarket` begins: sees that its packages are its own before it imports one of them.

They have ordinary names, and Python takes the first that it finds: with PYTHONPATH, or in the folder of `python -m`,
that may be somebody else's. So this file stands apart from them, and imports none of them at its top.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("contracts", "gpumarket", "market", "worker")
_OWN = Path(__file__).resolve().parent


def find_stranger() -> tuple[str, str] | None:
    """Sentence and hint for a package of somebody else's that Python would take for ours; None if there is none."""
    for name in PACKAGES:
        found = _place(name)
        if found is None or found.parent != _OWN / name:
            there = f"was found in {found}" if found else "was not found"
            return (
                f"the package '{name}' {there}, but that of gpumarket is in {_OWN / name}",
                _hint(name, found),
            )
    return None


def _place(name: str) -> Path | None:
    """The file that `import name` would read."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin is not None:
        return Path(spec.origin).resolve()
    places = list(spec.submodule_search_locations or ())  # a folder without __init__.py
    return Path(places[0]).resolve() / "__init__.py" if places else None


def _hint(name: str, found: Path | None) -> str:
    on_path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if found and any(found.is_relative_to(Path(part).resolve()) for part in on_path):
        return f"PYTHONPATH leads there: start it without (env -u PYTHONPATH gpumarket ...), or rename that '{name}'"
    return f"it comes first in Python's path: start gpumarket from another folder, or rename that '{name}'"


def refuse_strangers() -> None:
    """Ends the program with one sentence if a package is not ours."""
    if found := find_stranger():
        print(f"error: {found[0]}\nhint: {found[1]}", file=sys.stderr)
        sys.exit(1)


def main() -> None:
    """The command."""
    refuse_strangers()
    from contracts.cli.main import main as run

    run()
