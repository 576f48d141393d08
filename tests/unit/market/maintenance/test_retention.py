"""Which blobs are kept and until when, and that no upload or order is lost to the collection."""

import math
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import Session, delete, select, update

from contracts.api.problems import Code
from contracts.terms import Phase
from market.maintenance import retention
from market.maintenance.retention import MARGIN_SECONDS, JobBlobs, Keep, kept_until
from market.services import bids
from market.services.access import DAY
from market.store.apply import apply
from market.store.models import BlobRow, ChainEvent, LeaseRow, UploadRow
from tests.support.market_parts import RECIPE, STATE, make_record, make_spec, sha256, signed_progress, upload
from tests.support.offline_market import DOMAIN, RULES, World

KEEP = Keep(unused=10, files=100, checkpoints=20, result=50)


# ------------------------------------------------------------------ the decision


def test_a_blob_is_kept_for_the_longest_of_its_reasons() -> None:
    stored = {"unused": 1000.0, "file": 0.0, "state": 0.0, "result": 0.0, "fresh": 2000.0}
    over = JobBlobs(over=500.0, files={"file"}, states={"state", "result", "fresh"}, result={"result"})
    assert kept_until(stored, [over], KEEP) == {
        "unused": 1010, "file": 600, "state": 520, "result": 550, "fresh": 2010,
    }  # fmt: skip


def test_nothing_of_a_job_that_may_go_on_is_dropped() -> None:
    over = JobBlobs(over=0.0, files={"shared"}, states={"s"})
    goes_on = JobBlobs(over=None, files={"shared", "lost"}, states={"now"})
    for jobs in ([over, goes_on], [goes_on, over]):
        until = kept_until({"shared": 0.0}, jobs, KEEP)
        assert until == {"shared": math.inf, "lost": math.inf, "now": math.inf, "s": 20}


# ------------------------------------------------------------------ what the database says


def there(world: World, *contents: bytes) -> list[bytes]:
    """Those that are still here, on disk as in the database."""
    found = [data for data in contents if world.context.blobs.size(sha256(data)) is not None]
    with world.context.db.reading() as session:
        assert found == [data for data in contents if session.get(BlobRow, sha256(data))]
    return found


def later(world: World, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = int(time.time() + seconds)
    monkeypatch.setattr(world.context, "now", lambda: now)


def age(world: World, seconds: float) -> None:
    """As if all uploads had been long ago."""
    then = datetime.now(UTC) - timedelta(seconds=seconds)
    with world.context.db.session() as session:
        session.exec(update(BlobRow).values(created=then))
        session.exec(update(UploadRow).values(received=then))


def finish(world: World, lease: LeaseRow, **changes: Any) -> None:
    """As the indexer stores it when a lease is over."""
    world.update_lease(lease.id, finished="completed", status=Phase.CLOSED.value, **changes)
    with world.context.db.session() as session:
        session.add(
            ChainEvent(
                block_hash=lease.id,
                log_index=0,
                block_number=2,
                tx_hash=lease.id,
                name="Completed",
                lease=lease.id,
                data={},
                timestamp=int(time.time()),
            )
        )


def test_what_goes_when(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = world.lease()
    with world.context.db.session() as session:
        world.context.accept(session, "rules", world.context.rules_by_hash[RULES.struct_hash()])
    states, tip = [b"first", b"second", b"third"], lease.tip
    for index, state in enumerate(states, start=1):
        upload(world.context, world.provider.address, state)
        record = make_record(lease.job, index, tip, state)
        tip = record.tip
        world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))
    upload(world.context, world.stranger.address, b"never named")
    everything = [RECIPE, *states, b"never named", STATE]  # STATE is an upload that no claim names
    world.context.rules_by_hash.clear()
    assert retention.collect(world.context) == []
    later(world, 2 * DAY, monkeypatch)
    assert set(retention.collect(world.context)) == {sha256(b"never named"), sha256(STATE)}
    # A lease that is not over may last for years.
    later(world, 1000 * DAY, monkeypatch)
    assert retention.collect(world.context) == []
    assert there(world, *everything) == [RECIPE, *states]
    finish(world, lease, accepted=2, end=2, continuable=False)  # the client ended it after the second one
    settled = 4 + 30 + MARGIN_SECONDS  # window and arbiter's timeout of RULES
    for days, left in ((7, [RECIPE, *states]), (30, [RECIPE, b"second"])):
        later(world, days * DAY + settled - 60, monkeypatch)
        retention.collect(world.context)
        assert there(world, *everything) == left
    later(world, 30 * DAY + settled + 60, monkeypatch)
    retention.collect(world.context)
    assert there(world, *everything) == []
    # The record of it stays.
    assert [row.checkpoint.index for row in world.api.checkpoints(lease.bid)] == [1, 2, 3]
    with world.context.db.reading() as session:
        assert retention.needed_blobs(session, Keep.of(world.context.settings)) == {
            sha256(d) for d in (RECIPE, *states)
        }
    assert_journal_agrees(world)


def test_a_state_whose_claim_was_replaced_is_kept_while_its_lease_lasts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the approver's word on it may come."""
    lease = world.lease()
    for state in (b"first", b"second"):
        upload(world.context, world.provider.address, state)
        record = make_record(lease.job, 1, lease.tip, state, state_root=sha256(state))
        world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))
    later(world, 2 * DAY, monkeypatch)
    retention.collect(world.context)
    assert there(world, b"first", b"second") == [b"first", b"second"]
    finish(world, lease, accepted=1, continuable=True)  # the job waits for another one
    retention.collect(world.context)
    assert there(world, b"first", b"second") == [b"second"]
    assert_journal_agrees(world)


def assert_journal_agrees(world: World) -> None:
    """Uploads made anew from the messages are those that the database has."""

    def uploads(session: Session) -> set[tuple[str, str]]:
        return {(row.sha256, row.account) for row in session.exec(select(UploadRow))}

    with world.context.db.session() as session:
        before = uploads(session)
        session.exec(delete(UploadRow))
        for message in world.context.journal.read():
            if message.kind in ("upload", "collected"):
                apply(session, DOMAIN, message)
        assert uploads(session) == before


def test_a_follow_up_job_keeps_the_state_it_starts_from(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = world.lease()
    record = make_record(lease.job, 1, lease.tip, STATE)
    world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))
    finish(world, lease, accepted=1, end=1, continuable=False)
    world.api.post_bid(world.bid(nonce=1, start_tip=record.tip, spec=make_spec(start_step=10)))
    later(world, 1000 * DAY, monkeypatch)
    assert retention.collect(world.context) == []
    assert there(world, STATE, RECIPE) == [STATE, RECIPE]


def test_a_file_that_is_not_listed_is_an_upload_like_others(world: World) -> None:
    """The market was killed between naming the file and storing its row."""
    world.context.blobs.put(sha256(b"stray"), [b"stray"])
    assert retention.collect(world.context) == []
    assert there(world, b"stray") == [b"stray"]
    age(world, 2 * DAY)
    assert sha256(b"stray") in retention.collect(world.context)
    assert there(world, b"stray") == []


# ------------------------------------------------------------------ races


@pytest.mark.parametrize("who", ["the client", "somebody else", "an order"])
def test_a_blob_that_is_used_again_just_then_stays(world: World, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """It is old and unused when the collection looks, and in use when it comes to remove it."""
    age(world, 2 * DAY)
    look = retention.unneeded
    looks = 0

    def look_and_be_late(*arguments: Any) -> set[str]:
        nonlocal looks
        looks += 1
        found = look(*arguments)
        if looks == 1:
            assert {sha256(RECIPE), sha256(STATE)} <= found
            if who == "an order":
                world.api.post_bid(world.bid())
            else:
                key = world.client if who == "the client" else world.stranger
                upload(world.context, key.address, RECIPE)
        return found

    monkeypatch.setattr(retention, "unneeded", look_and_be_late)
    assert retention.collect(world.context) == [sha256(STATE)]
    assert there(world, RECIPE, STATE) == [RECIPE]


def test_an_upload_while_the_file_is_being_removed_comes_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(world, 2 * DAY)
    uploads = threading.Thread(target=upload, args=(world.context, world.client.address, RECIPE))
    drop = world.context.blobs.drop

    def drop_slowly(sha: str) -> None:
        if sha == sha256(RECIPE):
            uploads.start()
            time.sleep(0.3)  # enough for the upload to get as far as it can
            assert uploads.is_alive()
        drop(sha)

    monkeypatch.setattr(world.context.blobs, "drop", drop_slowly)
    assert sha256(RECIPE) in retention.collect(world.context)
    uploads.join(10)
    assert there(world, RECIPE) == [RECIPE]
    assert world.api.post_bid(world.bid()).status == "pending"


def test_an_order_for_what_was_just_removed_is_refused(world: World) -> None:
    body = world.bid()
    age(world, 2 * DAY)
    check = bids._check_balance

    def collect_first(*arguments: Any) -> None:
        """The last of the checks before the order is stored."""
        check(*arguments)
        retention.collect(world.context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bids, "_check_balance", collect_first)
        problem = world.refuses(lambda: world.api.post_bid(body), 422, Code.BLOB_MISSING)
    assert problem.extra["missing"] == {"recipe.py": sha256(RECIPE)}
