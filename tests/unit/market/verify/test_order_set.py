"""Orders are committed to before the coin is tossed: whoever publishes others, or another seed, is told so."""

from dataclasses import replace
from typing import Any

import pytest

from contracts.chain.events import (
    EpochPublished,
    Opened,
)
from contracts.types import ZERO_HASH
from tests.support.epoch_to_spoil import SEED_BLOCK, Held, block_hash
from tests.support.offline_market import RULES


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"number": 4}, "the header of epoch 3 says epoch 4, but it is 3"),
        ({"market": "0x00000000000000000000000000000000000000aA"}, "says market"),
        ({"chain_id": 1}, "says chain 1, but it is 31337"),
        ({"tick": 1000}, "says tick 1000, but it is 1"),
        ({"block_hash": ZERO_HASH}, "says that block 20 has the hash"),
        ({"block": 2000}, "but on the chain there is none"),
        ({"time": 1019}, "says time 1019, but its block 20 is of 1020"),
        ({"time": 1400}, "says time 1400, but it was published at 1025 already"),
        (
            {"block": 26, "block_hash": block_hash(26), "time": 1030},
            "counts block 26, but it was published in block 25",
        ),
        ({"rules": [RULES, RULES]}, "has rules twice"),
    ],
)
def test_a_wrong_header(held: Held, changes: dict[str, Any], sentence: str) -> None:
    held.commit_anew(held.orders.header.model_copy(update=changes))
    assert sentence in held.lie()


def test_other_orders_than_were_committed_to(held: Held) -> None:
    held.orders = replace(held.orders, bids=held.orders.bids[1:])
    assert "they are not what the market committed to" in held.lie()


def test_orders_that_were_never_committed_to(held: Held) -> None:
    held.world.events = [one for one in held.world.events if not isinstance(one, EpochPublished)]
    assert "epoch 3 was never published on chain" in held.lie()


def test_another_seed(held: Held) -> None:
    held.spoil(seed=block_hash(27), seed_block=27)
    assert f"cleared with the seed {block_hash(27)} of block 27, but" in held.lie()


def test_an_epoch_that_was_given_up(held: Held) -> None:
    """Its leader may have died, or disliked the coin. Nothing may come of it."""
    held.spoil(status="abandoned", matches=[], seed=None, seed_block=None)
    held.prices = []
    assert "but is no match of it" in held.lie()
    held.world.events = [one for one in held.world.events if not isinstance(one, Opened)]
    (note,) = held.notes()
    assert f"have disliked its coin, which was {block_hash(SEED_BLOCK)}" in note
