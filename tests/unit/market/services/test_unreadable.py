"""What an older market took, and nobody takes any more: it hides nothing else, and stops nobody."""

from typing import Any

import pytest
from sqlmodel import Session, select
from structlog.testing import capture_logs

from contracts.api.problems import Problem
from market.auction.clearing import Clearing
from market.maintenance import retention
from market.maintenance.retention import Keep
from market.store.models import AskRow, BidRow, CheckpointRow, ReportRow
from tests.support.live_lease import claim, report_up_to
from tests.support.market_parts import signed_report
from tests.support.offline_market import DOMAIN, World, replayed, stored

NOT_FINITE = ["Infinity", "-Infinity", "NaN", "1e999", '"inf"', '"1.5"', "null", "true"]


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("field", ['"seconds":1.0', '"loss":1.0'])
def test_a_claim_with_a_number_that_is_none_is_refused(world: World, value: str, field: str) -> None:
    lease = world.lease()
    body = claim(world, lease, 1, lease.tip, seconds=1.0).model_dump_json(by_alias=True)
    assert field in body
    body = body.replace(field, f"{field.partition(':')[0]}:{value}")
    response = world.api._http.post("/v1/progress", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed"), response.text
    assert world.count(CheckpointRow) == 0
    assert [message.kind for message in world.context.journal.read()] == ["upload", "upload", "bid"]


def spoil(world: World, model: Any, column: str, **changes: Any) -> str:
    """The first row as an older market might have stored it. Returns its key."""
    with world.context.db.session() as session:
        row = session.exec(select(model)).first()
        setattr(row, column, getattr(row, column) | changes)
        session.add(row)
        return str(getattr(row, "id", None) or row.lease)


def spoil_spec(session: Session, job: str) -> None:
    row = session.get_one(BidRow, job)
    row.spec = row.spec | {"steps": 3}


def test_a_checkpoint_that_can_not_be_read_hides_no_other(world: World) -> None:
    bad = world.lease()
    good = world.lease(bid=world.bid(nonce=5))
    for lease in (bad, good):
        report_up_to(world, lease, 1)
    key = spoil(world, CheckpointRow, "record", seconds=None)
    assert key in (bad.id, good.id)
    other = ({bad.id, good.id} - {key}).pop()
    with capture_logs() as logs:
        for _ in range(2):
            assert [one.lease for one in world.api.pending_progress(world.client.address)] == [other]
    assert [line["key"] for line in logs if line["event"] == "market.unreadable_row"] == [f"{key}/1"]
    told = world.context.metrics.registry.get_sample_value("gpumarket_unreadable_rows_total", {"table": "checkpoint"})
    assert told == 2
    # Its maker reports it again, and it is a checkpoint like others.
    spoilt = bad if key == bad.id else good
    assert world.api.post_progress(claim(world, spoilt, 1, spoilt.tip)).status == "reported"
    assert {one.lease for one in world.api.pending_progress(world.client.address)} == {bad.id, good.id}
    assert len(stored(world, CheckpointRow)) == len(replayed(world, CheckpointRow)) == 2


def test_each_list_goes_on_without_it(world: World) -> None:
    lease = world.lease()
    job, second = lease.bid, world.api.post_bid(world.bid(nonce=5)).id
    asks = [world.api.post_ask(world.ask(price_per_hour=price)).id for price in (1_000_000, 2_000_000)]
    for n in (1, 2):
        world.api.post_report(signed_report(lease.id, n, "release", "why", world.context.now(), DOMAIN, world.provider))
    clearing = Clearing(world.context)
    with world.context.db.session() as session:
        spoil_spec(session, second)
        ask = session.get_one(AskRow, asks[0])
        ask.resources = ask.resources | {"gpus": 99}
        session.exec(select(ReportRow)).first().kind = "nothing"  # type: ignore[union-attr]
    assert [one.id for one in world.api.jobs()] == [job, second]  # lists have no specs
    assert [one.id for one in world.api.asks()] == [asks[1]]
    assert [one.report.n for one in world.api.release_requests(world.client.address)] == [2]
    with world.context.db.reading() as session:
        seen = clearing._look(session)
        assert retention.needed_blobs(session, Keep.of(world.context.settings))
    assert set(seen.asks) == {asks[1]} and second not in seen.bids
    with pytest.raises(Problem, match=f"job {second} can't be read"):
        world.api.job(second)


def test_a_lease_of_a_job_that_can_not_be_read_hides_no_other(world: World) -> None:
    bad, good = world.lease(), world.lease(bid=world.bid(nonce=5))
    with world.context.db.session() as session:
        spoil_spec(session, bad.bid)
    assert {one.id for one in world.api.leases(live=True)} == {bad.id, good.id}  # lists have no specs
    assert world.api.lease(good.id).spec == world.spec
    with pytest.raises(Problem, match=f"lease {bad.id} can't be read"):
        world.api.lease(bad.id)
