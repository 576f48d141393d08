"""Blobs: files named by the SHA-256 of their bytes. A name appears only when its whole content is on disk."""

import hashlib
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from contracts.api.problems import Code, Problem
from contracts.job.spec import FileRef

CHUNK = 1 << 20


class BlobStore:
    """A folder of blobs, in 256 sub-folders by the first byte of the hash."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be. `sha256` is 0x-hex, checked by the caller's types."""
        digits = sha256[2:]
        return self.folder / digits[:2] / digits

    def size(self, sha256: str) -> int | None:
        """In bytes; None if there is no such blob."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def has(self, ref: FileRef) -> bool:
        return self.size(ref.sha256) == ref.size

    def all(self) -> Iterator[tuple[str, int]]:
        """Hash and size of each blob there is."""
        for path in sorted(self.folder.glob("[0-9a-f][0-9a-f]/*")):
            yield f"0x{path.name}", path.stat().st_size

    def incoming(self, sha256: str, size: int | None) -> "Incoming":
        """A blob to be written. Raises Problem(blob_too_large) if its announced size is."""
        if size is not None and size > self.max_bytes:
            raise self._too_large(sha256)
        return Incoming(self, sha256, size)

    def put(self, sha256: str, chunks: Iterable[bytes]) -> int:
        """Store a blob, unless its bytes are not what its name says. Returns its size in bytes."""
        with self.incoming(sha256, None) as blob:
            for chunk in chunks:
                blob.write(chunk)
            blob.check()
            blob.keep()
            return blob.size

    def drop(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    def clear_incoming(self, idle_seconds: float) -> None:
        """Remove what uploads left behind when the market was killed: all that was not written to for so long."""
        newest = time.time() - idle_seconds
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= newest:
                    path.unlink()

    def _too_large(self, sha256: str) -> Problem:
        return Problem(
            413,
            Code.BLOB_TOO_LARGE,
            f"blob {sha256} has more than the {self.max_bytes} bytes that this market takes",
            "Split the file, or ask the market's operator to raise max_blob_bytes.",
            max_blob_bytes=self.max_bytes,
        )


class Incoming:
    """An upload: hashed as it comes, then checked, then kept under its name; else gone."""

    def __init__(self, store: BlobStore, sha256: str, size: int | None) -> None:
        self._store, self.sha256, self._announced = store, sha256, size
        self._digest, self.size = hashlib.sha256(), 0
        self._scratch = store._incoming / f"{sha256[2:]}.{secrets.token_hex(8)}"
        self._file = self._scratch.open("xb")

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._store.max_bytes:
            raise self._store._too_large(self.sha256)
        self._digest.update(chunk)
        self._file.write(chunk)

    def check(self) -> None:
        """All bytes are on disk, and are what they should be. Raises Problem(blob_mismatch)."""
        found = "0x" + self._digest.hexdigest()
        if self._announced is not None and self.size != self._announced:
            raise Problem(
                400,
                Code.BLOB_MISMATCH,
                f"{self.size} bytes came of the {self._announced} that were announced; nothing was kept",
                "Send the file again.",
            )
        if found != self.sha256:
            raise Problem(
                400,
                Code.BLOB_MISMATCH,
                f"the bytes have the hash {found}, but were sent as {self.sha256}; nothing was kept",
                "Name the blob by the SHA-256 of its bytes, and don't change the file while it is sent.",
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def keep(self) -> None:
        """Give it its name, after `check`. Whatever has the name is replaced by the same bytes."""
        target = self._store.path(self.sha256)
        target.parent.mkdir(exist_ok=True)
        self._scratch.replace(target)
        _sync_folder(target.parent)

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._file.close()  # which writes what is left: on a full disk it can't
        finally:
            with suppress(FileNotFoundError):
                self._scratch.unlink()


class UnderWay:
    """Bytes that each account is sending to this process right now. Threads may share it."""

    def __init__(self) -> None:
        self._bytes: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, account: str, size: int) -> int:
        """Returns what the account is sending now, with this. Negative when something is over."""
        with self._lock:
            self._bytes[account] += size
            return self._bytes[account] or self._bytes.pop(account)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
