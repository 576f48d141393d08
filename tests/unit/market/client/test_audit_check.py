"""What an approver owes a word on, and what not."""

import pytest

from market.client.audit_check import LeaseNotes


@pytest.mark.parametrize(
    ("rulings", "void"),
    [
        ({}, []),
        ({1: "good", 2: "unaudited", 3: "held"}, []),
        ({2: "false"}, [3, 4]),
        ({3: "false", 2: "false"}, [3, 4]),  # nobody asks what follows on a lie
        ({2: "unreproducible"}, [1, 2, 3, 4]),
    ],
)
def test_what_need_not_be_replayed(rulings: dict[int, str], void: list[int]) -> None:
    notes = LeaseNotes("0x11", "0x22", rulings=rulings)
    assert [n for n in (1, 2, 3, 4) if notes.is_void(n)] == void
