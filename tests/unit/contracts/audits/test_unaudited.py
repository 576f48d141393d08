"""Whose work nobody audits, and whom nobody on offer could audit."""

import pytest

from contracts.audits.unaudited import AuditedAsk, Ruled, alone, unaudited


def told(*rulings: str) -> list[Ruled[int]]:
    """Each `approver ruling`, oldest first."""
    return [Ruled(*one.split(), note) for note, one in enumerate(rulings)]


@pytest.mark.parametrize(
    ("rulings", "shown"),
    [
        ([], []),
        (["a unaudited"], []),
        (["a unaudited", "a unaudited"], [0, 1]),
        (["a unaudited", "a unaudited", "a unaudited"], [1, 2]),
        (["a unaudited", "a good", "a unaudited"], []),
        (["a unaudited", "a unaudited", "a good"], []),
        (["a good", "a unaudited", "a held", "a unaudited"], [1, 3]),
        (["a unaudited", "b unaudited"], []),
        (["a unaudited", "a unaudited", "b good"], [0, 1]),  # who owns b must not help
        (["b unaudited", "b unaudited", "a unaudited", "a good"], [0, 1]),
    ],
)
def test_two_since_the_last_that_was_good(rulings: list[str], shown: list[int]) -> None:
    assert unaudited(told(*rulings)) == shown


def test_who_is_alone() -> None:
    asks = [
        AuditedAsk("1", "p", "open", "x"),
        AuditedAsk("2", "q", "open", "x"),
        AuditedAsk("3", "p", "open", "y"),
        AuditedAsk("4", "p", "open", "y"),  # its own other Ask is no company
        AuditedAsk("5", "p", "closed", "x"),  # nor is one under other rules
        AuditedAsk("6", "p", "open", ""),
        AuditedAsk("7", "q", "open", ""),  # nobody knows whether they are alike
    ]
    assert alone(asks) == {"3", "4", "5", "6", "7"}
    assert alone(asks[1:2]) == {"2"} and alone([]) == set()
