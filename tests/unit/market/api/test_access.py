"""Who asks, and how often: tokens, rate limits, and a client that waits when it is told to."""

import sys
import time
from typing import Any

import pytest
import time_machine
from starlette.testclient import TestClient

from contracts.api.access import SCHEME, SignedToken
from contracts.api.problems import Code, Problem
from contracts.orders import AccessToken
from market.api.access import Callers
from market.api.app import create_app
from market.runtime.metrics import Metrics
from tests.support.access import code, header, refused
from tests.support.market_parts import (
    RECIPE,
    sha256,
)
from tests.support.offline_market import DOMAIN, World

HASH = "0x" + "ab" * 32


def test_tokens_that_are_refused(world: World) -> None:
    job, url = world.lease().bid, f"/v1/blobs/{sha256(RECIPE)}"

    def get(headers: dict[str, str]) -> Any:
        return world.api._http.get(url, headers=headers)

    good = header(world.client, "read", job)
    assert get(good).content == RECIPE
    missing = get({})
    assert code(missing) == (401, "access_token_missing")
    assert missing.headers["www-authenticate"] == SCHEME
    assert code(get(header(world.client, "read", job, seconds=-1))) == (401, "access_token_expired")
    assert code(get(header(world.client, "read", job, seconds=3700))) == (401, "access_token_invalid")
    assert get(header(world.client, "read", job, seconds=3590)).status_code == 200
    assert code(get(header(world.client, "write"))) == (401, "access_token_invalid")
    assert code(get(header(world.stranger, "read", job, account=world.client.address))) == (401, "access_token_invalid")
    assert code(get({"authorization": "Bearer abc"})) == (401, "access_token_invalid")
    for broken in ("", "{}", "=", "é", good["authorization"][len(SCHEME) + 1 : -4], "[" * 5000):
        sent = f"{SCHEME} {broken}".encode()
        assert code(get({"authorization": sent})) == (401, "access_token_invalid"), broken  # type: ignore[dict-item]
    # For this very job only.
    other = world.api.post_bid(world.bid(nonce=1)).id
    reports = world.api._http.get(f"/v1/jobs/{job}/reports", headers=header(world.client, "read", other))
    assert code(reports) == (401, "access_token_invalid")
    # A token that was good is not, once its time is over.
    short = header(world.client, "read", job, seconds=60)
    assert get(short).status_code == 200
    with time_machine.travel(time.time() + 61):
        assert code(get(short)) == (401, "access_token_expired")


def test_rate_limits(world: World) -> None:
    world.context.settings = world.context.settings.model_copy(
        update={"requests_per_minute_account": 3, "requests_per_minute_address": 5}
    )
    with TestClient(create_app(world.context), base_url="http://market.test") as http:
        money, poor = (header(key, "write") for key in (world.client, world.stranger))
        name = f"/v1/blobs/{HASH}"
        # The first use of a token counts for the address: anyone can write down a token that has to be checked.
        assert [http.head(name, headers=money).status_code for _ in range(5)] == [404, 404, 404, 404, 429]
        assert [http.get("/v1/info", headers=poor).status_code for _ in range(3)] == [200, 200, 200]
        assert http.get("/v1/info").status_code == 200
        over = http.get("/v1/info")
        assert code(over) == (429, "too_many_requests")
        assert 1 <= int(over.headers["retry-after"]) <= 60
        assert http.get("/v1/info", headers=poor).status_code == 429
        assert http.get("/readyz").status_code == 204


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # one line has all of these
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_addresses_of_one_line_share_a_limit(world: World, first: str, second: str, same: bool) -> None:
    world.context.settings = world.context.settings.model_copy(update={"requests_per_minute_address": 1})
    callers = Callers(world.context)
    callers.admit(None, first)
    if same:
        assert refused(lambda: callers.admit(None, second)) == (429, "too_many_requests")
    else:
        callers.admit(None, second)


def test_one_token_written_in_many_ways_fills_no_memory(world: World) -> None:
    """base64 decoders pass over what is not base64."""
    callers = Callers(world.context)
    good = header(world.client, "write")["authorization"]
    for at in range(3):
        admitted = callers.admit(good + "*" * (50_000 + 4 * at), "192.0.2.1")
        assert admitted is not None and admitted.account == world.client.address
    assert sum(map(sys.getsizeof, callers._known)) < 1_000


def test_the_client_waits_when_it_is_told_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("contracts.api.client.time", type("clock", (), {"sleep": sleep, "monotonic": lambda: clock[0]}))
    callers = world.api._http.app.state.callers  # type: ignore[union-attr]
    answers = [7, 8, None]

    def admit(*_: object) -> None:
        wait = answers.pop(0) if answers else 40
        if wait is not None:
            raise Problem(429, Code.TOO_MANY_REQUESTS, "too often", retry_after=wait)

    monkeypatch.setattr(callers, "admit", admit)
    assert world.api.info().chain_id == 31337
    assert slept == [7, 8]
    with pytest.raises(Problem) as caught:  # longer than its timeout
        world.api.info()
    assert caught.value.code == Code.TOO_MANY_REQUESTS
    assert slept == [7, 8]


def test_of_an_account_without_code_the_chain_is_asked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get_code(address: str) -> bytes:
        asked.append(address)
        return b""

    monkeypatch.setattr(world.chain.w3.eth, "get_code", get_code)
    for second in range(20):
        token = AccessToken(account=world.client.address, scope="write", valid_until=int(time.time()) + 60 + second)
        signed = SignedToken(token=token, signature=token.sign(DOMAIN, world.stranger))
        response = world.api._http.get("/v1/info", headers={"authorization": f"{SCHEME} {signed.encode()}"})
        assert (response.status_code, response.json()["code"]) == (401, "access_token_invalid")
    assert asked == [world.client.address]
    assert world.api_of(world.client).has_blob(sha256(RECIPE))  # which needs no question


def test_pages_of_other_origins(world: World) -> None:
    """None, but those that the operator names."""
    asks = {"origin": "https://example.org", "access-control-request-method": "POST"}
    asks["access-control-request-headers"] = "authorization,content-type,idempotency-key"
    closed = world.api._http.options("/v1/quote", headers=asks)
    assert "access-control-allow-origin" not in closed.headers
    assert "access-control-allow-origin" not in world.api._http.get("/v1/info", headers=asks).headers
    world.context.settings = world.context.settings.model_copy(update={"cors_origins": ("https://example.org",)})
    world.context.metrics = Metrics()
    with TestClient(create_app(world.context), base_url="http://market.test") as http:
        preflight = http.options("/v1/quote", headers=asks)
        assert preflight.status_code == 200
        for response in (preflight, http.get("/v1/info", headers=asks), http.get("/v1/nothing", headers=asks)):
            assert response.headers["access-control-allow-origin"] == "https://example.org"
        allowed = preflight.headers["access-control-allow-headers"].lower()
        assert all(name in allowed for name in ("authorization", "content-type", "idempotency-key", "range"))
        exposed = http.get("/v1/nothing", headers=asks).headers["access-control-expose-headers"].lower()
        assert "retry-after" in exposed and "x-request-id" in exposed
        other = http.get("/v1/info", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
