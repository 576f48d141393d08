"""How fast training is: when its next checkpoint is due, and when a silence is a hang."""

from worker.lease.pace import Pace


def test_the_pace_is_unknown_before_the_first_step() -> None:
    assert Pace(10, started=0).seconds_left(5) is None


def test_the_pace_counts_down() -> None:
    pace = Pace(10, started=100, first=3)
    pace.step(24, now=108)
    assert pace.seconds_left(108) == 12
    assert pace.seconds_left(113) == 7
    assert pace.seconds_left(200) == 0


def test_a_silence_is_a_hang_by_what_steps_take() -> None:
    timeout = 60.0
    pace = Pace(10, started=100)
    assert pace.hang(150, timeout) is None  # no step is known: each of the ten may take 6 s
    assert pace.hang(161, timeout) == 61
    pace.step(2, now=106)  # 3 s a step
    assert pace.hang(135, timeout) is None
    assert pace.hang(137, timeout) == 31
    quick = Pace(1000, started=100)
    quick.step(1000, now=101)
    assert quick.hang(115, timeout) is None  # it may be writing its checkpoint
    assert quick.hang(117, timeout) == 16
    quick.checkpoint(1, now=117)
    assert quick.hang(118, timeout) is None


def test_a_checkpoint_counts_when_it_is_made_not_when_its_last_step_is_done() -> None:
    pace = Pace(10, started=100)
    pace.step(10, now=110)
    assert pace.seconds_left(110) == 0
    pace.checkpoint(1, now=110)
    assert pace.seconds_left(110) == 10
    pace.step(12, now=112)
    assert pace.seconds_left(112) == 8
