"""When the owner wants the machine back: weekly hours, a wish by hand, others at work on it. Pure decisions."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(
    rf"(?P<first>{'|'.join(DAYS)})(?:-(?P<last>{'|'.join(DAYS)}))?\s+"
    r"(?P<start>\d{1,2}:\d{2})-(?P<end>\d{1,2}:\d{2})"
)
MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True)
class Hours:
    """A span of each of some days, local time. `end` at or before `start`: it goes on past midnight."""

    days: frozenset[int]  # 0 is Monday: the days on which it begins
    start: int  # minutes since midnight
    end: int

    @property
    def minutes(self) -> int:
        return (self.end - self.start) % MINUTES_A_DAY or MINUTES_A_DAY

    def end_of(self, moment: datetime) -> datetime | None:
        """When the span that holds the moment ends; None if none does."""
        midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        for began in (midnight, midnight - timedelta(days=1)):
            start = began + timedelta(minutes=self.start)
            end = start + timedelta(minutes=self.minutes)
            if began.weekday() in self.days and start <= moment < end:
                return end
        return None


def parse_hours(text: str) -> tuple[Hours, ...]:
    """ "mon-fri 09:00-18:00, sat 22:00-02:00" -> spans. Raises ValueError that names the part which is wrong."""
    return tuple(_span(part.strip()) for part in text.lower().split(",") if part.strip())


def _span(part: str) -> Hours:
    match = _SPAN.fullmatch(part)
    if match is None:
        raise ValueError(f"{part!r} is not a span such as 'mon-fri 09:00-18:00' (days: {', '.join(DAYS)})")
    first = DAYS.index(match["first"])
    count = (DAYS.index(match["last"]) - first) % 7 + 1 if match["last"] else 1
    days = frozenset((first + day) % 7 for day in range(count))
    return Hours(days, _minutes(match["start"]), _minutes(match["end"]))


def _minutes(clock: str) -> int:
    hours, minutes = (int(part) for part in clock.split(":"))
    if hours > 24 or minutes > 59 or hours * 60 + minutes > MINUTES_A_DAY:
        raise ValueError(f"{clock!r} is no time of day")
    return hours * 60 + minutes


def paused_until(hours: Sequence[Hours], moment: datetime) -> datetime | None:
    """The end of the pause that holds the moment, over spans that follow on each other; at most a week ahead."""
    until = moment
    while until < moment + timedelta(days=7):
        ends = [end for span in hours if (end := span.end_of(until))]
        if not ends:
            break
        until = max(ends)
    return until if until > moment else None


@dataclass(frozen=True)
class Pause:
    """Why there is no training now, and until when at least (UTC seconds; infinite: until somebody says so)."""

    reason: str
    until: float

    def seconds(self, now: float) -> float:
        return max(0.0, self.until - now)


def decide(now: float, asked_until: float | None, hours: Sequence[Hours], busy: str | None) -> Pause | None:
    """Whether to pause, for the reason that lasts longest. `asked_until` is the wish by hand, `busy` who is at work.

    Nobody knows how long somebody else will be busy: the pause may be over at any moment.
    """
    found = []
    if asked_until is not None and asked_until > now:
        found.append(Pause("paused by hand", asked_until))
    if ends := paused_until(hours, datetime.fromtimestamp(now, UTC).astimezone()):
        found.append(Pause("the weekly hours", ends.timestamp()))
    if busy:
        found.append(Pause(busy, now))
    return max(found, key=lambda pause: pause.until, default=None)


def can_hold(pause_seconds: float, checkpoint_seconds: float, timeout: float, margin: float) -> bool:
    """Whether a lease can outlive a pause: one checkpoint after it must fit into the clock as it is at its freshest."""
    return pause_seconds + checkpoint_seconds <= timeout - margin


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> float:
    """ "90m", "2h", "45s", "1d" -> seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None or not math.isfinite(seconds := float(match[1]) * _UNITS[match[2]]) or seconds == 0:
        raise ValueError(f"{text!r} is not a duration such as 90m, 2h or 1d")
    return seconds
