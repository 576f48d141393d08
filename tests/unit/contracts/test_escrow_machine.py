"""The escrow's machine, searched through: every state that its parties can bring about, on tiny numbers."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.escrow_machine import Honest, Machine, Move, Numbers, State

SMALL = Numbers(checkpoints=2, leases=1, free=(40, 60, 30))
SHORT = Numbers(checkpoints=2, leases=2, window=1, timeout=2, arbiter_timeout=1, free=(40, 60, 30))
LARGE = Numbers(checkpoints=3, leases=2, free=(60, 100, 40))


@pytest.mark.parametrize("convicts", [True, False])
@pytest.mark.parametrize("honest", ["nobody", "provider", "client"])
@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(SHORT, id="short", marks=pytest.mark.long),
        pytest.param(LARGE, id="large", marks=pytest.mark.long),
    ],
)
def test_nothing_goes_wrong_whatever_the_others_do(numbers: Numbers, honest: Honest, convicts: bool) -> None:
    machine = Machine(numbers, honest, convicts=convicts)
    seen = machine.search()
    if honest == "nobody":
        for phase in ("active", "closing", "challenged", "closed", "dead"):
            assert any(s.phase == phase for s in seen), phase
        # All exits can be taken by anyone; every seventh state stands for the rest.
        assert not any(machine.stuck(s) for s in list(seen)[::7])
        assert any(s.free.burnt for s in seen) is not convicts


def test_the_bounded_bond_and_a_silent_arbiter_cost_a_provider_what_it_claimed_beyond_its_stake() -> None:
    """Known, and told: whoever's arbiter may be silent claims no more on chain than the stake is worth."""
    numbers = Numbers(checkpoints=2, leases=1, stake=12, free=(40, 60, 30))
    with pytest.raises(AssertionError, match=r"an honest provider lost\nafter: .* / challenge / wait / wait\n"):
        Machine(numbers, "provider", convicts=True).search()


class AcceptsEarly(Machine):
    """A step before the window has passed."""

    def synced(self, s: State) -> State:
        return super().synced(s._replace(age=s.age + 1))._replace(age=s.age)


class PaysTheSilent(Machine):
    """Silence counts as true."""

    def _verdicts(self, s: State) -> Iterator[Move]:
        for move in super()._verdicts(s):
            if move.name == "silence":
                yield Move("silence", "anyone", self._revived(s._replace(bond=0)))
            else:
                yield move


class GoesBack(Machine):
    """The next lease of a Bid begins a checkpoint earlier."""

    def _openings(self, s: State) -> Iterator[Move]:
        earlier = max(0, s.accepted - 1)
        yield from super()._openings(s._replace(accepted=earlier, chain=s.chain[:earlier]))


@pytest.mark.parametrize(
    ("faulty", "honest", "found"),
    [
        (PaysTheSilent, "nobody", "tokens were made or lost"),
        (AcceptsEarly, "client", "an honest client paid for a wrong checkpoint"),
        (GoesBack, "nobody", "paid twice"),
    ],
)
def test_the_search_finds_faults(faulty: type[Machine], honest: Honest, found: str) -> None:
    numbers = replace(SMALL, leases=3, lease=1) if faulty is GoesBack else SMALL
    with pytest.raises(AssertionError, match=found):
        faulty(numbers, honest, convicts=True).search()
