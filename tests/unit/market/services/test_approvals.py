"""Approvals and rejections: whose word counts, for what, and until when."""

import time

import pytest

from contracts.api.problems import Code
from contracts.orders import FAILURES, STOPS, ReportKind
from market.store.models import LeaseRow
from tests.support.live_lease import claim, refuses, report_up_to
from tests.support.market_parts import (
    signed_approval,
    signed_rejection,
    signed_report,
)
from tests.support.offline_market import DOMAIN, World


def test_an_approval_covers_all_before(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 3)
    body = signed_approval(lease.id, 2, records[1].tip, DOMAIN, world.client)
    out = world.api.post_approval(body)
    assert out.approval == body
    assert world.api.post_approval(body) == out
    assert [row.status for row in world.api.checkpoints(lease.bid)] == ["approved", "approved", "reported"]
    assert [row.claim.n for row in world.api.pending_progress(world.client.address)] == [3]
    first = signed_approval(lease.id, 1, records[0].tip, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_approval(first), 409, Code.PROGRESS_OUT_OF_ORDER)


def test_an_approval_of_a_stranger_or_of_another_tip(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 1)
    by_provider = signed_approval(lease.id, 1, records[0].tip, DOMAIN, world.provider)
    refuses(world, lambda: world.api.post_approval(by_provider), 422, Code.SIGNATURE_INVALID)
    other_tip = signed_approval(lease.id, 1, "0x" + "11" * 20, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_approval(other_tip), 422, Code.COMMITMENT_MISMATCH)
    not_reported = signed_approval(lease.id, 2, "0x" + "11" * 20, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_approval(not_reported), 409, Code.PROGRESS_OUT_OF_ORDER)
    beyond = signed_approval(lease.id, 5, "0x" + "11" * 20, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_approval(beyond), 409, Code.PROGRESS_OUT_OF_ORDER)


def test_a_release_of_a_lease_in_which_nothing_was_done(world: World, lease: LeaseRow) -> None:
    body = signed_approval(lease.id, 0, lease.tip, DOMAIN, world.client, last=True)
    assert world.api.post_approval(body).approval == body
    nothing = signed_approval(lease.id, 0, lease.tip, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_approval(nothing), 409, Code.PROGRESS_OUT_OF_ORDER)


def test_last_supersedes_the_same_index_without_it(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 1)
    world.api.post_approval(signed_approval(lease.id, 1, records[0].tip, DOMAIN, world.client))
    last = signed_approval(lease.id, 1, records[0].tip, DOMAIN, world.client, last=True)
    assert world.api.post_approval(last).approval == last
    assert world.api.lease(lease.id).approval == last


def test_a_rejection_stands_until_the_checkpoint_is_replaced(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 1)
    body = signed_rejection(lease.id, 1, records[0].tip, DOMAIN, world.client)
    assert world.api.post_rejection(body).rejection == body
    (row,) = world.api.checkpoints(lease.bid)
    assert (row.status, row.reason) == ("rejected", body.rejection.reason)
    assert list(world.api.pending_progress(world.client.address)) == []
    world.api.post_progress(claim(world, lease, 1, lease.tip, trace_root="0x" + "77" * 32))
    assert world.api.lease(lease.id).rejection is None
    assert [row.status for row in world.api.checkpoints(lease.bid)] == ["reported"]


def test_rejections_that_are_refused(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 1)
    forged_one = signed_rejection(lease.id, 1, records[0].tip, DOMAIN, world.stranger)
    refuses(world, lambda: world.api.post_rejection(forged_one), 422, Code.SIGNATURE_INVALID)
    other = signed_rejection(lease.id, 1, "0x" + "11" * 20, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_rejection(other), 422, Code.COMMITMENT_MISMATCH)
    world.api.post_approval(signed_approval(lease.id, 1, records[0].tip, DOMAIN, world.client))
    late = signed_rejection(lease.id, 1, records[0].tip, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_rejection(late), 409, Code.PROGRESS_OUT_OF_ORDER)


def test_what_the_chain_accepted_is_approved(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 2)
    soon = int(time.time()) + 1000
    world.update_lease(lease.id, claimed=1, t=soon, tip=records[0].tip)
    assert [row.status for row in world.api.checkpoints(lease.bid)] == ["reported", "reported"]
    world.update_lease(lease.id, t=0)  # the window has passed
    assert [row.status for row in world.api.checkpoints(lease.bid)] == ["approved", "reported"]
    assert [row.claim.n for row in world.api.pending_progress(world.client.address)] == [2]


def test_a_release_waits_for_the_last_approval(world: World, lease: LeaseRow) -> None:
    now = int(time.time())
    world.api.post_report(signed_report(lease.id, 1, "log", "step 1", now, DOMAIN, world.provider))
    body = signed_report(lease.id, 1, "release", "power is gone", now, DOMAIN, world.provider)
    out = world.api.post_report(body)
    assert (out.report, out.text, out.provider) == (body.report, "power is gone", world.provider.address)
    assert world.api.post_report(body) == out
    reports = list(world.api_of(world.client).reports(lease.bid))
    assert [(row.report.kind, row.text) for row in reports] == [("log", "step 1"), ("release", "power is gone")]
    assert list(world.api.release_requests(world.client.address)) == [out.model_copy(update={"text": None})]
    assert list(world.api.release_requests(world.stranger.address)) == []
    world.api.post_approval(signed_approval(lease.id, 0, lease.tip, DOMAIN, world.client, last=True))
    assert list(world.api.release_requests(world.client.address)) == []


@pytest.mark.parametrize("kind", STOPS)
def test_a_lease_that_stops_says_why(world: World, lease: LeaseRow, kind: ReportKind) -> None:
    assert world.api.lease(lease.id).stops is None
    now = int(time.time())
    world.api.post_report(signed_report(lease.id, 1, kind, "why", now, DOMAIN, world.provider))
    world.api.post_report(signed_report(lease.id, 0, "release", "asks again", now, DOMAIN, world.provider))
    assert [one.report.kind for one in world.api.release_requests(world.client.address)] == [kind, "release"]
    (in_job,) = world.api.job(lease.bid).leases
    assert world.api.lease(lease.id).stops == in_job.stops == kind
    assert world.api.job(lease.bid).failures == (1 if kind in FAILURES else 0)
