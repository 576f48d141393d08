"""A signer's access tokens: one is used until it is old."""

import time

import pytest

from contracts.api.access import SignedToken, Signer
from contracts.orders import new_account
from contracts.types import ZERO_HASH
from tests.support.offline_market import DOMAIN

HASH = "0x" + "ab" * 32


def test_a_signer_uses_a_token_until_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, clock = Signer(new_account(), DOMAIN), [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    first = signer.reading(HASH)
    token = SignedToken.decode(first["authorization"].partition(" ")[2])
    assert (token.token.job, token.token.scope, token.token.valid_until) == (HASH, "read", 1_000_600)
    assert token.token.signer(DOMAIN, token.signature) == signer.address
    clock[0] += 500
    assert signer.reading(HASH) == first
    assert signer.reading(ZERO_HASH) != first
    assert signer.writing() != signer.reading(ZERO_HASH)
    clock[0] += 50
    assert signer.reading(HASH) != first
    clock[0] = 1_000_100  # set back: a token from the future would be refused
    assert signer.reading(HASH) == signer.reading(HASH) != first
