"""Where an agent keeps its files, and how they are written."""

import os
import threading
from pathlib import Path

from contracts.settings import home


def provider_folder(key: str) -> Path:
    return home() / "provider" / key


def write_atomically(path: Path, data: bytes) -> None:
    """The file is either as it was or whole and new, and on disk when this returns."""
    partial = path.with_name(f".{path.name}.{threading.get_ident()}.partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
