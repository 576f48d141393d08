"""Every test here can take a live `lease` of `world`."""

import pytest

from market.store.models import LeaseRow
from tests.support.offline_market import World


@pytest.fixture
def lease(world: World) -> LeaseRow:
    return world.lease()
