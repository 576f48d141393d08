"""Every test here can take an epoch of an honest market, and spoil it."""

import pytest

from tests.support.epoch_to_spoil import Held, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def held(world: World) -> Held:
    """Two bids of equal worth for one machine, one that others can have, and one that pays too little."""
    world.bid(0)
    world.bid(1)
    world.bid(1, max_price=900_000)
    world.ask(0)
    return world.hold()
