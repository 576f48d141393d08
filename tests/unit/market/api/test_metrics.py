"""/metrics: what it counts, to whom it tells, and that each is documented."""

import re

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from contracts.api.problems import Problem
from market.store.models import BlobRow
from tests.support import ROOT
from tests.support.offline_market import World


def samples(world: World) -> dict[tuple[str, ...], float]:
    """By name and values of labels, in the order of the labels' names."""
    here = TestClient(world.api._http.app, client=("127.0.0.1", 1))
    found = {}
    for family in text_string_to_metric_families(here.get("/metrics").text):
        for sample in family.samples:
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def test_what_is_told(world: World) -> None:
    world.lease()
    with pytest.raises(Problem):
        world.api.job("0x" + "ab" * 32)
    world.api._http.get("/made/up")
    world.context.metrics.collected.inc(7)
    told = samples(world)
    assert told["gpumarket_request_seconds_count", "post_bid", "201"] == 1
    assert told["gpumarket_request_seconds_count", "get_job", "404"] == 1
    assert told["gpumarket_request_seconds_count", "none", "404"] == 1
    assert not any("made" in part for name in told for part in name)
    assert told["gpumarket_leases", "active"] == 1
    assert told["gpumarket_jobs", "running"] == 1
    assert told["gpumarket_jobs", "done"] == 0
    assert told["gpumarket_leader",] == 1
    assert told["gpumarket_blobs",] == world.count(BlobRow)
    assert told["gpumarket_collected_bytes_total",] == 7


def test_who_asks_too_often_is_counted(world: World) -> None:
    callers = world.api._http.app.state.callers
    callers._limits._per_address.amount = 0
    with pytest.raises(Problem):
        callers.admit(None, "10.0.0.1")
    assert samples(world)["gpumarket_limited_requests_total", "address"] == 1


def test_a_silent_node_hides_only_what_it_would_say(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(address: str) -> int:
        raise requests.ConnectionError("refused")

    monkeypatch.setattr(world.chain.w3.eth, "get_balance", silent)
    told = samples(world)
    assert ("gpumarket_gas_balance_ether",) not in told
    assert ("gpumarket_leader",) in told


def test_for_this_machine_only(world: World) -> None:
    app = world.api._http.app
    for host, status in [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.0.0.1", 404), ("x", 404)]:
        assert TestClient(app, client=(host, 1)).get("/metrics").status_code == status, host
    public = world.context.settings.model_copy(update={"metrics_public": True})
    world.context.settings = public
    assert TestClient(app, client=("10.0.0.1", 1)).get("/metrics").status_code == 200


OTHERS = ("gpumarket_approver_", "gpumarket_arbiter_")  # programs


def test_each_metric_is_documented(world: World) -> None:
    world.context.sender = type("Sending", (), {"in_flight": lambda self: 3})()
    told = {metric.name for metric in world.context.metrics.registry.collect()}
    documented = set(re.findall(r"^\| `(gpumarket_[a-z_]+)", (ROOT / "docs" / "operations.md").read_text(), re.M))
    assert {name.removesuffix("_total") for name in documented if not name.startswith(OTHERS)} == told
