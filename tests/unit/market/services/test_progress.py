"""Claims of checkpoints: what is taken, what is refused, and what of it is shown."""

import time
from typing import Any

import pytest

from contracts.api.problems import Code
from contracts.chain.events import Claimed, Place
from contracts.commitment import next_tip
from contracts.types import from_hex, to_hex
from market.store.models import CheckpointRow, LeaseRow
from market.store.queries.events import event_row
from tests.support.live_lease import claim, refuses, report_up_to
from tests.support.market_parts import (
    EVERY,
    forged,
    make_record,
    signed_approval,
    signed_progress,
    signed_rejection,
)
from tests.support.offline_market import DOMAIN, World


def test_progress_is_stored_and_shown(world: World, lease: LeaseRow) -> None:
    body = claim(world, lease, 1, lease.tip)
    out = world.api.post_progress(body)
    assert (out.lease, out.job, out.provider) == (lease.id, lease.bid, world.provider.address)
    assert (out.claim, out.checkpoint, out.status, out.reason) == (body.claim, body.checkpoint, "reported", "")
    assert world.api.post_progress(body) == out
    assert list(world.api.checkpoints(lease.bid)) == [out]
    assert list(world.api.pending_progress(world.client.address)) == [out]
    assert list(world.api.pending_progress(world.stranger.address)) == []


def test_a_claim_of_a_stranger(world: World, lease: LeaseRow) -> None:
    body = forged(claim(world, lease, 1, lease.tip), DOMAIN, world.stranger)
    refuses(world, lambda: world.api.post_progress(body), 422, Code.SIGNATURE_INVALID)


def test_a_lease_that_is_over_or_unknown(world: World, lease: LeaseRow) -> None:
    body = claim(world, lease, 1, lease.tip)
    unknown = body.model_copy(update={"claim": body.claim.model_copy(update={"lease": "0x" + "00" * 32})})
    refuses(world, lambda: world.api.post_progress(unknown), 404, Code.NOT_FOUND)
    world.update_lease(lease.id, finished="closed")
    refuses(world, lambda: world.api.post_progress(body), 409, Code.LEASE_NOT_LIVE)


@pytest.mark.parametrize(
    "changes",
    [{"root": "0x" + "11" * 32}, {"tip": "0x" + "11" * 20}, {"step": EVERY + 1}],
)
def test_commitments_that_do_not_fit(world: World, lease: LeaseRow, changes: dict[str, Any]) -> None:
    body = claim(world, lease, 1, lease.tip, **changes)
    refuses(world, lambda: world.api.post_progress(body), 422, Code.COMMITMENT_MISMATCH)


def test_a_claim_that_follows_another_past(world: World, lease: LeaseRow) -> None:
    body = claim(world, lease, 1, "0x" + "33" * 20)
    refuses(world, lambda: world.api.post_progress(body), 422, Code.COMMITMENT_MISMATCH)
    record = make_record(lease.job, 1, lease.tip)
    other = signed_progress(lease.id, record.model_copy(update={"index": 2}), DOMAIN, world.provider)
    body = claim(world, lease, 1, lease.tip).model_copy(update={"checkpoint": other.checkpoint})
    refuses(world, lambda: world.api.post_progress(body), 422, Code.COMMITMENT_MISMATCH)


def test_a_state_that_is_not_here(world: World, lease: LeaseRow) -> None:
    body = claim(world, lease, 1, lease.tip, state=b"elsewhere")
    refuses(world, lambda: world.api.post_progress(body), 422, Code.BLOB_MISSING)


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_metrics_that_are_not_finite(world: World, lease: LeaseRow, value: str) -> None:
    body = claim(world, lease, 1, lease.tip).model_dump_json(by_alias=True).replace('"loss":1.0', f'"loss":{value}')
    response = world.api._http.post("/v1/progress", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
    assert world.count(CheckpointRow) == 0


def test_out_of_order(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 2)
    far = claim(world, lease, 4, records[-1].tip)
    problem = refuses(world, lambda: world.api.post_progress(far), 409, Code.PROGRESS_OUT_OF_ORDER)
    assert problem.extra == {"lowest": 1, "highest": 3}
    world.api.post_approval(signed_approval(lease.id, 1, records[0].tip, DOMAIN, world.client))
    other = claim(world, lease, 1, lease.tip, metrics={"loss": 9.0}, state_root="0x" + "77" * 32)
    refuses(world, lambda: world.api.post_progress(other), 409, Code.PROGRESS_OUT_OF_ORDER)


def test_beyond_the_lease(world: World) -> None:
    lease = world.lease(end=1)
    records = report_up_to(world, lease, 1)
    body = claim(world, lease, 2, records[0].tip)
    refuses(world, lambda: world.api.post_progress(body), 409, Code.PROGRESS_OUT_OF_ORDER)


def test_a_replacement_takes_what_was_built_on_it(world: World, lease: LeaseRow) -> None:
    report_up_to(world, lease, 3)
    again = claim(world, lease, 2, make_record(lease.job, 1, lease.tip).tip, trace_root="0x" + "77" * 32)
    assert world.api.post_progress(again).status == "reported"
    assert [out.claim.n for out in world.api.checkpoints(lease.bid)] == [1, 2]
    assert list(world.api.checkpoints(lease.bid))[1].claim == again.claim


def test_what_is_claimed_on_chain_stays(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 2)
    world.update_lease(lease.id, claimed=1, tip=records[0].tip)
    other = claim(world, lease, 1, lease.tip, trace_root="0x" + "77" * 32)
    refuses(world, lambda: world.api.post_progress(other), 409, Code.PROGRESS_OUT_OF_ORDER)


def test_a_market_that_lost_its_past_goes_on_from_the_chains_tip(world: World, lease: LeaseRow) -> None:
    tip = "0x" + "44" * 20
    world.update_lease(lease.id, claimed=2, accepted=2, tip=tip)
    assert world.api.post_progress(claim(world, lease, 3, tip)).claim.n == 3


def test_a_second_lease_starts_where_the_first_ended(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 1)
    world.update_lease(lease.id, finished="closed", continuable=True, accepted=1, tip=records[0].tip)
    body = world.bid()
    second = world.lease(bid=body, start=1, prev=lease.id, start_tip=records[0].tip, opened_block=2)
    out = world.api.post_progress(claim(world, second, 2, records[0].tip))
    assert [row.claim.n for row in world.api.checkpoints(lease.bid)] == [1, 2]
    assert out.lease == second.id


def claimed_on_chain(world: World, lease: LeaseRow, roots: list[str], block: int, **changes: Any) -> str:
    """As the indexer stores a claim of checkpoints 1 .. len(roots). Returns the newest tip."""
    event = Claimed(Place(block, lease.id, block, lease.id, 1), lease.id, len(roots), tuple(roots))
    tip = from_hex(lease.tip)
    for root in roots:
        tip = next_tip(tip, from_hex(root))
    with world.context.db.session() as session:
        session.add(event_row(event))
    world.update_lease(lease.id, claimed=len(roots), tip=to_hex(tip), **changes)
    return to_hex(tip)


def test_what_is_claimed_on_chain_as_another_is_not_called_approved(world: World, lease: LeaseRow) -> None:
    """Record A to the market, claim B to the chain: nobody may take A for what was paid."""
    one, two = report_up_to(world, lease, 2)
    world.api.post_approval(signed_approval(lease.id, 2, two.tip, DOMAIN, world.client))
    assert [out.status for out in world.api.checkpoints(lease.bid)] == ["approved", "approved"]
    other = claimed_on_chain(world, lease, [one.root, "0x" + "77" * 32], 2, t=int(time.time()) + 1000)
    for accepted in (0, 2):  # pending; then by the window's end
        world.update_lease(lease.id, accepted=accepted)
        first, second = world.api.checkpoints(lease.bid)
        assert (first.status, first.reason) == ("approved", "")
        assert second.status == "reported"
        assert second.reason == f"the chain has another claim of this checkpoint, with the tip {other}"
        newest = world.api.job(lease.bid).newest
        assert newest is not None and (newest.status, newest.reason) == (second.status, second.reason)
    assert world.api.job(lease.bid).metrics == {}  # of the newest accepted one: nobody knows them
    world.update_lease(lease.id, finished="closed")
    assert [out.status for out in world.api.checkpoints(lease.bid)] == ["approved", "reported"]


def test_what_is_claimed_on_chain_as_it_was_reported_is_accepted_in_time(world: World, lease: LeaseRow) -> None:
    one, two = report_up_to(world, lease, 2)
    claimed_on_chain(world, lease, [one.root, two.root], 2, t=int(time.time()) + 1000)
    assert [(out.status, out.reason) for out in world.api.checkpoints(lease.bid)] == [("reported", "")] * 2
    world.update_lease(lease.id, accepted=2)
    assert [out.status for out in world.api.checkpoints(lease.bid)] == ["approved", "approved"]
    assert world.api.job(lease.bid).metrics == two.metrics


def test_a_rejection_stays_one_whatever_the_chain_has(world: World, lease: LeaseRow) -> None:
    (one,) = report_up_to(world, lease, 1)
    world.api.post_rejection(signed_rejection(lease.id, 1, one.tip, DOMAIN, world.client))
    claimed_on_chain(world, lease, ["0x" + "77" * 32], 2, accepted=1)
    (out,) = world.api.checkpoints(lease.bid)
    assert (out.status, out.reason) == ("rejected", "the loss is too good to be true")
