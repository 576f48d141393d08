"""Sealed jobs: files, checkpoints and logs that only those can read who were given the job's key.

One random 32-byte job key encrypts all of a job (XChaCha20-Poly1305 in chunks, libsodium's secretstream), so that a
reader needs one grant, whatever comes later. The job key is sealed to each reader's own X25519 key (libsodium's sealed
box). Hashes and roots are those of the plaintext: whoever opens a file checks it against the hash that was signed.
"""

import base64
import binascii
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from nacl import bindings as sodium
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from contracts.errors import UserError

MAGIC = b"gpumarket sealed 1\n"
CHUNK = 1 << 16  # bytes of plaintext; the last chunk may be shorter, and is marked as the last
_TAG = sodium.crypto_secretstream_xchacha20poly1305_ABYTES
_HEADER = sodium.crypto_secretstream_xchacha20poly1305_HEADERBYTES
_MESSAGE = sodium.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
_FINAL = sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL
_TEXT = "sealed:"


class NotOpened(UserError):
    """The key is another, or the bytes were changed, or some are missing."""


def new_job_key() -> bytes:
    return sodium.crypto_secretstream_xchacha20poly1305_keygen()


def seal_key(job_key: bytes, reader: bytes) -> bytes:
    """The job key for the holder of one X25519 key (32 bytes, public). Returns 80 bytes."""
    return SealedBox(PublicKey(reader)).encrypt(job_key)


def open_key(sealed: bytes, own: PrivateKey) -> bytes:
    """The job key that was sealed to `own`. Raises NotOpened."""
    try:
        job_key = SealedBox(own).decrypt(sealed)
    except (CryptoError, ValueError) as error:
        raise NotOpened("the job's key was not sealed to this encryption key", "ask for a new grant") from error
    if len(job_key) != sodium.crypto_secretstream_xchacha20poly1305_KEYBYTES:
        raise NotOpened(f"the sealed job key has {len(job_key)} bytes, not 32")
    return job_key


def seal(chunks: Iterable[bytes], job_key: bytes) -> Iterator[bytes]:
    """The sealed form of a file, piece by piece. `chunks` may have any lengths."""
    state = sodium.crypto_secretstream_xchacha20poly1305_state()
    yield MAGIC + sodium.crypto_secretstream_xchacha20poly1305_init_push(state, job_key)
    held = bytearray()
    for piece in chunks:
        held += piece
        while len(held) > CHUNK:
            yield _push(state, bytes(held[:CHUNK]), _MESSAGE)
            del held[:CHUNK]
    yield _push(state, bytes(held), _FINAL)


def _push(state: sodium.crypto_secretstream_xchacha20poly1305_state, plain: bytes, tag: int) -> bytes:
    return sodium.crypto_secretstream_xchacha20poly1305_push(state, plain, None, tag)


def open_sealed(chunks: Iterable[bytes], job_key: bytes) -> Iterator[bytes]:
    """The plaintext of a sealed file, piece by piece. Raises NotOpened, perhaps after the first pieces."""
    source = _Pieces(chunks)
    if source.read(len(MAGIC)) != MAGIC:
        raise NotOpened("this is no sealed file of gpumarket")
    state = sodium.crypto_secretstream_xchacha20poly1305_state()
    header = source.read(_HEADER)
    if len(header) < _HEADER:
        raise NotOpened("the sealed file ends in its header")
    sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, header, job_key)
    while True:
        piece = source.read(CHUNK + _TAG)
        if len(piece) < _TAG:
            raise NotOpened("the sealed file ends before its end", "fetch it again")
        try:
            plain, tag = sodium.crypto_secretstream_xchacha20poly1305_pull(state, piece, None)
        except (CryptoError, RuntimeError) as error:
            raise NotOpened("the sealed file does not open with this job's key, or was changed") from error
        yield plain
        if tag == _FINAL:
            break
    if source.read(1):
        raise NotOpened("bytes follow the end of the sealed file")


def sealed_size(size: int) -> int:
    """Bytes of the sealed form of a file of `size` bytes."""
    chunks = max(1, -(-size // CHUNK))
    return len(MAGIC) + _HEADER + size + chunks * _TAG


def seal_file(source: Path, target: Path, job_key: bytes) -> None:
    """`target` appears only when it is whole."""
    _write(target, seal(_read(source), job_key))


def open_file(source: Path, target: Path, job_key: bytes) -> None:
    """`target` appears only if all of it opened. Raises NotOpened."""
    _write(target, open_sealed(_read(source), job_key))


def seal_text(text: str, job_key: bytes) -> str:
    """A log as printable text that only readers of the job understand."""
    return _TEXT + base64.b64encode(b"".join(seal([text.encode()], job_key))).decode()


def is_sealed_text(text: str) -> bool:
    return text.startswith(_TEXT)


def open_text(text: str, job_key: bytes) -> str:
    """Raises NotOpened."""
    try:
        sealed = base64.b64decode(text.removeprefix(_TEXT), validate=True)
    except binascii.Error as error:
        raise NotOpened("the sealed text is not base64") from error
    return b"".join(open_sealed([sealed], job_key)).decode(errors="replace")


class _Pieces:
    """Reads exact lengths from chunks of any length."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._held = iter(chunks), bytearray()

    def read(self, count: int) -> bytes:
        """`count` bytes, or fewer at the end."""
        while len(self._held) < count:
            piece = next(self._chunks, None)
            if piece is None:
                break
            self._held += piece
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(16 * CHUNK):
            yield chunk


def _write(target: Path, chunks: Iterable[bytes]) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
