"""When the owner wants the machine back."""

import math
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.pauses import can_hold, decide, parse_duration, parse_hours, paused_until

OFFICE = parse_hours("mon-fri 09:00-18:00")


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2030-01-{text}")  # 2030-01-07 is a Monday


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        ("mon-fri 09:00-18:00", "07T08:59", None),
        ("mon-fri 09:00-18:00", "07T09:00", "07T18:00"),
        ("mon-fri 09:00-18:00", "11T17:59", "11T18:00"),
        ("mon-fri 09:00-18:00", "11T18:00", None),
        ("mon-fri 09:00-18:00", "12T12:00", None),
        ("fri 22:00-02:00", "12T01:00", "12T02:00"),  # it began on Friday
        ("fri 22:00-02:00", "11T01:00", None),
        ("fri-mon 10:00-11:00", "07T10:30", "07T11:00"),  # over the week's end
        ("fri-mon 10:00-11:00", "08T10:30", None),
        ("mon 09:00-12:00, mon 12:00-13:00", "07T10:00", "07T13:00"),  # one pause, not two
        ("sat 00:00-24:00, sun 00:00-24:00", "12T05:00", "14T00:00"),
        ("Mon 09:00-18:00", "07T10:00", "07T18:00"),
        ("", "07T10:00", None),
    ],
)
def test_weekly_hours(hours: str, now: str, until: str | None) -> None:
    assert paused_until(parse_hours(hours), at(now)) == (at(until) if until else None)


def test_hours_that_never_end_give_a_week() -> None:
    until = paused_until(parse_hours("mon-sun 00:00-24:00"), at("07T10:00"))
    assert until is not None and timedelta(days=7) <= until - at("07T10:00") <= timedelta(days=8)


@given(st.datetimes(at("01T00:00"), at("28T00:00")))
def test_after_a_pause_there_is_none(now: datetime) -> None:
    until = paused_until(OFFICE, now)
    assert (until is not None) == (now.weekday() < 5 and 9 <= now.hour < 18)
    assert until is None or (paused_until(OFFICE, until) is None and now < until)


@pytest.mark.parametrize("wrong", ["mo 09:00-18:00", "mon 9-18", "mon 25:00-26:00", "mon 09:60-10:00", "09:00-18:00"])
def test_hours_that_are_wrong_are_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"is not a span|is no time"):
        parse_hours(f"sun 10:00-11:00, {wrong}")


def test_the_reason_that_lasts_longest_decides() -> None:
    now = at("07T17:00").timestamp()
    assert decide(now, None, (), None) is None
    assert decide(now, now - 1, (), None) is None  # a wish of before
    busy = decide(now, None, (), "somebody")
    assert busy is not None and (busy.reason, busy.seconds(now)) == ("somebody", 0)
    hours = decide(now, now + 60, OFFICE, "somebody")
    assert hours is not None and (hours.reason, hours.seconds(now)) == ("the weekly hours", 3600)
    asked = decide(now, math.inf, OFFICE, None)
    assert asked is not None and asked.seconds(now) == math.inf


def test_a_lease_is_held_if_a_checkpoint_after_the_pause_is_in_time() -> None:
    assert can_hold(pause_seconds=60, checkpoint_seconds=30, timeout=100, margin=10)
    assert not can_hold(pause_seconds=61, checkpoint_seconds=30, timeout=100, margin=10)
    assert not can_hold(math.inf, 0, timeout=10**9, margin=0)


def test_durations() -> None:
    assert [parse_duration(text) for text in ("45s", "90m", "2h", "1.5d")] == [45, 5400, 7200, 129_600]
    for wrong in ("2", "2 h", "-1h", "0m", "h", "1e3s"):
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration(wrong)
