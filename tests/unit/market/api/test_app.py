"""The API's frame: problems for all that goes wrong, limits, blobs over HTTP, the schema without a market."""

import sys
from typing import Any

import pytest
import requests
from structlog.testing import capture_logs

from contracts.api.problems import Code
from market.api.app import create_app
from tests.support.offline_market import World

HASH = "0x" + "ab" * 32


def test_the_schema_needs_no_market() -> None:
    schema = create_app().openapi()
    assert schema["openapi"].startswith("3.1")
    assert {"/v1/info", "/v1/bids", "/v1/blobs/{sha256}", "/healthz", "/readyz"} <= schema["paths"].keys()
    assert "HTTPValidationError" not in str(schema)
    identifiers = [operation["operationId"] for path in schema["paths"].values() for operation in path.values()]
    assert len(identifiers) == len(set(identifiers))


def test_info(world: World) -> None:
    info = world.api.info()
    assert info.chain_id == 31337
    assert info.matcher == world.context.matcher
    assert [rules.name for rules in info.rules] == ["unchecked"]
    assert info.max_blob_bytes == 100_000


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, Code.NOT_FOUND),
        ("GET", "/v1/nothing", 404, Code.NOT_FOUND),
        ("DELETE", "/v1/asks", 405, Code.METHOD_NOT_ALLOWED),
        ("GET", f"/v1/asks/{HASH}", 404, Code.NOT_FOUND),
        ("GET", f"/v1/jobs/{HASH}", 404, Code.NOT_FOUND),
        ("GET", f"/v1/jobs/{HASH}/checkpoints", 404, Code.NOT_FOUND),
        ("GET", f"/v1/jobs/{HASH}/reports", 401, Code.ACCESS_TOKEN_MISSING),
        ("GET", f"/v1/leases/{HASH}", 404, Code.NOT_FOUND),
        ("GET", "/v1/epochs/7", 404, Code.NOT_FOUND),
        ("GET", f"/v1/blobs/{HASH}", 401, Code.ACCESS_TOKEN_MISSING),
        ("GET", "/v1/asks/0x12", 422, Code.VALIDATION_FAILED),
        ("GET", "/v1/asks?status=fine", 422, Code.VALIDATION_FAILED),
        ("GET", "/v1/asks?limit=0", 422, Code.VALIDATION_FAILED),
        ("GET", "/v1/asks?limit=501", 422, Code.VALIDATION_FAILED),
        ("GET", "/v1/accounts/0x12", 422, Code.VALIDATION_FAILED),
        ("GET", "/v1/epochs/99999999999999999999", 422, Code.VALIDATION_FAILED),
        ("POST", "/v1/bids", 422, Code.VALIDATION_FAILED),
    ],
)
def test_every_refusal_is_a_problem(world: World, method: str, path: str, status: int, code: Code) -> None:
    response = world.api._http.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.headers["x-request-id"]) == 12
    body = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:gpumarket:problem:{code}")
    assert body["detail"]


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [300, 990, 100_000])
def test_a_body_that_is_nested_too_deep(world: World, opening: str, closing: str, depth: int) -> None:
    """In a process of its own this was a segmentation fault: a package had raised Python's recursion limit."""
    assert sys.getrecursionlimit() <= 10_000
    for body in (
        opening * depth,
        f'{{"spec": {{"config": {opening * depth}1{closing * depth}}}}}',
    ):
        response = world.api._http.post("/v1/quote", content=body, headers={"content-type": "application/json"})
        assert response.status_code in (400, 422), response.text
        assert response.json()["code"] == Code.VALIDATION_FAILED


@pytest.mark.parametrize("depth", [65, 250, 400])
def test_a_config_that_is_nested_too_deep(world: World, depth: int) -> None:
    """One that could be taken in, but not given out again, would break the list of jobs for all."""
    config: dict[str, Any] = {}
    for _ in range(depth):
        config = {"in": config}
    spec = world.spec.model_dump(mode="json")
    bodies = {"client": world.client.address, "units": 1, "max_price": "1000000", "stake": "20000000"}
    response = world.api._http.post("/v1/quote", json=bodies | {"spec": spec | {"config": config}})
    assert (response.status_code, response.json()["code"]) == (422, Code.VALIDATION_FAILED)
    assert "config is nested more than 64 deep" in response.json()["detail"]


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("{", "the body is not JSON"),
        ('{"client": "0x12"}', "client: expected an address"),
        ('{"client": "0x00000000000000000000000000000000000000AA", "units": 1.5}', "spec: Field required"),
    ],
)
def test_what_is_wrong_with_a_body_is_a_sentence(world: World, content: str, detail: str) -> None:
    response = world.api._http.post("/v1/quote", content=content, headers={"content-type": "application/json"})
    assert response.json()["detail"].startswith(detail)
    assert response.json()["code"] == "validation_failed"


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"nam": "x"}, "nam: there is no such field; did you mean 'name'?"),
        ({"zzz": 1}, "zzz: there is no such field; known are: bid, grants, name, sealed_files, signature, spec"),
        ({"bid": {"maxprice": "1"}}, "bid.maxprice: there is no such field; did you mean 'maxPrice'?"),
        ({"spec": {"resources": {"vram": 1}}}, "spec.resources.vram: there is no such field; did you mean 'vram_mb'?"),
        ({"spec": {"files": {"a": {"sha": 1}}}}, "spec.files.a.sha: there is no such field; did you mean 'sha256'?"),
    ],
)
def test_an_unknown_field_of_a_body(world: World, change: dict[str, Any], detail: str) -> None:
    response = world.api._http.post("/v1/bids", json=change)
    assert detail in [f"{one['field']}: {one['message']}" for one in response.json()["errors"]]


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/v1/jobs?statu=open", "there is no parameter 'statu' here: did you mean 'status'?"),
        (
            "/v1/jobs?zzz=1",
            "there is no parameter 'zzz' here: known are: after, client, limit, name, prefix, status, tip",
        ),
        ("/v1/info?verbose=1", "there is no parameter 'verbose' here: known are: none"),
    ],
)
def test_an_unknown_parameter(world: World, path: str, detail: str) -> None:
    response = world.api._http.get(path)
    assert (response.status_code, response.json()["code"], response.json()["detail"]) == (
        422,
        "validation_failed",
        detail,
    )


def test_a_body_that_is_too_large(world: World) -> None:
    response = world.api._http.post("/v1/quote", content=b" " * ((4 << 20) + 1))
    assert (response.status_code, response.json()["code"]) == (413, "validation_failed")


def test_a_bug_is_not_shown_to_the_client(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(address: str) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(world.context, "account", crash)
    response = world.api._http.get("/v1/accounts/0x00000000000000000000000000000000000000AA")
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_a_silent_node(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(address: str) -> None:
        raise requests.ConnectionError("refused")

    monkeypatch.setattr(world.context, "account", silent)
    body = world.bid()
    world.refuses(lambda: world.api.post_bid(body), 503, Code.MARKET_NOT_READY)


def test_an_ordinary_poll_is_no_line_of_the_log(world: World) -> None:
    with capture_logs() as logs:
        for path in ("/v1/jobs/0x" + "11" * 32, "/v1/keys/" + world.client.address, "/v1/info", "/v1/progress"):
            world.api._http.get(path)
        world.api._http.post("/v1/approvals", json={})
        world.api._http.get("/v1/jobs?after=nothing")
    assert {(line["event"], line["status"]) for line in logs if line["log_level"] != "debug"} == {("api.refused", 422)}
