"""The lives of the benchmark, a few of each kind; and that its figures would show what they are to show."""

from fractions import Fraction
from random import Random

import pytest

from contracts.audits.deterrence import penalty_of
from contracts.audits.levels import CLOSED, OPEN
from tests.bench import _audit_lives as lives
from tests.bench._audit_recipe import CHECKPOINTS, LIARS


def test_liars_are_found_as_often_as_the_formula_says() -> None:
    found = lives.detections(40)
    assert set(found) == {(kind, share) for kind in LIARS for share in lives.SHARES}
    assert max(map(abs, found.values())) < 5  # so few lives are further from a normal distribution


@pytest.mark.parametrize("kind", LIARS)
def test_liars_lie(kind: str) -> None:
    """And only where they mean to."""
    liar = LIARS[kind]
    history = liar.history(Random(1))
    first = {"honest, then lazy": 7, "one lie, then release": 2, "lies, then end": 5}.get(kind, 1)
    assert history.lies == set(range(first, liar.made + 1))
    assert len(set(history.tips)) == liar.made <= max(40, CHECKPOINTS)


def test_no_lie_pays_and_a_smaller_stake_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(lives.profits().values()) < 0
    monkeypatch.setattr(lives, "penalty_of", lambda *terms: penalty_of(*terms) * 3 // 5)
    assert max(lives.profits().values()) > 0


def test_away_is_the_formula_where_the_liar_owns_no_auditor() -> None:
    for verification in (CLOSED, OPEN):
        q = Fraction(verification.share_ppm, 10**6)
        every = verification.approve_every
        for lies in range(1, every + 1):
            away = lives.chance_away(verification, every, lies, Fraction(0))
            assert float(away) == pytest.approx(float((1 - q) ** lies), abs=1e-12)
            # Own auditors must win by two more voices, too, once an honest one has spoken.
            s = Fraction(15, 100)
            found = q * (1 - s) * (1 - s**2 * (3 - 2 * s))
            assert float(lives.chance_away(verification, every, lies, s)) == pytest.approx(float((1 - found) ** lies))


def test_the_honest_lose_nothing() -> None:
    assert lives.honest_stake_lost(40) == 0
    assert max(lives.keyed_gains(40)) <= 0
    alarms, cost = lives.honest_lives(40)
    assert alarms == 0
    assert 0.05 < cost < 0.16
