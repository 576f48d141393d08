"""Reports: which are taken, how many, and what follows from failures."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from contracts.api.problems import Code, Problem
from contracts.orders import STOPS
from market.services.reports import take_report
from market.store.models import LeaseRow, ReportRow
from tests.support.live_lease import refuses
from tests.support.market_parts import (
    signed_report,
)
from tests.support.offline_market import DOMAIN, World


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


def test_a_flood_of_logs_leaves_room_to_say_that_the_lease_stops(
    world: World, lease: LeaseRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("market.services.reports.PER_HOUR", 2)
    monkeypatch.setattr("market.services.reports.STOPS_PER_HOUR", 2)
    now = int(time.time())

    def say(kind: str, text: str) -> None:
        take_report(world.context, signed_report(lease.id, 1, kind, text, now, DOMAIN, world.provider))

    for kind in ("log", *(one for one in STOPS if one != "release")):
        say(kind, "one")
        say(kind, "two")
        with pytest.raises(Problem, match=f"2 reports of kind '{kind}' of lease {lease.id}"):
            say(kind, "three")
    for turn in range(4):  # a worker says it until it is answered
        say("release", f"again {turn}")


def test_a_lease_fails_where_it_first_says_so(world: World, lease: LeaseRow) -> None:
    for n in (2, 1):
        report = signed_report(lease.id, n, "failed", f"at {n}", int(time.time()), DOMAIN, world.provider)
        world.api.post_report(report)
    assert world.api.job(lease.bid).failures == 0
    world.update_lease(lease.id, accepted=1, claimed=1)
    assert world.api.job(lease.bid).failures == 1
