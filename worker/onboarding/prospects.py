"""What a market has to say to somebody who might offer a machine: what such machines get, and whether work waits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median

from contracts.api.client import MarketClient
from contracts.api.offers import OfferOut, OffersIn

MOST_READ = 2_000  # machines, jobs and prices: enough to say what is usual
DAY, MONTH = 24, 730  # hours


@dataclass(frozen=True)
class Suggestion:
    """A price an hour, in the token's smallest unit, and where it comes from."""

    price: int
    source: str


@dataclass(frozen=True)
class Demand:
    """A market at one moment, as it looks to one kind of machine."""

    device: str
    gpus: int
    offers: Sequence[OfferOut]  # of all kinds
    cleared: Sequence[int]  # what such machines get an hour, by the newest epoch: one for each kind of lot
    waiting: int  # jobs
    running: int

    @property
    def alike(self) -> list[OfferOut]:
        return [one for one in self.offers if (one.device, one.gpus) == (self.device, self.gpus)]

    @property
    def busy_share(self) -> float | None:
        """Of such machines, those that a lease keeps busy; of all kinds if there is none like it; None without any."""
        of = self.alike or self.offers
        return sum(not one.free for one in of) / len(of) if of else None

    def suggestion(self, units_per_hour: int) -> Suggestion | None:
        """A price for a machine of this speed; None where nobody offers anything."""
        if self.cleared:
            return Suggestion(int(median(self.cleared)), "what such machines get here")
        if self.alike:
            return Suggestion(int(median(one.price_per_hour for one in self.alike)), "what such machines ask here")
        if self.offers:
            by_work = median(one.price_per_hour / one.units_per_hour for one in self.offers)
            return Suggestion(max(1, int(by_work * units_per_hour)), "what others here ask for as much work")
        return None


def read_demand(market: MarketClient, device: str, gpus: int) -> Demand:
    """Of the machine's kind. Raises what the market's client raises."""
    return Demand(
        device=device,
        gpus=gpus,
        offers=list(islice(market.offers(OffersIn(limit=500)), MOST_READ)),
        cleared=_cleared(market, device, gpus),
        waiting=_count(market.jobs(status="pending")),
        running=_count(market.jobs(status="running")),
    )


def _cleared(market: MarketClient, device: str, gpus: int) -> list[int]:
    newest = next((epoch for epoch in islice(market.epochs(), 10) if epoch.header and epoch.status == "cleared"), None)
    if newest is None or newest.header is None:
        return []
    prices = islice(market.epoch_prices(newest.number), MOST_READ)
    tick = newest.header.tick
    return [one.price * tick for one in prices if (one.of.device, one.of.gpus) == (device, gpus) and one.price]


def _count(things: Iterable[object]) -> int:
    return sum(1 for _ in islice(things, MOST_READ))


@dataclass(frozen=True)
class Hour:
    """Of one machine that is always busy; money in the token's smallest unit, fractions allowed. None: unknown."""

    pay: float
    power: float | None
    gas: float | None

    @property
    def left(self) -> float:
        return self.pay - (self.power or 0) - (self.gas or 0)


def power_cost(watts: float, price_per_kwh: int) -> float:
    """Of an hour at full load."""
    return watts / 1000 * price_per_kwh
