"""Who may read a job's blobs and logs, and who may upload."""

import time
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount

from contracts.api.bodies import AuditorIn
from contracts.api.problems import Code
from contracts.job.spec import FileRef
from contracts.orders import AuditorGrant, new_account
from contracts.terms import Phase
from market.store.models import AuditorRow, ChainEvent, CheckpointRow, LeaseRow
from tests.support.access import code, header, refused
from tests.support.market_parts import (
    RECIPE,
    file_ref,
    make_bid,
    make_lease,
    make_record,
    make_spec,
    sha256,
    signed_bid,
    signed_progress,
    signed_report,
    upload,
)
from tests.support.offline_market import DOMAIN, RULES, World

HASH = "0x" + "ab" * 32


def end(world: World, lease: LeaseRow, seconds_ago: float = 0) -> None:
    """As the indexer stores it when a lease is closed."""
    world.update_lease(lease.id, finished="closed", continuable=True, status=Phase.CLOSED.value)
    with world.context.db.session() as session:
        session.add(
            ChainEvent(
                block_hash=lease.id,
                log_index=0,
                block_number=2,
                tx_hash=HASH,
                name="Closed",
                lease=lease.id,
                data={},
                timestamp=int(time.time() - seconds_ago),
            )
        )


def report(world: World, lease: LeaseRow, key: LocalAccount, n: int, before: str, state: bytes) -> str:
    """A checkpoint of a lease. Returns its tip."""
    upload(world.context, key.address, state)
    record = make_record(lease.job, n, before, state)
    world.api.post_progress(signed_progress(lease.id, record, DOMAIN, key))
    return record.tip


# ------------------------------------------------------------------ reading


def reads(world: World, key: LocalAccount, job: str, data: bytes = RECIPE) -> list[str | None]:
    """Reads a blob of a job as somebody. Returns the texts of the reports that this one sees."""
    api = world.api_of(key)
    path = world.context.blobs.folder.parent / "copy"
    assert api.get_blob(file_ref(data), path, job=job).read_bytes() == data
    return [out.text for out in api.reports(job)]


def test_who_may_read(world: World) -> None:
    approver, arbiter = new_account(), new_account()
    lease = world.lease(bid=world.bid(approver=approver.address))
    offered = world.context.rules_by_hash[lease.rules]
    rules = offered.rules.model_copy(update={"arbiter": arbiter.address})
    world.context.rules_by_hash[lease.rules] = offered.model_copy(update={"rules": rules})
    now = int(time.time())
    world.api.post_report(signed_report(lease.id, 1, "failed", "secret words", now, DOMAIN, world.provider))
    for key in (world.client, world.provider, approver, arbiter):
        assert reads(world, key, lease.bid) == ["secret words"]
    assert refused(lambda: reads(world, world.stranger, lease.bid)) == (403, Code.NOT_A_READER)
    assert refused(lambda: list(world.api_of(world.stranger).reports(lease.bid))) == (403, Code.NOT_A_READER)
    # In public there is that it failed, and not more.
    public = world.api._http.get("/v1/reports").json()["items"]
    assert [(item["report"]["kind"], item["text"]) for item in public] == [("failed", None)]
    assert world.api.job(lease.bid).failures == 1
    assert refused(lambda: reads(world, world.client, HASH)) == (404, Code.NOT_FOUND)


def test_auditors(world: World) -> None:
    lease, auditor = world.lease(), new_account()
    now = int(time.time())

    def name(valid_until: int, key: LocalAccount, job: str = lease.bid, to: str = lease.bid) -> Any:
        grant = AuditorGrant(job=job, auditor=auditor.address, valid_until=valid_until)
        body = AuditorIn(grant=grant, signature=grant.sign(DOMAIN, key))
        return world.api._http.post(f"/v1/jobs/{to}/auditors", json=body.model_dump(mode="json", by_alias=True))

    assert refused(lambda: reads(world, auditor, lease.bid)) == (403, Code.NOT_A_READER)
    assert code(name(now + 60, auditor)) == (422, "signature_invalid")
    assert code(name(now - 60, world.client)) == (422, "order_expired")
    assert code(name(now + 60, world.client, to=HASH)) == (404, "not_found")
    assert code(name(now + 60, world.client, job=HASH)) == (422, "job_mismatch")
    assert world.count(AuditorRow) == 0
    assert name(now + 1000, world.client).json()["valid_until"] == now + 1000
    assert name(now + 60, world.client).json()["valid_until"] == now + 1000  # the longer one stays
    assert reads(world, auditor, lease.bid) == []
    with world.context.db.session() as session:
        row = session.get_one(AuditorRow, (lease.bid, auditor.address))
        assert row.valid_until == now + 1000
        row.valid_until = now - 1
        session.add(row)
    assert refused(lambda: reads(world, auditor, lease.bid)) == (403, Code.NOT_A_READER)


def test_a_provider_of_the_past_reads_its_own_part(world: World) -> None:
    """Three providers after each other, a checkpoint each. The second one reads what it had, and what it made."""
    body = world.bid()
    people = [world.provider, new_account(), new_account()]
    tip = None
    leases = []
    for index, key in enumerate(people):
        changes: dict[str, Any] = {"start": index, "price": 1_000_000 + index}
        if tip:
            changes |= {"start_tip": tip}
        lease = make_lease(body.bid, DOMAIN, key.address, **changes)
        world.api.post_bid(body)
        with world.context.db.session() as session:
            session.add(lease)
        tip = report(world, lease, key, index + 1, lease.start_tip, b"state %d" % index)
        world.api.post_report(signed_report(lease.id, index + 1, "log", f"log {index}", int(time.time()), DOMAIN, key))
        leases.append(lease)
        if index < 2:
            end(world, lease, seconds_ago=3600)
    job, second = leases[0].bid, people[1]
    assert reads(world, second, job) == ["log 1"]
    assert reads(world, second, job, b"state 0") == reads(world, second, job, b"state 1") == ["log 1"]
    assert refused(lambda: reads(world, second, job, b"state 2")) == (404, Code.NOT_FOUND)
    assert reads(world, people[2], job, b"state 0") == ["log 2"]
    assert reads(world, world.client, job, b"state 2") == ["log 0", "log 1", "log 2"]
    # And not for ever.
    world.update_lease(leases[1].id, finished="closed")
    with world.context.db.session() as session:
        event = session.get_one(ChainEvent, (leases[1].id, 0))
        event.timestamp -= 31 * 86_400
        session.add(event)
    assert refused(lambda: reads(world, second, job)) == (403, Code.NOT_A_READER)


def test_a_name_is_no_key(world: World) -> None:
    """Hashes of files and states are public. Who names another's blob in an order or a claim does not get to it."""
    lease = world.lease()
    report(world, lease, world.provider, 1, lease.tip, b"the weights")
    thief = world.stranger
    world.set_account(thief.address, free=100_000_000)
    assert refused(lambda: reads(world, world.client, lease.bid, b"elsewhere")) == (404, Code.NOT_FOUND)

    def bid_of(thief_spec: Any, **changes: Any) -> Any:
        bid = make_bid(thief, world.context.matcher, RULES, thief_spec, **changes)
        return world.api.post_bid(signed_bid(bid, DOMAIN, thief, thief_spec))

    stolen = make_spec(files={"recipe.py": file_ref(b"the weights")})
    assert refused(lambda: bid_of(stolen)) == (422, Code.BLOB_MISSING)
    # With an address the file is not looked for here; nor is it given out then.
    ref = FileRef(sha256=sha256(b"the weights"), size=11, url="https://example.org/weights")
    recipe = b"class Mine: ..."
    upload(world.context, thief.address, recipe)
    elsewhere = make_spec(files={"recipe.py": file_ref(recipe), "weights": ref})
    assert refused(lambda: reads(world, thief, bid_of(elsewhere).id, b"the weights")) == (404, Code.NOT_FOUND)
    # Nor does a startTip open another client's job.
    tip = world.api._http.get(f"/v1/jobs/{lease.bid}/checkpoints").json()["items"][0]["claim"]["tip"]
    after = make_spec(files={"recipe.py": file_ref(recipe)}, start_step=10)
    assert refused(lambda: bid_of(after, start_tip=tip, nonce=1))[0] == 422
    # Nor does a claim of one's own, for a job of one's own.
    own = bid_of(make_spec(files={"recipe.py": file_ref(recipe)}, seed=2), nonce=1)
    mine = make_lease(own.bid, DOMAIN, thief.address)
    with world.context.db.session() as session:
        session.add(mine)
    record = make_record(mine.job, 1, mine.tip, b"the weights")
    claim = signed_progress(mine.id, record, DOMAIN, thief)
    assert refused(lambda: world.api.post_progress(claim)) == (422, Code.BLOB_MISSING)
    assert world.count(CheckpointRow) == 1


def test_a_job_that_goes_on_from_an_earlier_one_shares_its_last_state(world: World) -> None:
    lease, other = world.lease(), new_account()
    tip = report(world, lease, world.provider, 1, lease.tip, b"start here")
    report(world, lease, world.provider, 2, tip, b"not this")
    world.update_lease(lease.id, accepted=1)
    next_lease = world.lease(bid=world.bid(nonce=1, start_tip=tip, spec=make_spec(start_step=10)), start_tip=tip)
    world.update_lease(next_lease.id, provider=other.address)
    assert reads(world, other, next_lease.bid, b"start here") == []
    assert refused(lambda: reads(world, other, next_lease.bid, b"not this")) == (404, Code.NOT_FOUND)


# ------------------------------------------------------------------ writing


def test_who_may_upload(world: World, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.write_bytes(b"some bytes")
    url = f"/v1/blobs/{sha256(b'some bytes')}"
    approver, poor = new_account(), new_account()
    assert code(world.api._http.put(url, content=b"some bytes")) == (401, "access_token_missing")
    wrong = header(world.client, "read", HASH)
    assert code(world.api._http.put(url, content=b"some bytes", headers=wrong)) == (401, "access_token_invalid")
    assert world.api._http.head(url).status_code == 401
    assert refused(lambda: world.api_of(poor).put_blob(source)) == (403, Code.NOT_A_WRITER)
    assert world.api_of(world.client).put_blob(source).size == 10
    # Whether it is here is told to those only who have brought it.
    assert world.api_of(world.client).has_blob(sha256(b"some bytes"))
    assert not world.api_of(world.provider).has_blob(sha256(b"some bytes"))
    # What is locked in a lease counts as well, and the approver's part in one.
    lease = world.lease(bid=world.bid(approver=approver.address))
    for key in (world.client, world.provider):
        world.set_account(key.address)
    for key in (world.client, world.provider, approver):
        world.api_of(key).put_blob(source)
    end(world, lease)
    source.write_bytes(b"other bytes")
    for key in (world.client, world.provider, approver):
        assert refused(lambda: world.api_of(key).put_blob(source)) == (403, Code.NOT_A_WRITER)  # noqa: B023
    # A deposit counts at once, with the same token.
    late = world.api_of(poor)
    assert refused(lambda: late.put_blob(source)) == (403, Code.NOT_A_WRITER)
    world.chain.words[poor.address] = world.chain.account(poor.address)._replace(free=1)
    late.put_blob(source)
