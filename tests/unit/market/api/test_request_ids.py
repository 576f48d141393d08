"""Ids of requests: kept, and in each line of the log."""

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from contracts.api.problems import Problem
from tests.support.offline_market import World

HASH = "0x" + "ab" * 32


def test_a_request_keeps_the_id_that_it_came_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    response = world.api._http.get(f"/v1/jobs/{HASH}", headers={"x-request-id": "load-balancer.1"})
    assert (response.headers["x-request-id"], response.json()["request"]) == ("load-balancer.1", "load-balancer.1")
    for bad in ("", "a b", "x" * 65, "a\tb"):
        response = world.api._http.get(f"/v1/jobs/{HASH}", headers={"x-request-id": bad})
        assert len(response.headers["x-request-id"]) == 12
    monkeypatch.setattr(world.context, "account", lambda address: 1 // 0)
    with pytest.raises(Problem) as caught:
        world.api.account(world.client.address)
    assert "In the market's log it is request " in str(caught.value.hint)


def test_what_is_logged_names_request_job_and_lease(world: World) -> None:
    lease = world.lease()
    with capture_logs(processors=[merge_contextvars]) as logs:
        world.api._http.get(f"/v1/jobs/{HASH}", headers={"x-request-id": "one"})
        world.api._http.post(
            "/v1/reports",
            json={"report": {"lease": lease.id}, "signature": "0x", "text": ""},
            headers={"x-request-id": "two"},
        )
        world.api._http.get("/v1/epochs/7", headers={"x-request-id": "three"})
    about = {(line["request"], line.get("job"), line.get("lease")) for line in logs if line["event"] == "api.request"}
    assert about == {("one", HASH, None), ("two", None, lease.id), ("three", None, None)}
