"""Bids that train a checkpoint of another's job again: who may post them, and what their providers may read."""

import time
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from sqlmodel import select

from contracts.api.bodies import AuditorIn, BidIn, JobOut, KeyGrantIn
from contracts.api.grants import make_grant, public_key
from contracts.api.problems import Code
from contracts.audits.replays import replay_spec
from contracts.job.early_stop import Stop
from contracts.job.sealing import new_job_key, seal
from contracts.orders import AuditorGrant, new_account
from contracts.types import ZERO_TIP
from market.maintenance import retention
from market.maintenance.retention import Keep
from market.store.models import BlobRow, LeaseRow, UploadRow
from tests.support.access import refused
from tests.support.live_lease import report_up_to
from tests.support.market_parts import (
    EVERY,
    RECIPE,
    STATE,
    file_ref,
    make_bid,
    make_lease,
    make_record,
    make_spec,
    sha256,
    signed_bid,
    signed_progress,
    upload,
)
from tests.support.offline_market import DOMAIN, RULES, World

NOW_OR_NEVER = Keep(unused=0, files=0, checkpoints=0, result=0)


@pytest.fixture
def approver(world: World) -> LocalAccount:
    """Of `lease`, with money."""
    key = new_account()
    world.set_account(key.address, free=100_000_000)
    return key


@pytest.fixture
def lease(world: World, approver: LocalAccount) -> LeaseRow:
    return world.lease(bid=world.bid(approver=approver.address))


def replay(
    world: World, key: LocalAccount, index: int = 1, tip: str = ZERO_TIP, spec: Any = None, **changes: Any
) -> BidIn:
    spec = replay_spec(spec or world.spec, index, changes.pop("providers", [world.provider.address]))
    bid = make_bid(key, world.context.matcher, RULES, spec, start_tip=tip, **changes)
    return signed_bid(bid, DOMAIN, key, spec)


def name_auditor(world: World, job: str, key: LocalAccount, seconds: int = 60) -> None:
    grant = AuditorGrant(job=job, auditor=key.address, valid_until=int(time.time()) + seconds)
    world.api.name_auditor(AuditorIn(grant=grant, signature=grant.sign(DOMAIN, world.client)))


def test_approver_auditor_and_client_may_replay_and_nobody_else(
    world: World, lease: LeaseRow, approver: LocalAccount
) -> None:
    auditor, stranger = new_account(), world.stranger
    for key in (auditor, stranger):
        world.set_account(key.address, free=100_000_000)
    (one, two, _) = report_up_to(world, lease, 3)
    name_auditor(world, lease.bid, auditor)
    for key in (approver, auditor, world.client):
        for index, tip in ((1, ZERO_TIP), (2, one.tip), (3, two.tip)):
            posted = world.api.post_bid(replay(world, key, index, tip, nonce=10 + index))
            assert (posted.bid.start_tip, posted.spec.start_step) == (tip, (index - 1) * EVERY or None)
    first = world.refuses(lambda: world.api.post_bid(replay(world, stranger)), 422, Code.BLOB_MISSING)
    assert "1 of the job's 1 files" in first.message
    second = world.refuses(lambda: world.api.post_bid(replay(world, stranger, 2, one.tip)), 422, Code.JOB_MISMATCH)
    assert one.tip in second.message and "approves or audits" in second.message
    wrong_step = replay(world, approver, 3, one.tip, nonce=20)
    world.refuses(lambda: world.api.post_bid(wrong_step), 422, Code.JOB_MISMATCH)


def test_a_grant_that_is_over_opens_nothing(world: World, lease: LeaseRow, monkeypatch: pytest.MonkeyPatch) -> None:
    auditor = new_account()
    world.set_account(auditor.address, free=100_000_000)
    (one,) = report_up_to(world, lease, 1)
    name_auditor(world, lease.bid, auditor)
    later = int(time.time()) + 61
    monkeypatch.setattr(world.context, "now", lambda: later)
    world.refuses(lambda: world.api.post_bid(replay(world, auditor)), 422, Code.BLOB_MISSING)
    world.refuses(lambda: world.api.post_bid(replay(world, auditor, 2, one.tip)), 422, Code.JOB_MISMATCH)


def test_the_first_checkpoint_of_a_job_that_goes_on_from_one_with_another_approver(
    world: World, lease: LeaseRow
) -> None:
    (one,) = report_up_to(world, lease, 1)
    other = new_account()
    world.set_account(other.address, free=100_000_000)
    spec = make_spec(start_step=EVERY)
    world.api.post_bid(world.bid(nonce=1, start_tip=one.tip, spec=spec, approver=other.address))
    assert world.api.post_bid(replay(world, other, 1, one.tip, spec)).spec.start_step == EVERY
    # That opens nothing else of the earlier job, which is another's to approve.
    two = report_up_to(world, world.lease(bid=world.bid(nonce=3), price=3), 2)[-1]
    deeper = replay(world, other, 3, two.tip, nonce=1)
    world.refuses(lambda: world.api.post_bid(deeper), 422, Code.JOB_MISMATCH)


def test_files_are_those_of_the_job_and_no_others(world: World, lease: LeaseRow, approver: LocalAccount) -> None:
    upload(world.context, world.client.address, b"another file")
    spec = make_spec(files={"recipe.py": file_ref(RECIPE), "more.bin": file_ref(b"another file")})
    world.refuses(lambda: world.api.post_bid(replay(world, approver, spec=spec)), 422, Code.BLOB_MISSING)
    world.context.blobs.drop(sha256(RECIPE))
    world.refuses(lambda: world.api.post_bid(replay(world, approver)), 422, Code.BLOB_MISSING)


def test_its_provider_reads_files_and_the_state_before_and_no_other(
    world: World, lease: LeaseRow, approver: LocalAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    auditor, states = new_account(), [b"one", b"two", b"three"]
    tip = lease.tip
    tips = []
    for index, state in enumerate(states, start=1):
        upload(world.context, world.provider.address, state)
        record = make_record(lease.job, index, tip, state)
        world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))
        tip = record.tip
        tips.append(tip)
    body = replay(world, approver, 3, tips[1], providers=[auditor.address])
    job = world.api.post_bid(body)
    mine = make_lease(body.bid, DOMAIN, auditor.address)
    with world.context.db.session() as session:
        session.add(mine)
    api, copy = world.api_of(auditor), world.context.blobs.folder.parent / "copy"
    for data in (RECIPE, b"two"):
        assert api.get_blob(file_ref(data), copy, job=job.id).read_bytes() == data
    for data in (b"one", b"three"):  # that which it is to make is shown to it last of all
        assert refused(lambda data=data: api.get_blob(file_ref(data), copy, job=job.id)) == (404, Code.NOT_FOUND)
    assert refused(lambda: api.get_blob(file_ref(b"two"), copy, job=lease.bid)) == (403, Code.NOT_A_READER)
    # While it lives, what it needs is kept, whatever became of the job.
    world.update_lease(lease.id, finished="completed", accepted=3, settled=3)
    now = time.time() + 10_000_000
    with world.context.db.reading() as session:
        gone = retention.unneeded(session, NOW_OR_NEVER, now)
    assert {sha256(data) for data in (b"one", b"three")} <= gone
    assert not {sha256(data) for data in (RECIPE, b"two")} & gone


def test_who_has_not_sent_the_bytes_must_send_them_and_they_lie_here_once(world: World, lease: LeaseRow) -> None:
    """What is here already is no shortcut: an auditor's pay needs that it has the bytes."""
    upload(world.context, world.provider.address, STATE)
    auditor, ref = new_account(), file_ref(STATE)
    world.set_account(auditor.address, free=1)
    sent: list[str] = []
    http, api = world.api._http, world.api_of(auditor)
    put = http.put

    def counted(*args: Any, **kwargs: Any) -> Any:
        sent.append(args[0])
        return put(*args, **kwargs)

    http.put = counted  # type: ignore[method-assign]
    source = world.context.blobs.folder.parent / "state"
    source.write_bytes(STATE)
    rows = world.count(BlobRow)
    assert not api.has_blob(ref.sha256) and api.put_blob(source) == ref
    assert sent == [f"/v1/blobs/{ref.sha256}"]
    assert api.has_blob(ref.sha256) and api.put_blob(source) == ref and len(sent) == 1
    with world.context.db.reading() as session:
        who = session.exec(select(UploadRow.account).where(UploadRow.sha256 == ref.sha256)).all()
    assert set(who) == {world.provider.address, auditor.address}
    assert world.count(BlobRow) == rows
    assert [sha256 for sha256, _ in world.context.blobs.all()].count(ref.sha256) == 1


def test_a_sealed_job_is_replayed_by_those_whom_its_client_lets(world: World, approver: LocalAccount) -> None:
    job_key, own = new_job_key(), PrivateKey.generate()
    sealed = b"".join(seal([RECIPE], job_key))
    upload(world.context, world.client.address, sealed)
    files = {sha256(RECIPE): file_ref(sealed)}

    def key_for(body: BidIn, reader: str, signer: LocalAccount) -> KeyGrantIn:
        return make_grant(DOMAIN, signer, body.bid.digest(DOMAIN), reader, public_key(own), job_key)

    spec = make_spec(sealed=True)
    body = world.bid(spec=spec, approver=approver.address)
    grants = [key_for(body, approver.address, world.client)]
    job = world.api.post_bid(body.model_copy(update={"sealed_files": files, "grants": grants}))

    def post(nonce: int, providers: list[str]) -> JobOut:
        again = replay(world, approver, spec=spec, nonce=nonce, providers=providers)
        grants = [key_for(again, approver.address, approver)]
        return world.api.post_bid(again.model_copy(update={"sealed_files": files, "grants": grants}))

    told = world.refuses(lambda: post(0, [world.provider.address]), 422, Code.JOB_MISMATCH)
    assert f"{world.provider.address} has no key to it from its client" in told.message
    assert "gpumarket replay" in str(told.hint)
    assert "names no providers" in world.refuses(lambda: post(0, []), 422, Code.JOB_MISMATCH).message
    # Not the approver's word, but the client's.
    world.api.post_grant(key_for(body, world.provider.address, approver))
    world.refuses(lambda: post(0, [world.provider.address]), 422, Code.JOB_MISMATCH)
    world.api.post_grant(key_for(body, world.provider.address, world.client))
    assert post(0, [world.provider.address]).spec.sealed
    world.refuses(lambda: post(1, [world.provider.address, world.stranger.address]), 422, Code.JOB_MISMATCH)
    # Nor is it replayed unsealed, by who has opened its files.
    lease = make_lease(job.bid, DOMAIN, world.provider.address)
    with world.context.db.session() as session:
        session.add(lease)
    state = b"".join(seal([STATE], job_key))
    upload(world.context, world.provider.address, state)
    record = make_record(lease.job, 1, lease.tip, STATE, sealed=file_ref(state))
    world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))
    upload(world.context, approver.address, RECIPE)
    opened = replay(world, approver, 2, record.tip, make_spec(), nonce=2)
    assert "is sealed" in world.refuses(lambda: world.api.post_bid(opened), 422, Code.JOB_MISMATCH).message


def test_what_a_replay_leaves_out() -> None:
    spec = make_spec(deadline="2040-01-01T00:00:00Z", stop=Stop(metric="loss", patience=1), start="recipe.py")
    made = replay_spec(spec, 2, ["0x00000000000000000000000000000000000000AA"], ["0x" + "11" * 32])
    assert (made.steps, made.start_step, made.deadline, made.stop, made.start) == (EVERY, EVERY, None, None, None)
    assert replay_spec(spec, 1, []).start == "recipe.py"  # weights are for a fresh start
    assert made.files_hash() == spec.files_hash() and made.seed == spec.seed and made.config == spec.config
    assert replay_spec(spec, 1, []).start_step is None
    for index in (0, spec.checkpoints + 1):
        with pytest.raises(ValueError, match=f"checkpoint {index} of a job"):
            replay_spec(spec, index, [])
