"""What `gpumarket epoch verify` finds in an epoch's data: each lie by its sentence, and nothing in an honest one."""

from dataclasses import replace

from contracts.types import ZERO_HASH
from tests.support.epoch_to_spoil import NUMBER, Held


def test_an_honest_epoch_holds(held: Held) -> None:
    checked = held.check()
    assert [(one.name, one.lies, one.notes) for one in checked] == [
        (name, [], []) for name in ("header", "commitment", "orders", "left out", "prices", "coin", "openings")
    ]
    assert len(held.epoch.matches) == 1


def test_an_epoch_that_stays_announced(held: Held) -> None:
    held.spoil(status="announced", matches=[])
    held.world.publish(NUMBER + 1, ZERO_HASH, 40)
    assert held.lie() == "epoch 3 is said to be announced, but epoch 4 came after it"


def test_what_follows_from_wrong_orders_is_not_looked_at(held: Held) -> None:
    held.orders = replace(held.orders, asks=held.orders.asks * 2)
    checked = {one.name: one for one in held.check(every=True)}
    assert (len(checked["orders"].lies), checked["coin"].lies, len(checked["coin"].notes)) == (1, [], 1)
