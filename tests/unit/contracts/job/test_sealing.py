"""Sealed files open for those who were given the key, whole and unchanged, or not at all."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey

from contracts.job import sealing
from contracts.job.sealing import CHUNK, NotOpened

KEY = sealing.new_job_key()
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5]


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    out = []
    for size in sizes:
        out.append(data[:size])
        data = data[size:]
    return [*out, data]


@pytest.mark.parametrize("size", SIZES)
def test_files_come_back_and_their_sealed_size_is_known(tmp_path: Path, size: int) -> None:
    plain, sealed, opened = (tmp_path / name for name in ("plain", "sealed", "opened"))
    plain.write_bytes(random.Random(size).randbytes(size))
    sealing.seal_file(plain, sealed, KEY)
    assert sealed.stat().st_size == sealing.sealed_size(size)
    assert size < 16 or plain.read_bytes()[:16] not in sealed.read_bytes()
    sealing.open_file(sealed, opened, KEY)
    assert opened.read_bytes() == plain.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opened", "plain", "sealed"]


@given(st.binary(max_size=300), st.lists(st.integers(0, 90), max_size=5), st.lists(st.integers(0, 90), max_size=5))
def test_how_the_bytes_arrive_does_not_matter(data: bytes, first: list[int], second: list[int]) -> None:
    sealed = b"".join(sealing.seal(pieces(data, first), KEY))
    assert b"".join(sealing.open_sealed(pieces(sealed, second), KEY)) == data


def test_any_changed_or_missing_byte_is_noticed() -> None:
    sealed = b"".join(sealing.seal([b"weights" * 20_000], KEY))
    generator = random.Random(1)
    for _ in range(50):
        at = generator.randrange(len(sealed))
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        for wrong in (changed, sealed[:at], sealed + b"x"):
            with pytest.raises(NotOpened):
                list(sealing.open_sealed([wrong], KEY))
    # Whole chunks that are missing at the end, or swapped.
    start = len(sealing.MAGIC) + 24
    chunk = CHUNK + 17
    body = sealed[start:]
    for wrong in (body[:chunk], body[chunk:], body[chunk : 2 * chunk] + body[:chunk] + body[2 * chunk :]):
        with pytest.raises(NotOpened):
            list(sealing.open_sealed([sealed[:start] + wrong], KEY))


def test_a_file_that_does_not_open_leaves_nothing(tmp_path: Path) -> None:
    sealed, opened = tmp_path / "sealed", tmp_path / "opened"
    sealed.write_bytes(b"".join(sealing.seal([b"x" * 100_000], KEY))[:-1])
    with pytest.raises(NotOpened):
        sealing.open_file(sealed, opened, KEY)
    with pytest.raises(NotOpened):
        sealing.open_file(sealed, opened, sealing.new_job_key())
    assert [path.name for path in tmp_path.iterdir()] == ["sealed"]


def test_the_job_key_opens_for_its_reader_only() -> None:
    reader, other = PrivateKey.generate(), PrivateKey.generate()
    sealed = sealing.seal_key(KEY, bytes(reader.public_key))
    assert len(sealed) == 80 and sealing.open_key(sealed, reader) == KEY
    with pytest.raises(NotOpened, match="not sealed to this encryption key"):
        sealing.open_key(sealed, other)
    with pytest.raises(NotOpened):
        sealing.open_key(sealed[:-1], reader)
    with pytest.raises(NotOpened, match="has 5 bytes"):
        sealing.open_key(sealing.seal_key(b"short", bytes(reader.public_key)), reader)


def test_texts() -> None:
    text = "epoch 3\nloss 0.1 \u00fc"
    sealed = sealing.seal_text(text, KEY)
    assert sealing.is_sealed_text(sealed) and not sealing.is_sealed_text(text)
    assert sealing.open_text(sealed, KEY) == text
    for wrong in ("sealed:???", "sealed:", sealed[:-8]):
        with pytest.raises(NotOpened):
            sealing.open_text(wrong, KEY)
