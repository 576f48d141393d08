"""Whether steps take more than was signed: noticed early, also within a step, and not for a machine's own trouble."""

from contracts.job.overrun import Overrun, read_overrun
from worker.lease.work_meter import WARM_UP_SECONDS, WorkMeter

HOURLY = 3_600_000  # units: 1000 a second


def meter(units: int = 10_000, every: int = 10, first: int = 1, allowed: float = 2.0) -> WorkMeter:
    """By default a step is signed with one second, so that patience is 10 s."""
    return WorkMeter(units, every, HOURLY, allowed, started=100, first=first)


def test_steps_as_they_were_signed_are_never_too_much() -> None:
    work, now = meter(), 100.0
    for step in range(1, 101):
        now += 1.9
        work.step(step, now)
        assert work.judge(now + 1.9) is None
        if step % 10 == 0:
            assert work.judge(now + 500) is None  # a checkpoint is written, to a slow disk
            now += 500
            work.checkpoint(now)


def test_steps_of_thrice_the_work_are_noticed_when_they_have_cost_the_patience() -> None:
    work, now = meter(), 100.0
    for step in range(1, 100):
        now += 3
        work.step(step, now)
        if found := work.judge(now):
            break
    assert step == 14  # the 13 after the first took 39 s: with the next 28 are allowed, and 10 of patience are over
    assert found == Overrun(3.0, 2.0)


def test_a_step_that_does_not_end_is_noticed_within_it() -> None:
    work = meter()
    work.step(1, 101)
    work.step(2, 102)
    assert work.judge(102 + 12) is None
    found = work.judge(102 + 14)
    assert found is not None and found.times == 7.5  # 15 s for two steps of a second each, at least


def test_the_first_step_has_time_to_warm_up_but_not_for_ever() -> None:
    work = meter()
    assert work.judge(100 + WARM_UP_SECONDS + 11) is None
    assert work.judge(100 + WARM_UP_SECONDS + 13) is not None
    work.step(1, 100 + WARM_UP_SECONDS)
    assert work.judge(100 + WARM_UP_SECONDS + 11) is None


def test_what_was_lost_to_others_does_not_count() -> None:
    work = meter(first=3)
    work.step(21, 101)
    work.step(22, 150)
    assert work.judge(150) is not None
    assert work.judge(150, waited=40) is None


def test_patience_grows_with_the_checkpoint() -> None:
    work = meter(units=10_000_000, every=100)  # 100 s a step, 1,000 of patience
    work.step(1, 200)
    assert work.judge(200 + 200 + 999) is None
    assert work.judge(200 + 200 + 1_001) is not None


def test_what_is_reported_can_be_read_again() -> None:
    work = meter()
    found = Overrun(5.13, 2.0)
    said = work.problem(found)
    assert said.message.startswith("its steps take 5.1 times the work that was signed (2 times is allowed): 5.1 s each")
    assert "gpumarket job reprice" in (said.hint or "")
    assert read_overrun(f"{said.message} ({said.hint})") == Overrun(5.1, 2.0)
    assert read_overrun("hello") is read_overrun("") is None
