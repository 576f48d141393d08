"""The processor's name."""

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def with_processor(numerics: Mapping[str, Any]) -> dict[str, Any]:
    """What a process in a sandbox says of its numerics, with what it can't know there. Called outside."""
    return {**numerics, "cpu": cpu_model()}


def cpu_model() -> str:
    """The processor's name, with family, model and stepping if known: virtual machines share names."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    numbers = [_field(key, info) for key in ("cpu family", "model", "stepping")]
    return f"{_field('model name', info) or platform.machine()} ({'/'.join(numbers)})"


def _field(key: str, info: str) -> str:
    found = re.search(rf"^{key}\s*: (.+)$", info, re.MULTILINE)
    return found[1] if found else ""
