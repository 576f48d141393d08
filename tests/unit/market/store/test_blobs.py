"""Blobs are kept whole and under the right name, or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.api.problems import Problem
from contracts.job.spec import FileRef
from market.store.blobs import BlobStore
from tests.support.market_parts import sha256

DATA = b"some bytes" * 100


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path, max_bytes=10_000)


def files(store: BlobStore) -> list[Path]:
    return [path for path in store.folder.rglob("*") if path.is_file()]


def test_put_and_find(store: BlobStore) -> None:
    name = sha256(DATA)
    assert store.put(name, [DATA[:5], DATA[5:]]) == len(DATA)
    assert store.path(name).read_bytes() == DATA
    assert store.has(FileRef(sha256=name, size=len(DATA)))
    assert not store.has(FileRef(sha256=name, size=len(DATA) + 1))
    assert store.put(name, [DATA]) == len(DATA)
    assert files(store) == [store.path(name)]


def test_the_empty_blob(store: BlobStore) -> None:
    assert store.put(sha256(b""), []) == 0
    assert store.size(sha256(b"")) == 0


def test_other_bytes_are_not_kept(store: BlobStore) -> None:
    with pytest.raises(Problem, match=sha256(b"evil")) as caught:
        store.put(sha256(DATA), [b"evil"])
    assert caught.value.code == "blob_mismatch"
    assert files(store) == []


def test_too_large_is_refused_before_it_is_read_on(store: BlobStore) -> None:
    seen = 0

    def endless() -> Iterator[bytes]:
        nonlocal seen
        while True:
            seen += 1000
            yield bytes(1000)

    with pytest.raises(Problem) as caught:
        store.put(sha256(DATA), endless())
    assert caught.value.code == "blob_too_large"
    assert seen == 11_000
    with pytest.raises(Problem):
        store.incoming(sha256(DATA), 10_001)
    assert files(store) == []


def test_an_announced_size_binds(store: BlobStore) -> None:
    with pytest.raises(Problem) as caught, store.incoming(sha256(DATA), len(DATA) + 1) as blob:
        blob.write(DATA)
        blob.check()
    assert caught.value.code == "blob_mismatch"
    assert files(store) == []


def test_an_upload_that_breaks_off_leaves_nothing(store: BlobStore) -> None:
    with pytest.raises(ConnectionError), store.incoming(sha256(DATA), None) as blob:
        blob.write(DATA)
        raise ConnectionError
    assert files(store) == []


def test_what_a_killed_market_left_is_cleared(store: BlobStore) -> None:
    store.incoming(sha256(DATA), None).write(DATA)
    assert len(files(store)) == 1
    store.clear_incoming(0)
    assert files(store) == []
