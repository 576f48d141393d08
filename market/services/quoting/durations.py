"""How long a job's checkpoints would take on a machine: as its own did there, else by its units."""

from collections.abc import Mapping
from fractions import Fraction
from statistics import median
from typing import NamedTuple

from sqlmodel import Session, col, or_, select

from contracts.api.bodies import MAX_SECONDS
from contracts.api.quotes import QuoteIn
from contracts.job.measured import MeasuredOn, SecondsBasis
from contracts.types import SECONDS_PER_HOUR, ZERO_TIP, to_hex
from market.matching import AskOffer
from market.store.models import BidRow, CheckpointRow

NEWEST = 100  # checkpoints that are looked at
LEAST_SECONDS = 1e-6  # of a record that is believed: no clock of a worker tells less
MOST_PER_HOUR = (1 << 256) - 1  # as the API can say it


class Duration(NamedTuple):
    """Of a checkpoint."""

    seconds: float
    basis: SecondsBasis

    def per_hour(self, price: int) -> int:
        """What an hour of it costs, where a checkpoint costs `price`; MOST_PER_HOUR at most."""
        exact = Fraction(price * SECONDS_PER_HOUR) / Fraction(self.seconds)  # strangers' numbers: a float may overflow
        return min(round(exact), MOST_PER_HOUR)


def expected_duration(
    ask: AskOffer, units: int, measured_on: MeasuredOn | None, recorded: Mapping[str, float]
) -> Duration:
    """`recorded`: by provider, as `recorded_seconds` says."""
    if (seconds := recorded.get(ask.provider)) is not None:
        return Duration(seconds, SecondsBasis.RECORDED)
    by_units = units * SECONDS_PER_HOUR / ask.units_per_hour
    if measured_on is None:
        return Duration(by_units, SecondsBasis.COUNTED)
    same = measured_on.device == ask.lot.device
    return Duration(by_units, SecondsBasis.MEASURED if same else SecondsBasis.ELSEWHERE)


def recorded_seconds(session: Session, body: QuoteIn) -> dict[str, float]:
    """By provider, what checkpoints of the client's same job took there, and those of the job that it goes on from."""
    mine = select(CheckpointRow).join(BidRow, col(BidRow.id) == col(CheckpointRow.bid))
    same = col(BidRow.job) == to_hex(body.spec.job_hash())
    if body.start_tip != ZERO_TIP:
        before = select(CheckpointRow.bid).where(CheckpointRow.tip == body.start_tip)
        same = or_(same, col(BidRow.id).in_(before))
    rows = session.exec(
        mine.where(BidRow.client == body.client, same, CheckpointRow.status != "rejected")
        .order_by(col(CheckpointRow.received).desc())
        .limit(NEWEST)
    )
    found: dict[str, list[float]] = {}
    for row in rows:
        if LEAST_SECONDS <= (seconds := _seconds(row)) <= MAX_SECONDS:
            found.setdefault(row.provider, []).append(seconds)
    return {provider: median(seconds) for provider, seconds in found.items()}


def _seconds(row: CheckpointRow) -> float:
    """0 for what is no number: an older market may have taken it."""
    seconds = row.record["seconds"]
    return float(seconds) if isinstance(seconds, int | float) and abs(seconds) <= MAX_SECONDS else 0
