"""Several lots of one machine: nothing is sold twice."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import UserError
from tests.support.worker_leases import OFFER
from worker.agent.fleet import check_lots, split_cores
from worker.machine.hardware import Machine, Processor
from worker.settings import ProviderSettings

CPU = Machine((Processor("cpu", "A CPU", 16_000),), "A CPU", 4, 8, 16_000)
CARDS = tuple(Processor("cuda", model, memory) for model, memory in (("A", 24_000), ("A", 23_000), ("B", 8_000)))
GPUS = Machine(CARDS, "A CPU", 16, 32, 90_000)


def lot(**changes: Any) -> ProviderSettings:
    memory = changes.pop("memory_mb", 1_000)
    resources = OFFER.resources.model_copy(update={"memory_mb": memory, "gpus": len(changes.get("gpus", ()))})
    return OFFER.model_copy(update={"resources": resources, **changes})


def test_lots_that_fit_the_machine() -> None:
    check_lots({"a": lot(gpus=(0, 1), threads=16), "b": lot(gpus=(2,), threads=16)}, GPUS)
    check_lots({"a": lot(threads=4, memory_mb=8_000), "b": lot(threads=4, memory_mb=8_000)}, CPU)
    check_lots({"a": lot(threads=64, memory_mb=64_000)}, CPU)  # alone it may be what its owner wants


@pytest.mark.parametrize(
    ("one", "other", "problem"),
    [
        ({"gpus": (0, 1)}, {"gpus": (1,)}, "the lots 'a' and 'b' both sell GPU 1"),
        ({"gpus": (2,)}, {"gpus": (0, 2)}, "the lots 'a' and 'b' both sell GPU 2"),
        ({"threads": 16}, {"threads": 17}, "a, b sell 33 CPU threads together; this machine has 32"),
        ({"memory_mb": 89_001}, {}, "a, b sell 90001 MB of memory together; this machine has 90000"),
    ],
)
def test_lots_that_sell_one_thing_twice(one: dict[str, Any], other: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        check_lots({"a": lot(**one), "b": lot(**other)}, GPUS)
    assert problem in caught.value.message and caught.value.hint


def test_a_lot_that_names_no_gpu_has_all_of_them() -> None:
    old = OFFER.model_copy(update={"resources": OFFER.resources.model_copy(update={"gpus": 2})})
    with pytest.raises(UserError, match="both sell GPU 1"):
        check_lots({"a": old, "b": lot(gpus=(1,))}, GPUS)


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 8), min_size=1), st.integers(1, 64))
def test_no_core_is_in_two_lots_and_none_is_left_over(threads: dict[str, int], count: int) -> None:
    found = split_cores(threads, range(count))
    assert sorted(core for cores in found.values() for core in cores) == list(range(count))
    if sum(threads.values()) <= count:
        spare = [len(found[name]) - wanted for name, wanted in threads.items()]
        assert min(spare) >= 0 and max(spare) - min(spare) <= 1
