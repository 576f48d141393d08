"""Whatever form a wallet gives v: what is stored, and goes on chain, has it as the escrow takes it."""

import time
from functools import partial
from typing import Any

import pytest

from contracts.api.access import SCHEME, SignedToken
from contracts.api.problems import Code
from contracts.orders import AccessToken
from contracts.types import ZERO_HASH, to_hex
from market.store.models import AskRow, BidRow
from tests.support.offline_market import DOMAIN, World, replayed, stored

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def in_form(message: Any, key: Any, form: str) -> str:
    """A signature as a wallet might write it."""
    signed = key.sign_message(message.signable(DOMAIN))
    r, s, parity = signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big"), signed.v - 27
    if form == "high s":
        return to_hex(r + (N - signed.s).to_bytes(32, "big") + bytes([28 - parity]))
    v = {"27": bytes([27 + parity]), "0": bytes([parity]), "EIP-155": (2 * 8453 + 35 + parity).to_bytes(2, "big")}[form]
    return to_hex(r + s + v)


@pytest.mark.parametrize("form", ["0", "EIP-155"])
@pytest.mark.parametrize("kind", ["ask", "bid"])
def test_orders_are_stored_as_the_escrow_takes_them(world: World, kind: str, form: str) -> None:
    post: Any = world.api.post_ask if kind == "ask" else world.api.post_bid
    owner = world.provider if kind == "ask" else world.client
    body = getattr(world, kind)()
    order = getattr(body, kind)
    plain = in_form(order, owner, "27")
    out = post(body.model_copy(update={"signature": in_form(order, owner, form)}))
    assert out.signature == plain
    model: Any = AskRow if kind == "ask" else BidRow
    assert [row["signature"] for row in stored(world, model)] == [plain]
    assert replayed(world, model) == stored(world, model)  # the journal has it, too


def test_what_the_escrow_would_refuse_is_refused_with_the_reason(world: World) -> None:
    body = world.bid()
    good = in_form(body.bid, world.client, "27")
    for signature, words in (
        (good[:-2] + "05", "its v is 5; 27 or 28 is wanted"),
        (good[:-4], "it has 63 bytes; 65 (r, s, v) or 64 (EIP-2098) are wanted"),
        (in_form(body.bid, world.client, "high s"), "upper half of the curve's order"),
        (in_form(body.bid, world.stranger, "27"), f"it is that of {world.stranger.address}"),
        (in_form(body.bid, world.stranger, "0"), f"it is that of {world.stranger.address}"),
    ):
        changed = body.model_copy(update={"signature": signature})
        problem = world.refuses(partial(world.api.post_bid, changed), 422, Code.ORDER_SIGNATURE_INVALID)
        assert words in problem.message
        assert f"not that of {world.client.address} over this Bid" in problem.message


def test_access_tokens(world: World) -> None:
    token = AccessToken(account=world.client.address, job=ZERO_HASH, scope="write", valid_until=int(time.time()) + 600)
    for form, status in (("27", 404), ("0", 404), ("EIP-155", 404), ("high s", 401)):
        encoded = SignedToken(token=token, signature=in_form(token, world.client, form)).encode()
        headers = {"authorization": f"{SCHEME} {encoded}"}
        assert world.api._http.head(f"/v1/blobs/{ZERO_HASH}", headers=headers).status_code == status
        answer = world.api._http.get(f"/v1/blobs/{ZERO_HASH}", headers=headers).json()
        assert ("upper half" in answer["detail"]) == (form == "high s")
