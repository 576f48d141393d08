"""What a body may hold: each list, name and number of each body has an end, and what goes beyond it is told shortly."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from contracts.api.problems import Problem
from contracts.job.spec import MAX_CONFIG, MAX_METRIC_NAME, MAX_METRICS, MAX_NUMERICS
from market.api.app import create_app
from market.api.json_bodies import MAX_KEYS, MAX_VALUES, JsonRoute, cut_wide_objects, read_body
from market.api.middleware import LARGER, MAX_BODY
from market.api.routes import blobs, epochs, info, jobs, keys, leases, orders, progress
from tests.support.market_parts import make_record
from tests.support.offline_market import World

BY_BYTES = {"JobSpec.config": MAX_CONFIG, "CheckpointRecord.numerics": MAX_NUMERICS}  # whose ends are tested below
HALF = '"\\ud800"'


def unbounded(schema: dict[str, Any], models: dict[str, Any], at: str, seen: set[str]) -> Iterator[str]:
    """Places of a JSON schema where more may stand than anybody has said."""
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        if name not in seen:
            seen.add(name)
            yield from unbounded(models[name], models, name, seen)
        return
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from unbounded(one, models, at, seen)
    match schema.get("type"):
        case _ if "enum" in schema or "const" in schema or at in BY_BYTES:
            return
        case "string":
            if (
                "maxLength" not in schema
                and not ends(schema.get("pattern", ""))
                and schema.get("format") != "date-time"
            ):
                yield at
        case "integer" | "number":
            if (
                not {"minimum", "exclusiveMinimum"} & schema.keys()
                or not {"maximum", "exclusiveMaximum"} & schema.keys()
            ):
                yield at
        case "array":
            if "maxItems" not in schema:
                yield at
            yield from unbounded(schema["items"], models, f"{at}[]", seen)
        case "object":
            for name, one in schema.get("properties", {}).items():
                yield from unbounded(one, models, f"{at}.{name}", seen)
            if "properties" not in schema and "maxProperties" not in schema:
                yield at
            values = schema.get("additionalProperties", False)
            if isinstance(values, dict):
                names = {"type": "string"} | schema.get("propertyNames", {})
                yield from unbounded(names, models, f"{at}{{name}}", seen)
                yield from unbounded(values, models, f"{at}{{}}", seen)
            elif values or (values is None and "properties" not in schema):
                yield at
            for pattern, one in schema.get("patternProperties", {}).items():
                if not ends(pattern):
                    yield f"{at}{{name}}"
                yield from unbounded(one, models, f"{at}{{}}", seen)


def ends(pattern: str) -> bool:
    """Whether no text without end fits it."""
    without_classes = re.sub(r"\[[^]]*]|\\.", "", pattern)
    return pattern.startswith("^") and pattern.endswith("$") and not re.search(r"[*+]|,}", without_classes)


def test_each_field_of_each_body_has_a_bound() -> None:
    schema = create_app().openapi()
    bodies = {
        f"{method} {path}": content["schema"]
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        if kind == "application/json"
    }
    assert len(bodies) >= 11
    seen: set[str] = set()
    found = [place for at, one in bodies.items() for place in unbounded(one, schema["components"]["schemas"], at, seen)]
    assert found == []
    assert {"JobSpec", "AskResources", "CheckpointRecord", "Wants", "Bid", "Report", "OffersIn"} <= seen


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "string", "pattern": "^a+$"},
        {"type": "integer", "minimum": 0},
        {"type": "number", "maximum": 1},
        {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1}},
        {"type": "array", "maxItems": 1, "items": {"type": "string"}},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 1}},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
    ],
)
def test_what_has_none_is_found(schema: dict[str, Any]) -> None:
    assert list(unbounded(schema, {}, "here", set()))


def test_each_route_with_a_body_reads_it_with_bounds() -> None:
    routes = [
        route
        for room in (blobs, epochs, info, jobs, keys, leases, orders, progress)
        for route in room.router.routes
        if isinstance(route, APIRoute) and route.body_field is not None
    ]
    assert len(routes) >= 11
    assert [route.path for route in routes if not isinstance(route, JsonRoute)] == []


def post(world: World, path: str, content: str | bytes) -> Any:
    response = world.api._http.post(path, content=content, headers={"content-type": "application/json"})
    assert len(response.content) < 16_384
    return response


def quote(world: World, **changes: Any) -> Any:
    """The status and the detail of the answer."""
    spec = world.spec.model_dump(mode="json") | changes
    body = {"client": world.client.address, "units": 1, "max_price": "1000000", "stake": "20000000", "spec": spec}
    response = post(world, "/v1/quote", json.dumps(body))
    return response.status_code, response.json().get("detail", "")


def test_a_job_as_large_as_they_may_be(world: World) -> None:
    files = {f"{'d' * 200}/{number}": {"sha256": "0x" + "11" * 32, "size": 1} for number in range(999)}
    config = {"text": "x" * (MAX_CONFIG - 11)}
    changes = {"files": files | world.spec.model_dump(mode="json")["files"], "config": config}
    assert quote(world, **changes)[0] == 200
    changes["config"] = {"text": "x" * (MAX_CONFIG - 10)}
    assert quote(world, **changes) == (
        422,
        f"spec: config has {MAX_CONFIG + 1} bytes as JSON; {MAX_CONFIG} are the most",
    )


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"resources": {"devices": ["x"] * 51}}, "spec.resources.devices: "),
        ({"resources": {"devices": [1] * 19_000}}, "spec.resources.devices"),
        ({"resources": {"devices": ["x" * 201]}}, "spec.resources.devices.0: "),
        ({"resources": {"regions": ["x" * 65]}}, "spec.resources.regions.0: "),
        ({"resources": {"vram_mb": 1 << 60}}, "spec.resources.vram_mb: "),
        ({"recipe": "x" * 1000 + ".py:A"}, "spec.recipe: "),
        ({"deadline": "2" * 1000}, "spec.deadline: "),
        ({"seed": 10**4000}, "spec.seed: "),
        ({"files": {f"f{number}": 1 for number in range(6_000)}}, "spec.files."),
        ({"x" * 50_000: 1}, "spec." + "x" * 100 + ": there is no such field"),
        ({f"k{number}": 1 for number in range(6_000)}, "spec.k0: there is no such field"),
        ({"config": {"a": [[]] * MAX_VALUES}}, f"the body has more than {MAX_VALUES} values in it"),
    ],
)
def test_more_than_anybody_needs(world: World, changes: dict[str, Any], detail: str) -> None:
    status, said = quote(world, **changes)
    assert status == 422
    assert said.startswith(detail)


def test_what_is_wide_is_cut_but_in_a_config() -> None:
    """Where each key that is wrong would be told, a body of them takes the event loop's time."""
    wide = {f"k{number}": 1 for number in range(MAX_KEYS + 1)}
    body: dict[str, Any] = {"spec": [{"files": dict(wide)}], "config": dict(wide)}
    assert cut_wide_objects(body)
    assert list(body["spec"][0]["files"]) == list(wide)[:MAX_KEYS] and body["config"] == wide
    assert not cut_wide_objects(body)


def test_signs_in_a_text_are_no_values(world: World) -> None:
    config = {"text": ',:[{\\"' * 8_000}
    assert quote(world, config=config)[0] == 200


@pytest.mark.parametrize("text", [b'"' + b'\\"' * 500_000, b'"' + b'\\"' * 500_000 + b"\\", b'"a\\"' * 250_000])
def test_texts_without_end_are_read_once(text: bytes) -> None:
    """In a time that grows with their length: one that grows with its square would be an hour."""
    with pytest.raises(Problem, match=f"more than {MAX_VALUES} values"):
        read_body(b"," * (MAX_VALUES + 1) + text)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"inf"', '"nan"', "-1e999", "null"])
@pytest.mark.parametrize("field", ["seconds", "metrics"])
def test_no_number_without_end(world: World, field: str, value: str) -> None:
    lease = world.lease()
    record = make_record(lease.job, 1, lease.tip)
    record = json.loads(record.model_dump_json())
    record[field] = "HERE" if field == "seconds" else {"loss": "HERE"}
    body = {"claim": {"lease": lease.id, "n": 1, "tip": record["tip"]}, "signature": "0x12", "checkpoint": record}
    assert post(world, "/v1/progress", json.dumps(body).replace('"HERE"', value)).status_code == 422


def test_metrics_and_numerics(world: World) -> None:
    lease = world.lease()
    for changes in (
        {"metrics": {f"m{number}": 1.0 for number in range(MAX_METRICS + 1)}},
        {"metrics": {"m" * (MAX_METRIC_NAME + 1): 1.0}},
        {"metrics": {"": 1.0}},
        {"numerics": {"x": "y" * MAX_NUMERICS}},
        {"seconds": 1e400},
        {"step": 1 << 60},
    ):
        record = json.loads(make_record(lease.job, 1, lease.tip).model_dump_json()) | changes
        body = {"claim": {"lease": lease.id, "n": 1, "tip": record["tip"]}, "signature": "0x12", "checkpoint": record}
        response = post(world, "/v1/progress", json.dumps(body))
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed")


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": {"devices": ["HERE"]}},
        {"resources": {"regions": ["HERE"]}},
        {"config": {"a": "HERE"}},
        {"config": {"HERE": 1}},
        {"files": {"HERE": {"sha256": "0x" + "11" * 32, "size": 1}}},
        {"deadline": "HERE"},
        {"HERE": 1},
        {"recipe": "HERE"},
    ],
)
def test_half_a_surrogate_pair(world: World, changes: dict[str, Any]) -> None:
    spec = world.spec.model_dump(mode="json") | changes
    body = json.dumps({"client": world.client.address, "units": 1, "spec": spec}).replace('"HERE"', HALF)
    for path in ("/v1/quote", "/v1/offers", "/v1/bids"):
        response = post(world, path, body)
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed")


@pytest.mark.parametrize("path", ["/v1/asks", "/v1/progress", "/v1/reports", "/v1/bids", "/v1/approvals"])
def test_a_body_as_long_as_it_may_be_and_one_byte_more(world: World, path: str) -> None:
    most = LARGER.get(path, MAX_BODY)
    assert post(world, path, b" " * most).status_code == 422
    assert post(world, path, b" " * (most + 1)).status_code == 413
    assert post(world, path, iter([b" " * most, b" "])).status_code == 413  # type: ignore[arg-type]


def test_a_number_of_many_digits(world: World) -> None:
    for units in ("1" * 100_000, "0" * 100 + "1" * 21, 10**30):
        body = {"client": world.client.address, "units": units, "spec": world.spec.model_dump(mode="json")}
        response = post(world, "/v1/quote", json.dumps(body))
        assert (response.status_code, "does not fit in uint64" in response.json()["detail"]) == (422, True)
