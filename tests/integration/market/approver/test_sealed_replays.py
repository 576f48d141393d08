"""Who may replay a sealed job: whom its client has given the key, and nobody else."""

from dataclasses import replace
from typing import Any

import pytest
import structlog
from nacl.public import PrivateKey

from contracts import commitment
from contracts.api.auditing.notes import ReplayContent, RulingContent
from contracts.api.bodies import CheckpointRecord, JobOut, LeaseOut
from contracts.api.grants import find_grant, make_grant, public_key, publish_key
from contracts.chain.signatures import is_signed_by
from contracts.job.sealing import new_job_key, seal
from contracts.statefile import read_state
from contracts.types import to_hex
from market.matching import inputs
from tests.support.audited_market import Audited
from tests.support.market_parts import (
    RECIPE,
    file_ref,
    make_bid,
    make_record,
    make_spec,
    sha256,
    signed_bid,
    upload,
)
from tests.support.stepped_market import safetensors_bytes

pytestmark = pytest.mark.mostly_sqlite
KEY = new_job_key()
STATE = safetensors_bytes({"weight": (7).to_bytes(8, "little")})


def sealed_job(market: Audited, *let: int) -> JobOut:
    """Its client lets these providers replay it."""
    chain, client = market.chain, market.client
    spec, recipe = make_spec(sealed=True), b"".join(seal([RECIPE], KEY))
    upload(market.context, client.address, recipe)
    fields = {"approver": market.approver_key.address, "nonce": market.nonce}
    bid = make_bid(client, market.context.matcher, market.rules, spec, **fields)
    market.nonce += 1
    reader = public_key(market.encryption)
    grants = [make_grant(chain.domain, client, bid.digest(chain.domain), market.approver_key.address, reader, KEY)]
    for number in let:
        provider = market.providers[number]
        key = public_key(PrivateKey.generate())
        grants.append(make_grant(chain.domain, client, bid.digest(chain.domain), provider.address, key, KEY))
    body = signed_bid(bid, chain.domain, client, spec)
    return market.api.post_bid(
        body.model_copy(update={"sealed_files": {sha256(RECIPE): file_ref(recipe)}, "grants": grants})
    )


def trained(market: Audited, lease: LeaseOut, step: int) -> CheckpointRecord:
    """The first checkpoint, handed in as ciphertext."""
    sealed = b"".join(seal([STATE], KEY))
    upload(market.context, lease.provider, sealed)
    root = to_hex(commitment.state_root(*read_state(STATE)))
    record = make_record(lease.bid.job, 1, lease.state.tip, STATE, state_root=root, sealed=file_ref(sealed), step=step)
    market.hand_in(lease, record)
    return record


@pytest.mark.parametrize("let", [(), (2,)], ids=["nobody", "one"])
def test_only_whom_its_client_lets(audited: Audited, let: tuple[int, ...]) -> None:
    market = audited
    market.offer(market.providers[0])
    job = sealed_job(market, *let)
    assert market.clear() is not None
    lease = market.lease_of(job)
    for number in (1, 2, 3):
        market.offer(market.providers[number])
    market.look()
    trained(market, lease, lease.spec.step_of(1))
    market.say(lease, "release", 1)
    market.new_approver().grant_keys()
    patient = market.new_approver(nobody_seconds=0)
    for _ in range(4):
        market.look(patient)
    if not let:
        assert market.replays() == []
        assert [one.ruling for one in market.contents(job.id, RulingContent)] == ["unaudited"]
        return
    (replay,) = market.replays()
    assert replay.spec.sealed and replay.leases[0].provider == market.providers[2].address
    auditor, own = market.providers[2], PrivateKey.generate()
    publish_key(market.api_of(auditor), market.chain.domain, auditor, own)
    market.new_approver().grant_keys()
    found = find_grant(
        market.api_of(auditor), replay.id, auditor.address, own, [market.approver_key.address],
        lambda *signed: is_signed_by(market.chain, *signed),
    )  # fmt: skip
    assert found is not None and found[1] == KEY
    trained(market, market.lease_of(replay), lease.spec.step_of(1))
    for _ in range(4):
        market.look()
    assert [one.ruling for one in market.contents(job.id, RulingContent)] == ["good"]
    assert [(one.auditor, one.outcome) for one in market.contents(job.id, ReplayContent)] == [
        (auditor.address, "equal")
    ]
    approval = market.api.lease(lease.id).approval
    assert approval is not None and (approval.approval.n, approval.approval.last) == (1, True)
    assert market.problems(job.id) == []


def test_a_market_that_gives_it_to_somebody_else(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom a job names is for the market to heed; the approver gives nobody else the key, and takes no other word."""
    market, thief = audited, audited.providers[3]
    market.offer(market.providers[0])
    job = sealed_job(market, 2)
    assert market.clear() is not None
    lease = market.lease_of(job)
    market.offer(market.providers[2])
    market.look()
    trained(market, lease, lease.spec.step_of(1))
    market.say(lease, "release", 1)
    market.new_approver().grant_keys()
    read = inputs.OfferReader.bid

    def other(self: Any, *args: Any, **options: Any) -> Any:
        offer = read(self, *args, **options)
        return replace(offer, providers=frozenset(), not_providers=frozenset({market.providers[2].address}))

    monkeypatch.setattr(inputs.OfferReader, "bid", other)
    market.offer(thief, price_per_hour=3_000_000_000)
    for _ in range(4):
        market.look()
    (replay,) = market.replays()
    assert replay.leases[0].provider == thief.address and thief.address not in replay.spec.resources.providers
    publish_key(market.api_of(thief), market.chain.domain, thief, PrivateKey.generate())
    with structlog.testing.capture_logs() as logs:
        market.new_approver().grant_keys()
    assert any("its job names others" in str(line) for line in logs)
    assert list(market.api_of(thief).grants(replay.id, thief.address)) == []
    trained(market, market.lease_of(replay), lease.spec.step_of(1))
    for _ in range(3):
        market.look()
    assert market.contents(job.id, ReplayContent) == [] and market.grounds(market.lease_of(replay)) == []
