"""What a machine, or a lot of it, is registered with."""

import pytest

from contracts.errors import UserError
from worker.machine.hardware import Machine, Processor
from worker.onboarding.register import check_region, choose_gpus, describe

CPU = Machine((Processor("cpu", "A CPU", 16_000),), "A CPU", 4, 8, 16_000)
CARDS = tuple(Processor("cuda", model, memory) for model, memory in (("A", 24_000), ("A", 23_000), ("B", 8_000)))
GPUS = Machine(CARDS, "A CPU", 16, 32, 90_000)


def test_the_gpus_of_a_lot() -> None:
    assert choose_gpus(GPUS, None) == (0, 1)  # of the first one's model
    assert choose_gpus(GPUS, "1") == (1,)
    assert choose_gpus(CPU, None) == ()
    for wanted, problem in (("3", "no GPU 3"), ("0,2", "different models"), ("0-1", "'0-1' is not a list")):
        with pytest.raises(UserError, match=problem):
            choose_gpus(GPUS, wanted)
    with pytest.raises(UserError, match="no GPU 0") as caught:
        choose_gpus(CPU, "0")
    assert caught.value.hint == "this machine has none"


def test_a_lot_offers_its_part_of_the_machine() -> None:
    pair = describe(GPUS, ("torch-2.13",), "", (0, 1), None)
    assert (pair.device, pair.gpus, pair.vram_mb, pair.memory_mb) == ("A", 2, 23_000, 60_000)
    assert describe(GPUS, ("torch-2.13",), "", (2,), 7_000).memory_mb == 7_000
    alone = describe(CPU, ("torch-2.13",), "", (), None)
    assert (alone.device, alone.gpus, alone.vram_mb, alone.memory_mb) == ("A CPU", 0, 0, 16_000)


def test_a_region_is_named_as_clients_will_write_it() -> None:
    assert [check_region(name) for name in ("", "eu-de", "us", "x" * 64)] == ["", "eu-de", "us", "x" * 64]
    for name, near in (("EU", "eu"), ("Frankfurt (DE)", "frankfurt-de"), ("-", "eu-de"), ("x" * 65, "x" * 64)):
        with pytest.raises(UserError, match="is not lower-case letters") as caught:
            check_region(name)
        assert caught.value.hint == f"--region {near}"
