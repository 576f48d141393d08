"""What a drained market waits for: until when at the latest, and what of the escrow's tokens is free."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.terms import Flag, Phase
from contracts.types import ZERO_ADDRESS
from market.maintenance.remaining import Remaining, look_at
from market.store.models import LeaseRow
from tests.support.offline_market import RULES, World

NOW = int(time.time())


def remaining(world: World, *, tokens: int = 0, bond: int = 0) -> Remaining:
    chain: Any = SimpleNamespace(
        escrow=SimpleNamespace(address="0x"),
        token_balance=lambda address: tokens,
        dispute=lambda lease: SimpleNamespace(bond=bond),
        account=world.chain.account,
    )
    with world.context.db.session() as session:
        world.context.accept(session, "rules", world.context.rules_by_hash[RULES.struct_hash()])
    with world.context.db.reading() as session:
        return look_at(session, chain, world.context.matcher, NOW)


@pytest.mark.parametrize(
    ("status", "more"),
    [
        # The arbiter's time passes; then it goes on: each checkpoint that is not claimed, and its end.
        (Phase.CHALLENGED, 30 + (3 - 1 + 1) * 20 + 2 * 4),
        (Phase.CHALLENGED | Flag.WAS_CLOSING, 30 + 2 * 4),
        (Phase.CLOSING, 2 * 4),
    ],
)
def test_until_when_a_lease_may_live(world: World, status: int, more: int) -> None:
    assert (RULES.arbiter_timeout, RULES.checkpoint_timeout, RULES.window) == (30, 20, 4)
    lease = world.lease(end=3)
    world.update_lease(lease.id, status=int(status), t=NOW - 1, claimed=1)
    assert remaining(world).until == NOW - 1 + more


def test_a_silent_arbiter_may_be_asked_any_time(world: World) -> None:
    lease = world.lease(end=3)
    world.update_lease(lease.id, status=int(Phase.CHALLENGED | Flag.WAS_CLOSING), t=NOW - 500, claimed=1)
    assert remaining(world).until == NOW + 2 * 4


def test_what_was_burnt_is_not_free(world: World) -> None:
    lease: LeaseRow = world.lease()
    world.set_account(ZERO_ADDRESS, free=700)
    locked = (lease.price + lease.fee) * lease.end
    found = remaining(world, tokens=locked + lease.stake + 700 + 50)
    assert (found.free, found.burnt, found.locked, found.stakes) == (50, 700, locked, lease.stake)
