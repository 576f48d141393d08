"""Claims, approvals, rejections and reports: who may say what, when, and what follows."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from contracts.api.bodies import CheckpointRecord, ProgressIn
from contracts.api.problems import Code, Problem
from contracts.terms import Flag, Phase
from market.services.reports import take_report
from market.store.models import ApprovalRow, CheckpointRow, LeaseRow, RejectionRow, ReportRow
from tests.support.market_parts import (
    EVERY,
    forged,
    make_record,
    signed_approval,
    signed_progress,
    signed_rejection,
    signed_report,
)
from tests.support.offline_market import DOMAIN, World


@pytest.fixture
def lease(world: World) -> LeaseRow:
    return world.lease()


def claim(world: World, lease: LeaseRow, index: int, before: str, **changes: Any) -> ProgressIn:
    record = make_record(lease.job, index, before, **changes)
    return signed_progress(lease.id, record, DOMAIN, world.provider)


def report_up_to(world: World, lease: LeaseRow, n: int) -> list[CheckpointRecord]:
    """Claims of checkpoints 1 .. n, taken by the market."""
    records: list[CheckpointRecord] = []
    for index in range(1, n + 1):
        body = claim(world, lease, index, records[-1].tip if records else lease.tip)
        world.api.post_progress(body)
        records.append(body.checkpoint)
    return records


def refuses(world: World, call: Callable[[], object], status: int, code: Code) -> Any:
    """Refused, and nothing of it is stored."""
    models = (CheckpointRow, ApprovalRow, RejectionRow, ReportRow)
    before = [world.count(model) for model in models]
    problem = world.refuses(call, status, code)
    assert [world.count(model) for model in models] == before
    return problem


# ------------------------------------------------------------------ claims


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


# ------------------------------------------------------------------ approvals and rejections


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


# ------------------------------------------------------------------ reports


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


def test_reports_that_are_refused(world: World, lease: LeaseRow) -> None:
    now = int(time.time())

    def post(*arguments: Any, **changes: Any) -> Callable[[], object]:
        body = signed_report(lease.id, 1, "log", "text", *arguments).model_copy(update=changes)
        return lambda: world.api.post_report(body)

    refuses(world, post(now, DOMAIN, world.client), 422, Code.SIGNATURE_INVALID)
    refuses(world, post(now - 400, DOMAIN, world.provider), 422, Code.REPORT_STALE)
    refuses(world, post(now + 400, DOMAIN, world.provider), 422, Code.REPORT_STALE)
    refuses(world, post(now, DOMAIN, world.provider, text="another"), 422, Code.COMMITMENT_MISMATCH)


def test_reports_are_kept_so_there_is_no_end_of_them(
    world: World, lease: LeaseRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("market.services.reports.PER_HOUR", 2)
    now = int(time.time())
    bodies = [signed_report(lease.id, 1, "log", f"step {at}", now, DOMAIN, world.provider) for at in range(3)]
    for body in (*bodies[:2], *bodies[:2]):
        take_report(world.context, body)
    with pytest.raises(Problem) as caught:
        take_report(world.context, bodies[2])
    assert (caught.value.status, caught.value.extra["retry_after"]) == (429, 60)
    with world.context.db.session() as session:
        for row in session.exec(select(ReportRow)):
            row.received -= timedelta(hours=1)
            session.add(row)
    take_report(world.context, bodies[2])


def test_three_leases_that_fail_at_one_checkpoint_end_the_job(world: World) -> None:
    body = world.bid()
    for turn in range(3):
        assert world.api.post_bid(body).failures == turn
        lease = world.lease(bid=body, price=1_000_000 + turn, opened_block=turn + 1, continuable=True)
        for log in ("first line\nout of memory\n", "again\nout of memory"):  # one lease counts once
            report = signed_report(lease.id, 1, "failed", log, int(time.time()), DOMAIN, world.provider)
            world.api.post_report(report)
        assert world.api.lease(lease.id).job_failures == turn + 1
        world.update_lease(lease.id, finished="closed")
    job = world.api.job(lease.bid)
    assert (job.status, job.failures) == ("failed", 3)
    assert job.reason == "3 leases failed at checkpoint 1; their logs are in its reports"


def test_failures_at_an_earlier_checkpoint_are_forgiven(world: World, lease: LeaseRow) -> None:
    report = signed_report(lease.id, 1, "failed", "oops", int(time.time()), DOMAIN, world.provider)
    world.api.post_report(report)
    world.update_lease(lease.id, accepted=1, claimed=1)
    assert world.api.job(lease.bid).failures == 0


# ------------------------------------------------------------------ leases and jobs


def test_a_lease_has_all_that_its_worker_needs(world: World, lease: LeaseRow) -> None:
    out = world.api.lease(lease.id)
    assert (out.id, out.job, out.provider) == (lease.id, lease.bid, world.provider.address)
    assert out.bid.digest(DOMAIN) == lease.bid
    assert out.spec == world.spec
    assert out.rules.struct_hash() == lease.rules
    assert (out.state.phase, out.state.flags, out.state.tip) == ("active", [], lease.tip)
    assert list(world.api.leases(provider=world.provider.address, live=True)) == [out]
    assert list(world.api.leases(provider=world.provider.address, live=False)) == []
    assert list(world.api.leases(approver=world.client.address)) == [out]


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
