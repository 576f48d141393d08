"""Jobs that end before their last checkpoint, by their own rule or because time is over; and those that follow."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.api.problems import Code, Problem
from contracts.job.early_stop import Stop
from contracts.terms import Phase
from tests.support.devnet import TOKEN
from tests.support.market_parts import make_spec
from tests.support.stepped_market import Lives

pytestmark = pytest.mark.mostly_sqlite

STOP = Stop(metric="eval_loss", patience=1)


def deadline(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_job_that_stops_early_is_done_and_its_money_free(market: Lives) -> None:
    market.spec = make_spec(stop=STOP)
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    lease = market.lease_of(job)
    tip = lease.state.tip
    for index, loss in ((1, 1.0), (2, 1.0)):
        tip = market.report(lease, index, tip, metrics={"eval_loss": loss}).tip
        market.approver.approve_reported()
    assert market.api.job(job.id).status == "running"
    # The approver signs no later one, whatever the provider does.
    market.report(lease, 3, tip, metrics={"eval_loss": 0.1})
    market.approver.approve_reported()
    refused = market.api.lease(lease.id).rejection
    assert refused is not None and "the job is over: early stop at checkpoint 2" in refused.rejection.reason
    market.say(lease, "release", 2, "early stop")
    market.approver.answer_releases()
    market.redeem(lease)
    assert market.state(lease).phase is Phase.CLOSED
    done = market.api.job(job.id)
    assert (done.status, done.accepted, done.paid) == ("done", 2, 2 * TOKEN)
    assert done.reason == "early stop at checkpoint 2: eval_loss made no progress for 1 checkpoints"
    assert market.chain.account(market.client.address).free == 98 * TOKEN
    market.post_ask(market.providers[1])
    assert market.clear() is None


def test_a_checkpoint_without_the_metric_is_rejected(market: Lives) -> None:
    market.spec = make_spec(stop=STOP)
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    lease = market.lease_of(job)
    market.report(lease, 1, lease.state.tip, metrics={"loss": 1.0})
    market.approver.approve_reported()
    refused = market.api.lease(lease.id).rejection
    assert refused is not None and "`stop` goes by 'eval_loss'" in refused.rejection.reason


def test_a_deadline_keeps_slow_machines_away_and_ends_the_job(market: Lives) -> None:
    market.spec = make_spec(deadline=deadline(600))  # four checkpoints, a second each
    job = market.post_bid()
    market.post_ask(market.providers[0], units_per_hour=3_600_000_000 // 180, price_per_hour=20_000_000)
    assert market.clear() is not None
    assert market.api.job(job.id).leases == []
    assert market.api.job(job.id).reason == "every fitting machine is too slow to be done by the job's deadline"
    market.post_ask(market.providers[1])
    assert market.clear() is not None
    lease = market.lease_of(job)
    market.make(lease, 1)
    market.say(lease, "release", 1)
    market.approver.answer_releases()
    market.redeem(lease)
    market.pass_time(int(time.time()) + 610 - market.chain.now())
    over = market.api.job(job.id)
    assert (over.status, over.reason) == ("expired", "its deadline has passed, with 1 of 4 checkpoints accepted")
    assert market.clear() is None


@pytest.mark.parametrize(
    ("spec", "bid", "says"),
    [
        ({}, {"start_tip": "0x" + "11" * 20}, "which no checkpoint of"),
        ({"start_step": 20}, {}, "at the Bid's startTip 0 steps are done"),
        ({"start_step": 30}, {"start_tip": "TIP"}, "at the Bid's startTip 20 steps are done"),
        ({"start_step": 20}, {"start_tip": "TIP"}, None),
    ],
)
def test_a_follow_up_job_goes_on_from_a_checkpoint_of_its_client(
    market: Lives, spec: dict[str, Any], bid: dict[str, Any], says: str | None
) -> None:
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    tip = market.make(market.lease_of(job), 2)
    market.spec = make_spec(**spec)
    changes = {name: tip if value == "TIP" else value for name, value in bid.items()}
    if says is None:
        assert market.post_bid(**changes).status == "pending"
        return
    with pytest.raises(Problem, match=says) as caught:
        market.post_bid(**changes)
    assert caught.value.code == Code.JOB_MISMATCH
