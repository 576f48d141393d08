"""Who may read a job's blobs and logs, who may upload, and how much of it."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import time_machine
from eth_account.signers.local import LocalAccount
from starlette.testclient import TestClient

from contracts.api.access import SCHEME, SignedToken, Signer
from contracts.api.bodies import AuditorIn
from contracts.api.problems import Code, Problem
from contracts.job.spec import FileRef
from contracts.orders import AccessToken, AuditorGrant, new_account
from contracts.terms import Phase
from contracts.types import ZERO_HASH
from market.api.access import Callers
from market.api.app import create_app
from market.services import blobs
from market.store.blobs import UnderWay
from market.store.events import Head
from market.store.models import AuditorRow, ChainEvent, CheckpointRow, LeaseRow, UploadRow
from tests.support.market_parts import (
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
    signed_report,
    upload,
)
from tests.support.offline_market import DOMAIN, RULES, World

HASH = "0x" + "ab" * 32


def header(key: LocalAccount, scope: str, job: str = ZERO_HASH, seconds: int = 600, **changes: Any) -> dict[str, str]:
    fields = {"account": key.address, "job": job, "scope": scope, "valid_until": int(time.time()) + seconds}
    token = AccessToken.model_validate(fields | changes)
    return {"authorization": f"{SCHEME} {SignedToken(token=token, signature=token.sign(DOMAIN, key)).encode()}"}


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        call()
    assert caught.value.hint, caught.value.message
    return caught.value.status, caught.value.code


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


# ------------------------------------------------------------------ tokens


def test_tokens_that_are_refused(world: World) -> None:
    job, url = world.lease().bid, f"/v1/blobs/{sha256(RECIPE)}"

    def get(headers: dict[str, str]) -> Any:
        return world.api._http.get(url, headers=headers)

    good = header(world.client, "read", job)
    assert get(good).content == RECIPE
    missing = get({})
    assert code(missing) == (401, "access_token_missing")
    assert missing.headers["www-authenticate"] == SCHEME
    assert code(get(header(world.client, "read", job, seconds=-1))) == (401, "access_token_expired")
    assert code(get(header(world.client, "read", job, seconds=3700))) == (401, "access_token_invalid")
    assert get(header(world.client, "read", job, seconds=3590)).status_code == 200
    assert code(get(header(world.client, "write"))) == (401, "access_token_invalid")
    assert code(get(header(world.stranger, "read", job, account=world.client.address))) == (401, "access_token_invalid")
    assert code(get({"authorization": "Bearer abc"})) == (401, "access_token_invalid")
    for broken in ("", "{}", "=", "é", good["authorization"][len(SCHEME) + 1 : -4], "[" * 5000):
        sent = f"{SCHEME} {broken}".encode()
        assert code(get({"authorization": sent})) == (401, "access_token_invalid"), broken  # type: ignore[dict-item]
    # For this very job only.
    other = world.api.post_bid(world.bid(nonce=1)).id
    reports = world.api._http.get(f"/v1/jobs/{job}/reports", headers=header(world.client, "read", other))
    assert code(reports) == (401, "access_token_invalid")
    # A token that was good is not, once its time is over.
    short = header(world.client, "read", job, seconds=60)
    assert get(short).status_code == 200
    with time_machine.travel(time.time() + 61):
        assert code(get(short)) == (401, "access_token_expired")


def test_a_signer_uses_a_token_until_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, clock = Signer(new_account(), DOMAIN), [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    first = signer.reading(HASH)
    token = SignedToken.decode(first["authorization"].partition(" ")[2])
    assert (token.token.job, token.token.scope, token.token.valid_until) == (HASH, "read", 1_000_600)
    assert token.token.signer(DOMAIN, token.signature) == signer.address
    clock[0] += 500
    assert signer.reading(HASH) == first
    assert signer.reading(ZERO_HASH) != first
    assert signer.writing() != signer.reading(ZERO_HASH)
    clock[0] += 50
    assert signer.reading(HASH) != first
    clock[0] = 1_000_100  # set back: a token from the future would be refused
    assert signer.reading(HASH) == signer.reading(HASH) != first


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


def test_the_number_of_asks(world: World) -> None:
    world.context.settings = world.context.settings.model_copy(update={"max_open_asks": 2})
    soon = int(time.time()) + 600
    bodies = [world.ask(valid_until=soon + number) for number in (0, 1000, 2000, 3000)]
    for body in bodies[:2]:
        world.api.post_ask(body)
    problem = world.refuses(lambda: world.api.post_ask(bodies[2]), 422, Code.QUOTA_EXCEEDED)
    assert problem.extra == {"max_open_asks": 2}
    world.api.post_ask(bodies[1])  # the same again is no more
    world.context.head = Head(1, soon + 1)  # the chain's time counts
    world.api.post_ask(bodies[2])  # the first has expired
    world.set_account(world.provider.address, free=100_000_000, page=1)
    world.api.post_ask(world.ask(page=1))  # the page has cancelled all others


# ------------------------------------------------------------------ how often


def test_rate_limits(world: World) -> None:
    world.context.settings = world.context.settings.model_copy(
        update={"requests_per_minute_account": 3, "requests_per_minute_address": 5}
    )
    with TestClient(create_app(world.context), base_url="http://market.test") as http:
        money, poor = (header(key, "write") for key in (world.client, world.stranger))
        name = f"/v1/blobs/{HASH}"
        # The first use of a token counts for the address: anyone can write down a token that has to be checked.
        assert [http.head(name, headers=money).status_code for _ in range(5)] == [404, 404, 404, 404, 429]
        assert [http.get("/v1/info", headers=poor).status_code for _ in range(3)] == [200, 200, 200]
        assert http.get("/v1/info").status_code == 200
        over = http.get("/v1/info")
        assert code(over) == (429, "too_many_requests")
        assert 1 <= int(over.headers["retry-after"]) <= 60
        assert http.get("/v1/info", headers=poor).status_code == 429
        assert http.get("/readyz").status_code == 204


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # one line has all of these
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_addresses_of_one_line_share_a_limit(world: World, first: str, second: str, same: bool) -> None:
    world.context.settings = world.context.settings.model_copy(update={"requests_per_minute_address": 1})
    callers = Callers(world.context)
    callers.admit(None, first)
    if same:
        assert refused(lambda: callers.admit(None, second)) == (429, "too_many_requests")
    else:
        callers.admit(None, second)


def test_one_token_written_in_many_ways_fills_no_memory(world: World) -> None:
    """base64 decoders pass over what is not base64."""
    callers = Callers(world.context)
    good = header(world.client, "write")["authorization"]
    for at in range(3):
        admitted = callers.admit(good + "*" * (50_000 + 4 * at), "192.0.2.1")
        assert admitted is not None and admitted.account == world.client.address
    assert sum(map(sys.getsizeof, callers._known)) < 1_000


def test_the_client_waits_when_it_is_told_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("contracts.api.client.time", type("clock", (), {"sleep": sleep, "monotonic": lambda: clock[0]}))
    callers = world.api._http.app.state.callers  # type: ignore[union-attr]
    answers = [7, 8, None]

    def admit(*_: object) -> None:
        wait = answers.pop(0) if answers else 40
        if wait is not None:
            raise Problem(429, Code.TOO_MANY_REQUESTS, "too often", retry_after=wait)

    monkeypatch.setattr(callers, "admit", admit)
    assert world.api.info().chain_id == 31337
    assert slept == [7, 8]
    with pytest.raises(Problem) as caught:  # longer than its timeout
        world.api.info()
    assert caught.value.code == Code.TOO_MANY_REQUESTS
    assert slept == [7, 8]


def test_uploads_are_remembered_by_account(world: World) -> None:
    before = world.count(UploadRow)
    upload(world.context, world.stranger.address, STATE)
    assert world.count(UploadRow) == before + 1
