"""How much an account may upload: its quota, however the bytes come."""

from dataclasses import replace
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount

from contracts.api.problems import Code, Problem
from market.services import blobs
from market.store.blobs import UnderWay
from market.store.models import UploadRow
from tests.support.access import code, header
from tests.support.market_parts import (
    RECIPE,
    STATE,
    file_ref,
    make_record,
    sha256,
    signed_progress,
    upload,
)
from tests.support.offline_market import DOMAIN, World


def test_the_quota(world: World) -> None:
    """Reported checkpoints are on top; everything else that an account has brought counts, while it is here."""
    world.context.settings = world.context.settings.model_copy(update={"quota_bytes": 1000})

    def put(key: LocalAccount, data: bytes, announced: bool = True) -> Any:
        content: Any = data if announced else iter([data])
        return world.api._http.put(f"/v1/blobs/{sha256(data)}", content=content, headers=header(key, "write"))

    assert put(world.client, bytes(900)).status_code == 201
    assert put(world.client, bytes(900)).status_code == 201  # the same
    for announced in (True, False):
        over = put(world.client, b"1" * 101, announced)
        assert code(over) == (413, "quota_exceeded")
        assert over.json()["stored_bytes"] == 900 + len(RECIPE)
    assert world.context.blobs.size(sha256(b"1" * 101)) is None
    assert put(world.provider, b"2" * 900).status_code == 201  # each has its own
    assert code(put(world.provider, b"3" * 900)) == (413, "quota_exceeded")
    lease = world.lease()
    world.api.post_progress(
        signed_progress(lease.id, make_record(lease.job, 1, lease.tip, b"2" * 900), DOMAIN, world.provider)
    )
    assert put(world.provider, b"3" * 900).status_code == 201


def test_the_quota_holds_while_bytes_come(world: World) -> None:
    """Nobody can fill the disk with what is refused in the end: neither without a length, nor by many at a time."""
    context, account = world.context, world.client.address
    context.settings = context.settings.model_copy(update={"quota_bytes": 1000 + len(RECIPE)})

    def begin(data: bytes, announced: int | None = None) -> blobs.Upload:
        return blobs.Upload(context, account, sha256(data), announced)

    sent = 0
    with begin(b"no length") as endless, pytest.raises(Problem) as caught:
        while sent < 30_000:
            sent += 300
            endless.write(bytes(300))
    assert (caught.value.code, caught.value.extra["stored_bytes"]) == (Code.QUOTA_EXCEEDED, len(RECIPE))
    assert sent == 1200 and not list((context.blobs.folder / "incoming").iterdir())
    with begin(bytes(600), 600) as first:
        with pytest.raises(Problem, match="the 1001 that it is sending"):
            begin(b"1" * 401, 401)
        with begin(b"2" * 400, 400) as second:
            second.write(b"2" * 400)
            with pytest.raises(Problem):  # more than it announced
                second.write(b"2")
        first.write(bytes(600))
        assert first.finish() == file_ref(bytes(600))
    with begin(b"1" * 400, 400) as third:  # what was refused or broke off counts no more
        third.write(b"1" * 400)
        third.finish()
    with pytest.raises(Problem, match="the 1 that it is sending"):
        begin(b"3", 1)
    assert context.under_way.add(account, 0) == 0


def test_two_processes_keep_the_quota_together(world: World) -> None:
    """Each counts what is sent to it alone; who is done first is within the quota."""
    context, other = world.context, replace(world.context, under_way=UnderWay())
    context.settings = other.settings = context.settings.model_copy(update={"quota_bytes": 1000})
    late = blobs.Upload(other, world.client.address, sha256(bytes(600)), 600)
    with blobs.Upload(context, world.client.address, sha256(b"1" * 600), 600) as first:
        first.write(b"1" * 600)
        first.finish()
    with late, pytest.raises(Problem) as caught:
        late.write(bytes(600))
        late.finish()
    assert caught.value.code == Code.QUOTA_EXCEEDED
    assert context.blobs.size(sha256(bytes(600))) is None


def test_uploads_are_remembered_by_account(world: World) -> None:
    before = world.count(UploadRow)
    upload(world.context, world.stranger.address, STATE)
    assert world.count(UploadRow) == before + 1
