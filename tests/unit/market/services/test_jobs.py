"""Leases and jobs as the API shows them."""

import time
from typing import Any

import pytest
from sqlmodel import select

from contracts.api.bodies import ListedLease
from contracts.api.problems import Code, Problem
from contracts.terms import Flag, Phase
from market.store.models import LeaseRow
from tests.support.live_lease import report_up_to
from tests.support.market_parts import signed_approval, signed_rejection
from tests.support.offline_market import DOMAIN, World


def test_a_lease_has_all_that_its_worker_needs(world: World, lease: LeaseRow) -> None:
    out = world.api.lease(lease.id)
    assert (out.id, out.job, out.provider) == (lease.id, lease.bid, world.provider.address)
    assert out.bid.digest(DOMAIN) == lease.bid
    assert out.spec == world.spec
    assert out.rules.struct_hash() == lease.rules
    assert (out.state.phase, out.state.flags, out.state.tip) == ("active", [], lease.tip)
    listed = ListedLease.model_validate(out.model_dump(exclude={"spec"}))
    assert list(world.api.leases(provider=world.provider.address, live=True)) == [listed]
    assert list(world.api.leases(provider=world.provider.address, live=False)) == []
    assert list(world.api.leases(approver=world.client.address)) == [listed]


def test_leases_of_other_markets_jobs_are_not_shown(world: World, lease: LeaseRow) -> None:
    with world.context.db.session() as session:
        stranger = session.exec(select(LeaseRow)).one().model_dump() | {"id": "0x" + "99" * 32, "bid": "0x" + "98" * 32}
        session.add(LeaseRow(**stranger))
    assert [out.id for out in world.api.leases()] == [lease.id]
    world.refuses(lambda: world.api.lease("0x" + "99" * 32), 404, Code.NOT_FOUND)


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({}, "running", ""),
        ({"status": Phase.CHALLENGED.value}, "running", "a checkpoint is challenged; the arbiter decides"),
        ({"status": Phase.CLOSING | Flag.LATE}, "closing", "its lease with"),
        ({"finished": "completed", "accepted": 4}, "done", ""),
        ({"finished": "closed", "accepted": 1, "continuable": True}, "pending", ""),
        ({"finished": "closed", "accepted": 1}, "cancelled", "its client ended it after checkpoint 1 of 4"),
    ],
)
def test_the_status_of_a_job(world: World, lease: LeaseRow, changes: dict[str, Any], status: str, reason: str) -> None:
    world.update_lease(lease.id, **changes)
    job = world.api.job(lease.bid)
    assert job.status == status
    assert job.reason.startswith(reason)
    assert [out.id for out in world.api.jobs(client=world.client.address, status=status)] == [lease.bid]
    assert list(world.api.jobs(status="expired")) == []


def test_a_job_is_found_by_the_tip_of_a_checkpoint(world: World, lease: LeaseRow) -> None:
    """As the worker of a job that goes on from it does."""
    records = report_up_to(world, lease, 2)
    other = world.api.post_bid(world.bid(nonce=1)).id
    assert {job.id for job in world.api.jobs(client=world.client.address)} == {lease.bid, other}
    for record in records:
        assert [job.id for job in world.api.jobs(client=world.client.address, tip=record.tip)] == [lease.bid]
    assert list(world.api.jobs(client=world.provider.address, tip=records[0].tip)) == []
    assert list(world.api.jobs(tip="0x" + "11" * 20)) == []
    with pytest.raises(Problem) as caught:
        list(world.api.jobs(tip="0x11"))
    assert caught.value.code == Code.VALIDATION_FAILED


def test_a_job_adds_up_its_leases(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 1)
    world.update_lease(
        lease.id, finished="closed", continuable=True, accepted=1, paid=1_000_000, fees=7, tip=records[0].tip
    )
    second = world.lease(
        bid=world.bid(), start=1, prev=lease.id, start_tip=records[0].tip, opened_block=2, paid=1 << 80, accepted=1
    )
    job = world.api.job(lease.bid)
    assert (job.status, job.accepted, job.paid, job.fees) == ("running", 1, 1_000_000 + (1 << 80), 7)
    assert [out.id for out in job.leases] == [lease.id, second.id]
    assert job.metrics == {"loss": 1.0}


def test_a_pending_job_says_why(world: World) -> None:
    out = world.api.post_bid(world.bid(valid_until=int(time.time()) + 1000))
    from market.store.models import BidRow

    with world.context.db.session() as session:
        session.get_one(BidRow, out.id).wait_reason = "there are no open asks"
    assert world.api.job(out.id).reason == "there are no open asks"
    with world.context.db.session() as session:
        session.get_one(BidRow, out.id).valid_until = 1
    assert world.api.job(out.id).status == "expired"


def counts(world: World, job: str) -> tuple[int, int, int, int]:
    found = world.api.job(job)
    return found.reported, found.approved, found.accepted, found.settled


def test_reported_approved_and_paid_are_told_when_they_happen(world: World, lease: LeaseRow) -> None:
    assert counts(world, lease.bid) == (0, 0, 0, 0) and world.api.job(lease.bid).newest is None
    first, second = report_up_to(world, lease, 2)
    assert counts(world, lease.bid) == (2, 0, 0, 0)
    newest = world.api.job(lease.bid).newest
    assert newest is not None and (newest.index, newest.step, newest.status) == (2, second.step, "reported")
    assert (newest.metrics, newest.seconds, newest.lease) == (dict(second.metrics), second.seconds, lease.id)
    world.api.post_approval(signed_approval(lease.id, 1, first.tip, DOMAIN, world.client))
    assert counts(world, lease.bid) == (2, 1, 0, 0)
    world.update_lease(lease.id, accepted=1, settled=1, claimed=1, paid=lease.price, tip=first.tip)
    assert counts(world, lease.bid) == (2, 1, 1, 1)
    world.api.post_rejection(signed_rejection(lease.id, 2, second.tip, DOMAIN, world.client))
    newest = world.api.job(lease.bid).newest
    assert newest is not None and (newest.index, newest.status) == (2, "rejected") and "too good" in newest.reason
    shown = world.api.lease(lease.id)
    assert (shown.reported, shown.approved, shown.state.accepted) == (2, 1, 1)
    # What an ended lease did not get accepted, the next one makes again.
    world.update_lease(lease.id, finished="closed", continuable=True)
    assert counts(world, lease.bid) == (1, 1, 1, 1)
    newest = world.api.job(lease.bid).newest
    assert newest is not None and (newest.index, newest.status) == (1, "approved")


def test_jobs_are_listed_by_name_and_by_how_their_ids_start(world: World, lease: LeaseRow) -> None:
    other = world.api.post_bid(world.bid(nonce=1).model_copy(update={"name": "100% café_"})).id
    name = world.api.job(lease.bid).name
    assert [job.id for job in world.api.jobs(name=name)] == [lease.bid]
    assert [job.id for job in world.api.jobs(name="100% café_")] == [other]
    assert list(world.api.jobs(name="100%")) == []
    for id in (lease.bid, other):
        assert [job.id for job in world.api.jobs(prefix=id[:10])] == [id]
    assert {job.id for job in world.api.jobs(prefix=lease.bid[:3])} >= {lease.bid}
    world.refuses(lambda: list(world.api.jobs(prefix="0x%")), 422, Code.VALIDATION_FAILED)
