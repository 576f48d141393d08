"""Sealed jobs at the market: keys, grants and ciphertexts, and what of it is refused."""

import time
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey
from sqlmodel import select
from structlog.testing import capture_logs

from contracts.api.bodies import BidIn, EncryptionKeyIn, KeyGrantIn
from contracts.api.grants import (
    KEY_SECONDS,
    by_key,
    find_grant,
    fresh_key,
    make_grant,
    open_grant,
    public_key,
    publish_key,
    registered_key,
)
from contracts.api.problems import Code, Problem
from contracts.errors import UserError
from contracts.job.sealing import new_job_key, seal
from contracts.orders import EncryptionKey, new_account
from market.maintenance import reindex, retention
from market.maintenance.retention import Keep
from market.store import apply
from market.store.journal import Journal
from market.store.models import BidRow, CheckpointRow, EncryptionKeyRow, KeyGrantRow
from tests.support.market_parts import RECIPE, STATE, file_ref, make_record, make_spec, sha256, signed_progress, upload
from tests.support.offline_market import DOMAIN, World

IS_SIGNED = by_key(DOMAIN)
JOB_KEY = new_job_key()
SEALED_RECIPE = b"".join(seal([RECIPE], JOB_KEY))
SEALED_STATE = b"".join(seal([STATE], JOB_KEY))
OWN = PrivateKey.generate()  # the client's, which is its own approver


def grant(world: World, job: str, reader: str, own: PrivateKey, signer: LocalAccount | None = None) -> KeyGrantIn:
    return make_grant(DOMAIN, signer or world.client, job, reader, public_key(own), JOB_KEY)


def sealed_bid(world: World, **changes: Any) -> BidIn:
    """A sealed job whose files are uploaded; `changes` of the body."""
    upload(world.context, world.client.address, SEALED_RECIPE)
    body: BidIn = world.bid(spec=make_spec(sealed=True))
    fields = {
        "sealed_files": {sha256(RECIPE): file_ref(SEALED_RECIPE)},
        "grants": [grant(world, body.bid.digest(DOMAIN), world.client.address, OWN)],
    }
    return body.model_copy(update=fields | changes)


def put_key(world: World, signer: LocalAccount, own: PrivateKey, **changes: Any) -> EncryptionKeyIn:
    fields = {"account": signer.address, "key": public_key(own), "time": int(time.time())} | changes
    key = EncryptionKey.model_validate(fields)
    return world.api.put_key(EncryptionKeyIn(key=key, signature=key.sign(DOMAIN, signer)))


def refused(call: Any) -> str:
    with pytest.raises(Problem) as caught:
        call()
    return caught.value.code


# ------------------------------------------------------------------ keys


def test_the_newest_key_counts(world: World) -> None:
    now = int(time.time())
    first, second = PrivateKey.generate(), PrivateKey.generate()
    assert fresh_key(world.api, world.provider.address, IS_SIGNED) is None
    publish_key(world.api, DOMAIN, world.provider, first)
    assert fresh_key(world.api, world.provider.address, IS_SIGNED) == public_key(first)
    with capture_logs() as logs:
        publish_key(world.api, DOMAIN, world.provider, second)  # at once: its time must be later all the same
    assert "sealing.other_key_shown" in [one["event"] for one in logs]
    assert fresh_key(world.api, world.provider.address, IS_SIGNED) == public_key(second)
    assert put_key(world, world.provider, first, time=now - 10).key.key == public_key(second)  # a replay
    for wrong in (now + 1000, now - KEY_SECONDS - 10):
        assert refused(lambda wrong=wrong: put_key(world, world.provider, first, time=wrong)) == Code.VALIDATION_FAILED


def test_an_old_key_can_not_be_shown_for_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The market goes back to a key that was stolen and changed: soon nobody seals anything to it."""
    old, account, now = PrivateKey.generate(), world.provider.address, time.time()

    def later(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now + seconds)

    publish_key(world.api, DOMAIN, world.provider, old)
    first = world.api.encryption_key(account)
    later(KEY_SECONDS / 2 - 60)
    publish_key(world.api, DOMAIN, world.provider, old)
    assert world.api.encryption_key(account) == first
    later(KEY_SECONDS / 2 + 60)
    publish_key(world.api, DOMAIN, world.provider, old)
    assert world.api.encryption_key(account) != first  # who is there stays fresh
    monkeypatch.setattr(world.api, "encryption_key", lambda account: first)
    assert fresh_key(world.api, account, IS_SIGNED) == public_key(old)
    later(KEY_SECONDS + 60)
    assert fresh_key(world.api, account, IS_SIGNED) is None


def test_a_market_that_lies_about_ones_own_key_is_told_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = PrivateKey.generate(), PrivateKey.generate()
    shown = put_key(world, world.provider, old)
    monkeypatch.setattr(world.api, "put_key", lambda body: shown)
    with pytest.raises(UserError, match="keeps the encryption key"):
        publish_key(world.api, DOMAIN, world.provider, new)
    ahead = shown.model_copy(update={"key": shown.key.model_copy(update={"time": shown.key.time + 10**6})})
    monkeypatch.setattr(world.api, "encryption_key", lambda account: ahead)
    monkeypatch.setattr(world.api, "put_key", lambda body: pytest.fail("signed a time that is far ahead"))
    with pytest.raises(UserError, match="shows an encryption key"):
        publish_key(world.api, DOMAIN, world.provider, new)


def test_whose_keys_are_taken(world: World) -> None:
    own = PrivateKey.generate()
    assert refused(lambda: put_key(world, world.stranger, own)) == Code.NOT_A_WRITER
    world.chain.coins[world.stranger.address] = 1
    put_key(world, world.stranger, own)
    assert refused(lambda: put_key(world, world.provider, own, account=world.client.address)) == Code.SIGNATURE_INVALID


def test_a_key_that_the_market_made_up_is_not_believed(world: World) -> None:
    put_key(world, world.provider, OWN)
    with world.context.db.session() as session:
        row = session.get_one(EncryptionKeyRow, world.provider.address)
        row.key = public_key(PrivateKey.generate())
        session.add(row)
    with pytest.raises(UserError, match="is not signed by"):
        registered_key(world.api, world.provider.address, IS_SIGNED)


# ------------------------------------------------------------------ jobs


def test_a_sealed_job_is_taken_and_its_key_comes_back(world: World) -> None:
    body = sealed_bid(world)
    job = world.api.post_bid(body)
    assert job.spec.sealed and job.sealed_files == body.sealed_files
    found = find_grant(world.api, job.id, world.client.address, OWN, [world.client.address], IS_SIGNED)
    assert found is not None and found[1] == JOB_KEY
    assert world.api.post_bid(body) == job


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sealed_files": {}}, Code.JOB_MISMATCH),
        ({"sealed_files": {sha256(RECIPE): file_ref(SEALED_RECIPE + b".")}}, Code.JOB_MISMATCH),
        ({"sealed_files": {sha256(RECIPE): file_ref(bytes(len(SEALED_RECIPE)))}}, Code.BLOB_MISSING),
        ({"grants": []}, Code.JOB_MISMATCH),  # then nobody could approve
        ({"spec": make_spec()}, Code.JOB_MISMATCH),
    ],
)
def test_sealed_jobs_that_are_refused(world: World, changes: dict[str, Any], code: Code) -> None:
    body = sealed_bid(world, **changes)
    world.refuses(lambda: world.api.post_bid(body), 422, code)


def test_plain_uploads_do_not_make_a_sealed_job(world: World) -> None:
    body: BidIn = world.bid(spec=make_spec(sealed=True))  # RECIPE itself is uploaded
    world.refuses(lambda: world.api.post_bid(body), 422, Code.JOB_MISMATCH)
    plain: BidIn = world.bid()
    more = plain.model_copy(update={"sealed_files": {sha256(RECIPE): file_ref(SEALED_RECIPE)}})
    world.refuses(lambda: world.api.post_bid(more), 422, Code.JOB_MISMATCH)


def test_grants_in_a_bid_are_the_clients(world: World) -> None:
    body = sealed_bid(world)
    job = body.bid.digest(DOMAIN)
    forged = grant(world, job, world.client.address, OWN, world.stranger)
    for wrong in ([forged], [*body.grants, grant(world, sha256(b"other"), world.client.address, OWN)]):
        with pytest.raises(Problem):
            world.api.post_bid(body.model_copy(update={"grants": wrong}))
    assert world.count(KeyGrantRow) == world.count(BidRow) == 0


# ------------------------------------------------------------------ grants


def test_client_and_approver_grant_and_nobody_else(world: World) -> None:
    approver = new_account()
    body: BidIn = world.bid(spec=make_spec(sealed=True), approver=approver.address)
    job = body.bid.digest(DOMAIN)
    files = sealed_bid(world).sealed_files
    body = body.model_copy(update={"sealed_files": files, "grants": [grant(world, job, approver.address, OWN)]})
    world.api.post_bid(body)
    own, reader = PrivateKey.generate(), world.provider.address
    parties = [world.client.address, approver.address]

    def found() -> Any:
        return find_grant(world.api, job, reader, own, parties, IS_SIGNED)

    assert refused(lambda: world.api.post_grant(grant(world, job, reader, own, world.stranger))) == (
        Code.SIGNATURE_INVALID
    )
    assert found() is None
    by_approver = world.api.post_grant(grant(world, job, reader, own, approver))
    assert found() == (by_approver, JOB_KEY)
    # One with another key in it does not replace what stands, and the client's comes first.
    again = make_grant(DOMAIN, approver, job, reader, public_key(own), new_job_key())
    assert world.api.post_grant(again) == by_approver
    by_client = world.api.post_grant(grant(world, job, reader, own))
    assert found() == (by_client, JOB_KEY)
    broken = by_client.model_copy(update={"sealed_key": by_approver.sealed_key})
    assert refused(lambda: world.api.post_grant(broken)) == Code.COMMITMENT_MISMATCH


def test_a_grant_counts_for_one_job_reader_key_and_signer(world: World) -> None:
    job, reader, own = sha256(b"job"), world.provider.address, PrivateKey.generate()
    body, signers = grant(world, job, reader, own), [world.client.address]
    assert open_grant(body, job, reader, own, signers, IS_SIGNED) == JOB_KEY
    assert open_grant(body, sha256(b"other"), reader, own, signers, IS_SIGNED) is None
    assert open_grant(body, job, world.stranger.address, own, signers, IS_SIGNED) is None
    assert open_grant(body, job, reader, PrivateKey.generate(), signers, IS_SIGNED) is None
    assert open_grant(body, job, reader, own, [world.stranger.address], IS_SIGNED) is None
    other = make_grant(DOMAIN, world.client, job, reader, public_key(own), new_job_key())
    swapped = body.model_copy(update={"sealed_key": other.sealed_key})
    assert open_grant(swapped, job, reader, own, signers, IS_SIGNED) is None


def test_a_job_that_is_not_sealed_has_no_key(world: World) -> None:
    job = world.api.post_bid(world.bid()).id
    assert refused(lambda: world.api.post_grant(grant(world, job, world.client.address, OWN))) == Code.JOB_MISMATCH


# ------------------------------------------------------------------ blobs


def test_checkpoints_of_a_sealed_job_are_ciphertexts(world: World) -> None:
    lease = world.lease(bid=sealed_bid(world))
    plain = make_record(lease.job, 1, lease.start_tip)
    sealed = plain.model_copy(update={"sealed": file_ref(SEALED_STATE)})

    def post(record: Any) -> Any:
        return world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))

    assert refused(lambda: post(plain)) == Code.COMMITMENT_MISMATCH  # though STATE is uploaded
    assert refused(lambda: post(sealed)) == Code.BLOB_MISSING
    upload(world.context, world.provider.address, SEALED_STATE)
    assert post(sealed).checkpoint.sealed == file_ref(SEALED_STATE)


def test_ciphertexts_are_the_jobs_blobs(world: World, tmp_path: Path) -> None:
    """Readers of the job get them, and they stay as long as it may go on; the plaintext's hash opens nothing."""
    lease = world.lease(bid=sealed_bid(world))
    upload(world.context, world.provider.address, SEALED_STATE)
    record = make_record(lease.job, 1, lease.start_tip, sealed=file_ref(SEALED_STATE))
    world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))
    reader = world.api_of(world.provider)
    for ref in (file_ref(SEALED_RECIPE), file_ref(SEALED_STATE)):
        reader.get_blob(ref, tmp_path / "got", job=lease.bid)
    for data in (RECIPE, STATE):  # uploaded, but not this job's
        assert refused(lambda data=data: reader.get_blob(file_ref(data), tmp_path / "got", job=lease.bid)) == (
            Code.NOT_FOUND
        )
    keep = Keep(unused=-1000, files=0, checkpoints=0, result=0)
    with world.context.db.reading() as session:
        assert retention.unneeded(session, keep, time.time()) == {sha256(RECIPE), sha256(STATE)}


def test_the_journal_makes_it_all_anew(world: World) -> None:
    lease = world.lease(bid=sealed_bid(world))
    put_key(world, world.provider, OWN)
    world.api.post_grant(grant(world, lease.bid, world.provider.address, OWN))
    upload(world.context, world.provider.address, SEALED_STATE)
    record = make_record(lease.job, 1, lease.start_tip, sealed=file_ref(SEALED_STATE))
    world.api.post_progress(signed_progress(lease.id, record, DOMAIN, world.provider))
    with reindex.scratch() as new:
        with new.session() as session:
            for message in Journal(world.context.journal.folder).read():
                apply.apply(session, DOMAIN, message)
        for model in (BidRow, EncryptionKeyRow, KeyGrantRow, CheckpointRow):
            with new.reading() as after, world.context.db.reading() as before:
                rows = [[row.model_dump() for row in one.exec(select(model)).all()] for one in (before, after)]
                assert rows[0] == rows[1] != [], model
