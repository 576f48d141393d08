"""Recipes that ship with the package: examples to copy, and the only ones that may run without a sandbox."""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent

NAMES = tuple(sorted(path.parent.name for path in FOLDER.glob("*/recipe.py")))

# As they were when they imported `worker.state`: jobs with them may still run.
_FORMERLY = {
    "0x6c9ea08ae18d82121187d1c94a29beaa200fed7e4cedece962092cd473056aa7",
    "0xd9eecf19c0272fd38667bced3ff20765dabef717518fc95626d6384e30334e5f",
}

# sha256 of every recipe.py that has been shipped, 0x-hex, as in a JobSpec's `files`.
SHIPPED = frozenset("0x" + hashlib.sha256((FOLDER / name / "recipe.py").read_bytes()).hexdigest() for name in NAMES)
SHIPPED |= _FORMERLY
