"""Access tokens as headers and refusals as pairs, for tests of who may read and write at a market."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount

from contracts.api.access import SCHEME, SignedToken
from contracts.api.problems import Problem
from contracts.orders import AccessToken
from contracts.types import ZERO_HASH
from tests.support.offline_market import DOMAIN


def header(key: LocalAccount, scope: str, job: str = ZERO_HASH, seconds: int = 600, **changes: Any) -> dict[str, str]:
    fields = {"account": key.address, "job": job, "scope": scope, "valid_until": int(time.time()) + seconds}
    token = AccessToken.model_validate(fields | changes)
    return {"authorization": f"{SCHEME} {SignedToken(token=token, signature=token.sign(DOMAIN, key)).encode()}"}


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        call()
    assert caught.value.hint, caught.value.message
    return caught.value.status, caught.value.code
