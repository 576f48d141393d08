"""What a claim says of its machine, in whatever JSON that has the same hash."""

import pytest

from contracts.commitment import numerics_class
from worker.replay.findings import NotHere
from worker.replay.stretch import _threads


def test_threads_are_the_number_that_is_hashed() -> None:
    assert numerics_class({"threads": 2}) == numerics_class({"threads": 2.0})
    assert _threads({"threads": 2}) == _threads({"threads": 2.0}) == 2
    for other in (True, 1.5, 0, 1e300, "2", None):
        with pytest.raises(NotHere, match="the claim was made with"):
            _threads({"threads": other})
