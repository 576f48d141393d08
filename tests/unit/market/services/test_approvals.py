"""Approvals and rejections: whose word counts, for what, and until when."""

import time

import pytest

from contracts.api.problems import Code
from contracts.orders import FAILURES, STOPS, ReportKind
from contracts.terms import Phase
from market.store.models import ApprovalRow, CheckpointRow, LeaseRow, ReplacedClaimRow
from market.store.replaced_claims import KEPT
from tests.support.live_lease import claim, refuses, report_up_to
from tests.support.market_parts import (
    signed_approval,
    signed_rejection,
    signed_report,
)
from tests.support.offline_market import DOMAIN, World, replayed, stored


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


def test_an_approval_of_what_was_replaced_on_its_way_brings_it_back(world: World, lease: LeaseRow) -> None:
    """The approver has signed the first Claims, and signs no others: without them the lease would stand still."""
    first = report_up_to(world, lease, 3)
    shown = list(world.api.checkpoints(lease.bid))
    for turn in range(2):
        again = claim(world, lease, 1, lease.tip, trace_root=f"0x{turn + 1:064x}")
        world.api.post_progress(again)
        world.api.post_progress(claim(world, lease, 2, again.checkpoint.tip, state_root="0x" + "77" * 32))
    assert len(stored(world, ReplacedClaimRow)) == 5
    approval = signed_approval(lease.id, 2, first[1].tip, DOMAIN, world.client)
    assert world.api.post_approval(approval).approval == approval
    got = list(world.api.checkpoints(lease.bid))
    assert [(one.checkpoint, one.signature, one.received) for one in got] == [
        (one.checkpoint, one.signature, one.received) for one in shown[:2]
    ]
    assert [one.status for one in got] == ["approved", "approved"]
    # What was built on them may be handed in again, or approved as it is.
    last = signed_approval(lease.id, 3, first[2].tip, DOMAIN, world.client)
    world.api.post_approval(last)
    assert [one.checkpoint for one in world.api.checkpoints(lease.bid)] == first
    for model in (CheckpointRow, ReplacedClaimRow, ApprovalRow):
        assert replayed(world, model) == stored(world, model)
    assert stored(world, ReplacedClaimRow) == []


def test_a_claim_that_comes_again_is_not_kept_twice(world: World, lease: LeaseRow) -> None:
    bodies = [claim(world, lease, 1, lease.tip, trace_root=f"0x{turn:064x}") for turn in range(2)]
    for body in (*bodies, *bodies):
        world.api.post_progress(body)
    assert [row["tip"] for row in stored(world, ReplacedClaimRow)] == [bodies[0].claim.tip]
    world.api.post_approval(signed_approval(lease.id, 1, bodies[0].claim.tip, DOMAIN, world.client))
    assert [row.claim for row in world.api.checkpoints(lease.bid)] == [bodies[0].claim]
    assert stored(world, ReplacedClaimRow) == [] == replayed(world, ReplacedClaimRow)


def test_what_the_approver_did_not_sign_does_not_come_back(world: World, lease: LeaseRow) -> None:
    """Only the way to the tip that was approved; what was on the way of another stays away."""
    first = report_up_to(world, lease, 2)
    second = claim(world, lease, 1, lease.tip, trace_root="0x" + "77" * 32)
    other = claim(world, lease, 2, second.claim.tip).checkpoint
    for body in (second, claim(world, lease, 2, second.claim.tip)):
        world.api.post_progress(body)
    world.api.post_approval(signed_approval(lease.id, 1, first[0].tip, DOMAIN, world.client))
    assert [one.checkpoint for one in world.api.checkpoints(lease.bid)] == first[:1]
    crossed = signed_approval(lease.id, 2, other.tip, DOMAIN, world.client)  # it was built on the second
    refuses(world, lambda: world.api.post_approval(crossed), 409, Code.PROGRESS_OUT_OF_ORDER)
    world.api.post_progress(claim(world, lease, 2, first[0].tip, trace_root="0x" + "77" * 32))
    refuses(world, lambda: world.api.post_approval(crossed), 422, Code.COMMITMENT_MISMATCH)
    world.api.post_approval(signed_approval(lease.id, 2, first[1].tip, DOMAIN, world.client))
    assert [one.checkpoint for one in world.api.checkpoints(lease.bid)] == first


def test_one_that_replaces_without_end_keeps_few(world: World, lease: LeaseRow) -> None:
    bodies = [claim(world, lease, 1, lease.tip, trace_root=f"0x{turn:064x}") for turn in range(KEPT + 4)]
    for body in bodies:
        world.api.post_progress(body)
    kept = {body.claim.tip for body in bodies[-KEPT - 1 : -1]}
    assert {row["tip"] for row in stored(world, ReplacedClaimRow)} == kept
    assert replayed(world, ReplacedClaimRow) == stored(world, ReplacedClaimRow)
    gone = signed_approval(lease.id, 1, bodies[0].claim.tip, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_approval(gone), 422, Code.COMMITMENT_MISMATCH)
    world.api.post_progress(bodies[0])  # its maker can hand it in again
    assert world.api.post_approval(gone).approval == gone
    assert stored(world, ReplacedClaimRow) == [] == replayed(world, ReplacedClaimRow)


@pytest.mark.parametrize("phase", [Phase.ACTIVE, Phase.CHALLENGED])
def test_what_the_chain_has_seen_gives_way_to_nothing(world: World, lease: LeaseRow, phase: Phase) -> None:
    first = report_up_to(world, lease, 3)
    second = claim(world, lease, 2, first[0].tip, trace_root="0x" + "77" * 32)
    world.api.post_progress(second)
    approval = signed_approval(lease.id, 3, first[2].tip, DOMAIN, world.client)
    challenged = {"tip": lease.tip, "claimed": 2} if phase is Phase.CHALLENGED else {}
    for claimed in ({"tip": second.claim.tip, "claimed": 2}, {"tip": "0x" + "11" * 20, "claimed": 4}, challenged):
        world.update_lease(lease.id, status=phase.value, **claimed)
        problem = refuses(world, lambda: world.api.post_approval(approval), 409, Code.PROGRESS_OUT_OF_ORDER)
        assert "claimed on chain" in problem.message
    # Pending is what was there first, whatever was put in its place here.
    world.update_lease(lease.id, status=Phase.ACTIVE.value, claimed=2, tip=first[1].tip)
    assert world.api.post_approval(approval).approval == approval
    assert [one.checkpoint for one in world.api.checkpoints(lease.bid)] == first


def test_what_a_market_replaced_that_kept_nothing_is_not_there_after_a_reindex(world: World, lease: LeaseRow) -> None:
    """Its messages are read as it read them: an upgrade is no difference."""
    report_up_to(world, lease, 2)
    body = claim(world, lease, 1, lease.tip, trace_root="0x" + "77" * 32)
    with world.context.db.session() as session:
        world.context.accept(session, "progress", body, bid=lease.bid, provider=lease.provider)
    assert [row.claim for row in world.api.checkpoints(lease.bid)] == [body.claim]
    assert stored(world, ReplacedClaimRow) == [] == replayed(world, ReplacedClaimRow)


def test_a_rejection_of_what_was_replaced_says_nothing_of_the_other(world: World, lease: LeaseRow) -> None:
    (first,) = report_up_to(world, lease, 1)
    again = claim(world, lease, 1, lease.tip, trace_root="0x" + "77" * 32)
    world.api.post_progress(again)
    late = signed_rejection(lease.id, 1, first.tip, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_rejection(late), 422, Code.COMMITMENT_MISMATCH)
    assert [(row.claim, row.status) for row in world.api.checkpoints(lease.bid)] == [(again.claim, "reported")]
    # And one of what is in its place now does not keep the first one from coming back.
    world.api.post_rejection(signed_rejection(lease.id, 1, again.claim.tip, DOMAIN, world.client))
    world.api.post_approval(signed_approval(lease.id, 1, first.tip, DOMAIN, world.client))
    out = world.api.lease(lease.id)
    assert out.rejection is None and out.approval is not None and out.approval.approval.tip == first.tip


def test_what_was_rejected_never_comes_back(world: World, lease: LeaseRow) -> None:
    (first,) = report_up_to(world, lease, 1)
    world.api.post_rejection(signed_rejection(lease.id, 1, first.tip, DOMAIN, world.client))
    world.api.post_progress(claim(world, lease, 1, lease.tip, trace_root="0x" + "77" * 32))
    late = signed_approval(lease.id, 1, first.tip, DOMAIN, world.client)
    refuses(world, lambda: world.api.post_approval(late), 422, Code.COMMITMENT_MISMATCH)
    assert stored(world, ReplacedClaimRow) == []


def test_nor_does_what_was_built_on_it(world: World, lease: LeaseRow) -> None:
    records = report_up_to(world, lease, 3)
    world.api.post_rejection(signed_rejection(lease.id, 2, records[1].tip, DOMAIN, world.client))
    world.api.post_progress(claim(world, lease, 1, lease.tip, trace_root="0x" + "77" * 32))
    assert [row["tip"] for row in stored(world, ReplacedClaimRow)] == [records[0].tip]


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
