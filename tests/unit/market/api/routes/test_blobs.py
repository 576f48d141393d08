"""Blobs over HTTP: there and back, or not at all."""

from pathlib import Path

import pytest

from contracts.api.access import Signer
from contracts.api.problems import Problem
from contracts.job.spec import FileRef
from market.store.models import BlobRow
from tests.support.market_parts import RECIPE, file_ref, make_spec, sha256
from tests.support.offline_market import DOMAIN, World

HASH = "0x" + "ab" * 32


def test_blobs_there_and_back(world: World, tmp_path: Path) -> None:
    source, api = tmp_path / "data", world.api_of(world.client)
    source.write_bytes(bytes(range(256)) * 300)
    before = world.count(BlobRow)
    ref = api.put_blob(source)
    assert api.has_blob(ref.sha256)
    assert api.put_blob(source) == ref
    assert world.count(BlobRow) == before + 1
    job = api.post_bid(world.bid(spec=make_spec(files={"recipe.py": ref}))).id
    assert api.get_blob(ref, tmp_path / "copy", job=job).read_bytes() == source.read_bytes()
    headers = {"range": "bytes=256-259"} | Signer(world.client, DOMAIN).reading(job)
    part = api._http.get(f"/v1/blobs/{ref.sha256}", headers=headers)
    assert (part.status_code, part.content) == (206, b"\0\1\2\3")


def test_a_blob_under_another_name(world: World) -> None:
    before = world.count(BlobRow)
    headers = Signer(world.client, DOMAIN).writing()
    response = world.api._http.put(f"/v1/blobs/{HASH}", content=RECIPE, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "blob_mismatch")
    assert not world.api_of(world.client).has_blob(HASH)
    assert world.count(BlobRow) == before
    assert not any(path.is_file() for path in (world.context.blobs.folder / "incoming").iterdir())


def test_a_blob_that_is_too_large(world: World) -> None:
    data, headers = bytes(100_001), Signer(world.client, DOMAIN).writing()
    for content in (data, iter([data])):  # announced, and found out on the way
        response = world.api._http.put(f"/v1/blobs/{sha256(data)}", content=content, headers=headers)
        assert (response.status_code, response.json()["code"]) == (413, "blob_too_large")
    assert not world.api_of(world.client).has_blob(sha256(data))


def test_a_market_that_lies_about_a_blob(world: World, tmp_path: Path) -> None:
    ref, job = file_ref(RECIPE), world.lease().bid
    world.context.blobs.path(ref.sha256).write_bytes(b"other bytes")
    with pytest.raises(Problem, match="not what its name says"):
        world.api_of(world.client).get_blob(FileRef(sha256=ref.sha256, size=11), tmp_path / "copy", job=job)
    assert list(tmp_path.glob("*copy*")) == []
