"""A NUL in what an earlier version has stored: PostgreSQL can keep it in a JSON, and look into no such JSON."""

from typing import Any

import pytest

from contracts.job.early_stop import Stop
from contracts.terms import Phase
from market.services import admission
from market.services.jobs import count_by_status
from tests.support.market_parts import make_spec
from tests.support.stepped_market import Lives, differences

NULS: dict[str, Any] = {
    "config": {"text": "a\0b", "a\0b": 1},
    "resources": {"devices": ["a\0b", "Test CPU"], "regions": ["\0"]},
    "stop": Stop(metric="a\0b", patience=1),
}


def post_as_before(market: Lives, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(admission, "check_storable", lambda value, where: None)
        return market.post_bid()


def test_it_stops_nobody_else(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    market.spec = make_spec(**NULS)
    other = post_as_before(market, monkeypatch)
    market.post_ask(market.providers[1])
    market.clear()
    lease = market.lease_of(job)
    market.make(lease, 1)  # by the approver's rounds
    market.approver.answer_releases()
    market.approver.redeem_for_vanished()
    market.clear()
    assert {one.id for one in market.api.jobs()} == {job.id, other.id}
    assert market.api.job(other.id).spec == market.spec
    assert lease.id in {one.id for one in market.api.leases()}
    with market.context.db.reading() as session:
        assert count_by_status(market.context, session).total() == 2
    metrics = market.api._http.get("/metrics")
    assert metrics.status_code == 200 or "for this machine only" in metrics.text
    assert differences(market) == []


def test_its_provider_is_paid(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    market.spec = make_spec(config={"text": "a\0b"})
    job = post_as_before(market, monkeypatch)
    market.post_ask(market.providers[0])
    market.clear()
    lease = market.lease_of(job)
    market.make(lease, lease.end)
    market.redeem(lease)
    (ended,) = market.api.job(job.id).leases
    assert (ended.finished, ended.paid, ended.penalty) == ("completed", lease.price * lease.end, 0)
    assert market.state(lease).phase is Phase.NONE
