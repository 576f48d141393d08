"""What an approver has signed, on disk: it never signs two tips for one checkpoint, whatever restarts it."""

import os
from dataclasses import dataclass
from pathlib import Path

from contracts.strict_json import read_json, write_json


@dataclass(frozen=True)
class Signed:
    """How far a lease is approved."""

    n: int
    tip: str
    last: bool = False


class Memory:
    """One small file per lease, written and synced before a signature leaves the process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def recall(self, lease: str) -> Signed | None:
        try:
            return Signed(**read_json(self._path(lease).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def remember(self, lease: str, signed: Signed) -> None:
        """Raises ValueError if it would contradict what was signed before."""
        before = self.recall(lease)
        if before and (signed.n < before.n or (signed.n == before.n and signed.tip != before.tip)):
            raise ValueError(f"lease {lease}: {signed} would contradict {before}, which is signed")
        partial = self._path(lease).with_suffix(".part")
        with partial.open("w", encoding="utf-8") as file:
            file.write(write_json({"n": signed.n, "tip": signed.tip, "last": signed.last}))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path(lease))

    def _path(self, lease: str) -> Path:
        return self.folder / f"{lease}.json"
