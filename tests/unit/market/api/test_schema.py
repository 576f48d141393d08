"""Random requests along the OpenAPI schema: the market answers as its schema says, and none finds a bug."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.api.app import create_app
from tests.support.offline_market import World

SCHEMA = schemathesis.openapi.from_dict(create_app().openapi())
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}


@pytest.mark.parametrize("label", OPERATIONS)
def test_random_requests(world: World, label: str) -> None:
    operation = OPERATIONS[label]

    @settings(max_examples=10, suppress_health_check=list(HealthCheck), deadline=None)
    @given(data=st.data())
    def run(data: Any) -> None:
        case = data.draw(operation.as_strategy())
        transport = case.as_transport_kwargs(base_url="http://market.test")
        transport.pop("cookies", None)
        if "data" in transport:
            transport["content"] = transport.pop("data")
        response = world.api._http.request(**transport)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers.get("x-request-id")

    run()
