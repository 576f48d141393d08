"""What a market publishes of an epoch, downloaded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from contracts.api.auditing.notes import AuditNoteOut
from contracts.api.bodies import AskResources, ReceiptOut
from contracts.api.client import MarketClient
from contracts.api.epochs import ClassPrice, EpochAsk, EpochBid, EpochHeader, EpochOut
from contracts.api.lists import UnreadableItem
from contracts.api.problems import Problem
from contracts.errors import UserError
from contracts.orders import Ask, Bid
from contracts.program.progress_bar import Watch

T = TypeVar("T")


@dataclass(frozen=True)
class Promise:
    """An order that a market has had before, and what shows it."""

    id: str
    order: Bid | Ask
    signature: str
    until: int  # UTC seconds: the last moment at which a lease may be opened by it
    receipt: ReceiptOut | None
    whence: str  # where it comes from, for sentences
    due: int = 0  # the epoch by which it was to be considered


@dataclass(frozen=True)
class OrderSet:
    """The orders of one epoch, as they were signed."""

    number: int
    header: EpochHeader
    bids: Sequence[EpochBid]
    asks: Sequence[EpochAsk]

    @property
    def all(self) -> list[EpochBid | EpochAsk]:
        return [*self.bids, *self.asks]

    @property
    def ids(self) -> set[str]:
        return {one.id for one in self.all}

    def promises(self) -> Iterator[Promise]:
        whence = f"was in epoch {self.number}"
        for bid in self.bids:
            yield Promise(bid.id, bid.bid, bid.signature, until(bid), bid.receipt, whence)
        for ask in self.asks:
            yield Promise(ask.id, ask.ask, ask.signature, until(ask), ask.receipt, whence)


def until(one: EpochBid | EpochAsk) -> int:
    """UTC seconds: the last moment at which a lease may be opened by the order."""
    if isinstance(one, EpochAsk):
        return one.ask.valid_until
    return min(one.bid.valid_until, one.spec.deadline_time or one.bid.valid_until)


@dataclass(frozen=True)
class Published:
    """All that a market publishes of an epoch."""

    epoch: EpochOut
    orders: OrderSet
    prices: Sequence[ClassPrice]
    before: OrderSet | None  # of the epoch that was committed to before it; None: there is none, or it has no set


class Lookup(Protocol):
    """What is asked of the market beside one epoch's data."""

    def epoch(self, number: int) -> EpochOut | None: ...

    def promise(self, order: str) -> Promise | None:
        """An order that it has left out."""

    def resources(self, ask: str) -> AskResources | None:
        """What an Ask sells."""

    def rulings(self, provider: str) -> Sequence[AuditNoteOut]:
        """What approvers have ruled on its work."""


class MarketSource:
    """A market's API, as a `Lookup` and for whole epochs. Whatever it says is checked elsewhere."""

    def __init__(self, client: MarketClient, watch: Watch) -> None:
        self._client = client
        self._watch = watch

    def epoch(self, number: int) -> EpochOut | None:
        return self._maybe(lambda: self._client.epoch(number))

    def promise(self, order: str) -> Promise | None:
        whence = "was left out"
        job = self._maybe(lambda: self._client.job(order))
        if job is not None:
            end = min(job.bid.valid_until, job.spec.deadline_time or job.bid.valid_until)
            return Promise(order, job.bid, job.signature, end, job.receipt, whence)
        ask = self._maybe(lambda: self._client.ask(order))
        if ask is not None:
            return Promise(order, ask.ask, ask.signature, ask.ask.valid_until, ask.receipt, whence)
        return None

    def resources(self, ask: str) -> AskResources | None:
        found = self._maybe(lambda: self._client.ask(ask))
        return None if found is None else found.resources

    def rulings(self, provider: str) -> Sequence[AuditNoteOut]:
        return list(self._counted("rulings", self._client.audit_notes(provider=provider, kind="ruling")))

    def published(self, epoch: EpochOut, header: EpochHeader, before: int | None) -> Published:
        """`before`: number of the epoch that was committed to last. Raises UserError for what can't be read: without
        it the rest has another root, and would be cleared otherwise, whoever is to blame.
        """
        try:
            return self._published(epoch, header, before)
        except (UnreadableItem, Problem) as error:
            raise UserError(f"epoch {epoch.number} can't be checked: {error.message}", error.hint) from error

    def _published(self, epoch: EpochOut, header: EpochHeader, before: int | None) -> Published:
        orders = self._orders(epoch.number, header)
        prices = list(self._counted("prices", self._client.epoch_prices(epoch.number, whole=True)))
        earlier = self.epoch(before) if before is not None else None
        header_before = earlier.header if earlier is not None else None
        orders_before = (
            self._orders(before, header_before) if before is not None and header_before is not None else None
        )
        return Published(epoch, orders, prices, orders_before)

    def _orders(self, number: int, header: EpochHeader) -> OrderSet:
        bids = list(self._counted(f"bids of epoch {number}", self._client.epoch_bids(number)))
        asks = list(self._counted(f"asks of epoch {number}", self._client.epoch_asks(number)))
        return OrderSet(number, header, bids, asks)

    def _counted(self, what: str, items: Iterable[T]) -> Iterator[T]:
        for done, item in enumerate(items):
            self._watch(what, done)
            yield item

    @staticmethod
    def _maybe(get: Callable[[], T]) -> T | None:
        try:
            return get()
        except Problem as problem:
            if problem.status == 404:
                return None
            raise
