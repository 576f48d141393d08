"""Recipes that ship with the package: examples to copy, and the only ones that may run without a sandbox."""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent

NAMES = tuple(sorted(path.parent.name for path in FOLDER.glob("*/recipe.py")))

# sha256 of every shipped recipe.py, 0x-hex, as in a JobSpec's `files`.
SHIPPED = frozenset("0x" + hashlib.sha256((FOLDER / name / "recipe.py").read_bytes()).hexdigest() for name in NAMES)
