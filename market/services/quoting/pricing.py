"""What a job would pay now, by the auction's own code: for `/v1/quote` and `/v1/offers`."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from contracts.api.info import RuleSet
from contracts.api.problems import Code, Problem
from contracts.api.quotes import QuoteIn
from contracts.audits.deterrence import default_stake
from contracts.errors import UserError
from contracts.job.measured import MeasuredOn
from contracts.terms import AccountWord
from market.auction.order_book import OrderBook, Snapshot, StandingAsk
from market.chain.accounts import FollowedAccounts
from market.matching import AskOffer, BidOffer, Match, Reason
from market.matching.classes import lowest_limit, obstacle
from market.matching.inputs import job_offer, tick
from market.matching.preview import rehearse
from market.runtime.context import Context
from market.services import admission
from market.services.quoting.durations import Duration, expected_duration, recorded_seconds

ROOM = (5, 4)  # of a usual limit: prices move while a job waits
STAKE_PRICES = 10  # where nothing is replayed
AT_ANY_PRICE = (Reason.RANGE, Reason.PRICE)  # what alone keeps a bid of nothing from a machine that could do the job
MOST_ORDERS = 2_000  # with more, a new Bid is tried alone: those that wait were refused at the prices of today


class Offers:
    """The orders as one process of the API knows them: parsed once, for many requests."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._book = OrderBook(context)
        self._accounts = FollowedAccounts(context.chain)
        self._lock = threading.Lock()

    def look(self) -> Snapshot:
        """Those in force that this market may match, and that somebody could audit; whoever has cancelled them."""
        context = self.context
        with self._lock, context.db.reading() as session:
            seen = self._book.look(session, context.now())
            self._accounts.forget_changed(session, seen.head)
        with context.db.reading() as session:  # not behind the lock: other requests wait there
            return seen.for_matcher(context.matcher).without_unaudited(session, context.audited_rules)

    def accounts(self, owners: Iterable[str]) -> dict[str, AccountWord]:
        """As of the block of the newest look, or of a later one. Raises Problem while the chain reorganises."""
        try:
            with self._lock:
                return self._accounts.of(owners)
        except UserError as error:
            raise Problem(503, Code.MARKET_NOT_READY, error.message, "Try again in a moment.") from error


@dataclass(frozen=True)
class Pricing:
    """A job as the auction would see it now."""

    seen: Snapshot
    rules: RuleSet
    bid: BidOffer  # with the limit and the stake that were asked for, or usual ones
    fitting: Sequence[AskOffer]  # open ones of machines that could do it in time and want it, at any price and stake
    matching: Sequence[AskOffer]  # those at this price and stake
    lowest_limit: int | None  # least max_price with which one of them can be had, with that stake
    match: Match | None  # what the auction gives it now, or when a machine is free again
    reason: Reason | None  # why it would wait for now
    measured_on: MeasuredOn | None
    recorded: Mapping[str, float]  # by provider: what the job's checkpoints took there

    def duration(self, ask: AskOffer) -> Duration:
        """Of a checkpoint on a machine."""
        return expected_duration(ask, self.bid.units, self.measured_on, self.recorded)


def pricing(offers: Offers, body: QuoteIn) -> Pricing:
    """Raises Problem. Where no limit is given and nothing fits, the limit is 0."""
    context, rules = offers.context, rules_named(offers.context, body.rules)
    admission.check_storable(body.spec, "spec")
    if body.units == 0:
        raise invalid("units: 0 work units per checkpoint; measure them with `gpumarket recipe measure`")
    seen, spec = offers.look(), body.spec
    timeout, fee = rules.rules.checkpoint_timeout, context.settings.fee
    bid = job_offer(spec, rules.hash, timeout, client=body.client, units=body.units, fee=fee, now=seen.time)
    by_tick = tick(context.chain.decimals)
    obstacles = {id: obstacle(bid, one.offer, by_tick) for id, one in seen.asks.items()}
    # Nothing is that cheap, so the price is what is left when nothing else is in the way.
    able = [seen.asks[id] for id, reason in obstacles.items() if reason in AT_ANY_PRICE]
    words = offers.accounts(one.offer.provider for one in able)
    fitting = [one.offer for one in able if is_open(one, words[one.offer.provider])]
    if body.max_price is not None:
        bid = replace(bid, limit=max(0, body.max_price - bid.fee))
    elif fitting:
        bid = replace(bid, limit=_usual_limit(fitting, body.units, by_tick))
    usual = _usual_stake(rules, bid.limit + bid.fee) if body.stake is None else body.stake
    bid = replace(bid, stake=usual)
    in_the_way = [(ask, obstacle(bid, ask, by_tick)) for ask in fitting]
    limits = [lowest_limit(ask, bid.units, by_tick) + bid.fee for ask, why in in_the_way if why in (None, Reason.PRICE)]
    matching = [ask for ask, why in in_the_way if why is None]
    match: Match | None = None
    reason: Reason | None
    if matching:
        match, reason = _auction(offers, seen, bid, matching)
    else:
        standing = [one.offer for one in able if one.page == words[one.offer.provider].page]
        nearest = [obstacle(bid, ask, by_tick) or Reason.CAPACITY for ask in standing]
        reason = _furthest([*nearest, *(why for why in obstacles.values() if why not in AT_ANY_PRICE)])
    with context.db.reading() as session:
        recorded = recorded_seconds(session, body)
    lowest = min(limits, default=None)
    return Pricing(seen, rules, bid, fitting, matching, lowest, match, reason, body.measured_on, recorded)


def _usual_stake(rules: RuleSet, max_price: int) -> int:
    """What deters, where somebody looks."""
    if rules.verification is None or rules.level == "unchecked":
        return STAKE_PRICES * max_price + rules.rules.arbiter_fee
    return default_stake(rules.verification, max_price, rules.rules.arbiter_fee)


def _usual_limit(asks: Iterable[AskOffer], units: int, tick: int) -> int:
    """Enough for half of the providers, and some room. Not for all: one with an absurd price would raise it at will."""
    cheapest: dict[str, int] = {}
    for ask in asks:
        limit = lowest_limit(ask, units, tick)
        cheapest[ask.provider] = min(limit, cheapest.get(ask.provider, limit))
    median = sorted(cheapest.values())[len(cheapest) // 2]
    return -(-median * ROOM[0] // ROOM[1])


def _furthest(reasons: Iterable[Reason | None]) -> Reason:
    """How far the best ask came."""
    return max((reason for reason in reasons if reason), key=lambda reason: reason.rank, default=Reason.NO_ASKS)


def _auction(
    offers: Offers, seen: Snapshot, bid: BidOffer, matching: Sequence[AskOffer]
) -> tuple[Match | None, Reason | None]:
    if len(seen.bids) + len(seen.asks) > MOST_ORDERS:
        seen = replace(seen, bids={}, asks={ask.id: seen.asks[ask.id] for ask in matching})
    accounts = offers.accounts(seen.owners)
    book = seen.usable(accounts).book(accounts)
    return rehearse(book, bid, matching, tick(offers.context.chain.decimals))


def is_open(one: StandingAsk, word: AccountWord) -> bool:
    """Neither cancelled, nor without the stake that it names."""
    return one.page == word.page and (word.active > 0 or word.free >= one.offer.max_stake)


def rules_named(context: Context, name: str | None) -> RuleSet:
    if name is None:
        return next(iter(context.rules.values()))
    if name not in context.rules:
        raise Problem(
            422,
            Code.RULES_UNKNOWN,
            f"this market offers no rules named {name!r}",
            f"There are: {', '.join(context.rules)}",
        )
    return context.rules[name]


def invalid(detail: str, hint: str | None = None) -> Problem:
    return Problem(422, Code.VALIDATION_FAILED, detail, hint)
