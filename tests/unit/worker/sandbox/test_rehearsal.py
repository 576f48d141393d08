"""From where a rehearsal tries to resume, if a recipe does not go on exactly within a checkpoint."""

import pytest

from worker.sandbox.rehearsal import PERIODS, WHOLE_STEPS, stretch_to_resume_after


@pytest.mark.parametrize(
    ("checkpoint_every", "left", "stretch"),
    [
        (8, 32, 8), (8, 16, 8), (WHOLE_STEPS, 1000, WHOLE_STEPS), (53, 1000, 53),
        (1000, 5000, 40), (500, 5000, 20), (4800, 48000, PERIODS), (101, 5000, 1),
        (8, 8, 4), (10, 10, 5), (1000, 1000, 40), (1000, 50, 20), (2, 2, 1), (1, 1, 1),
    ],
)  # fmt: skip
def test_periods_that_fit_into_checkpoints_fit_into_the_stretch(checkpoint_every: int, left: int, stretch: int) -> None:
    assert stretch_to_resume_after(checkpoint_every, left) == stretch
    assert checkpoint_every % stretch == 0 and (2 * stretch <= left or stretch == 1)
