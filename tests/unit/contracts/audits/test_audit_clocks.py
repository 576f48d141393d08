"""Rules that leave no time for an audit: which clock, by how much, and what to do."""

import pytest

from contracts.audits.clocks import AuditTimes, clock_problems, replay_patience
from tests.support.offline_market import RULES

TIMES = AuditTimes(epoch=5, opening=15, replay=100, transfer=30, checkpoint=60)  # 300 s for two replays
ENOUGH = RULES.model_copy(
    update={"window": 300, "checkpoint_timeout": 540, "arbiter_timeout": 300, "arbiter_fee": 3_000_000}
)


def test_just_enough() -> None:
    assert clock_problems(ENOUGH, 4, TIMES, 1_000_000) == []


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("window", "window is 299 s, and two replays may take 300 s: 2 x (epoch 5 + opening 15 + replay 100 + "),
        ("checkpoint_timeout", "checkpointTimeout is 539 s, and approvals may take 540 s: 4 checkpoints of 60 s, and"),
        ("arbiter_timeout", "arbiterTimeout is 299 s, and 3 replays may take 300 s (100 s each)"),
        ("arbiter_fee", "arbiterFee is 2999999, and 3 replays may cost 3000000, 1000000 each"),
    ],
)  # fmt: skip
def test_one_too_little(field: str, told: str) -> None:
    short = ENOUGH.model_copy(update={field: getattr(ENOUGH, field) - 1})
    (problem,) = clock_problems(short, 4, TIMES, 1_000_000)
    assert problem.startswith(told) and "offer rules" in problem


def test_all_at_once() -> None:
    nothing = ENOUGH.model_copy(update=dict.fromkeys(("window", "checkpoint_timeout", "arbiter_timeout"), 1))
    assert len(clock_problems(nothing, 4, TIMES, 2_000_000)) == 4


def test_how_long_an_auditor_is_waited_for() -> None:
    """A provider that tells of no time at all must not make an honest auditor seem to stall."""
    assert replay_patience(said=0, epoch=5, likely=600) == replay_patience(said=600, epoch=5) == 180 + 10 + 1200
