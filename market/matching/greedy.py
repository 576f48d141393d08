"""A simple correct matcher: the best bid per work unit first, each to the cheapest machine that fits it.

The price is the least that the escrow accepts for the ask: both signed limits hold by construction.
Every match reserves balance, stake and a slot, so that all of them open together.
"""

from fractions import Fraction

from contracts.api.bodies import AskResources
from contracts.jobspec import Resources
from contracts.orders import Ask
from contracts.types import SECONDS_PER_HOUR
from market.matching.book import AskOffer, BidOffer, Book, Match, Reason, Result

# How far an ask got with a bid, in the order of the checks.
_CHECKS = (
    Reason.RULES,
    Reason.ENVIRONMENT,
    Reason.RESOURCES,
    Reason.HOSTS,
    Reason.STAKE,
    Reason.SPEED,
    Reason.DEADLINE,
    Reason.PRICE,
    Reason.WANTED,
    Reason.CAPACITY,
)


def has(offered: AskResources, needed: Resources) -> bool:
    """Whether a machine has what a job needs."""
    return (
        offered.gpus >= needed.gpus
        and (needed.gpus == 0 or offered.vram_mb >= needed.vram_mb)
        and offered.memory_mb >= needed.memory_mb
        and (not needed.devices or offered.device in needed.devices)
    )


def fast_enough(ask: Ask, units: int, timeout: int) -> bool:
    """Whether `units` of work take the machine no longer than `timeout` seconds."""
    return units * SECONDS_PER_HOUR <= ask.units_per_hour * timeout


def wanted(bid: BidOffer, offer: AskOffer) -> bool:
    """Whether the provider would take the lease that this pair makes."""
    pay = offer.ask.lowest_price(bid.bid.units) * _count(bid, offer)
    return offer.resources.wants.objection(bid.bid.client, bid.recipe, pay) is None


def _count(bid: BidOffer, offer: AskOffer) -> int:
    """Checkpoints of the lease; docs/protocol.md section 2 leaves the matcher no choice."""
    return min(bid.rest, offer.ask.max_checkpoints)


def clear(book: Book) -> Result:
    """Match an epoch's orders. Deterministic, and independent of the order in which they come."""
    free, active = dict(book.free), dict(book.active)
    matches: list[Match] = []
    reasons: dict[str, Reason] = {}
    for bid in sorted(book.bids, key=_best_first):
        found = _cheapest(bid, book.asks, free, active)
        if isinstance(found, Reason):
            reasons[bid.id] = found
            continue
        client, provider = bid.bid.client, found.ask.ask.provider
        if found.lock > free.get(client, 0):
            reasons[bid.id] = Reason.BALANCE
            continue
        free[client] -= found.lock
        if bid.bid.stake > free.get(provider, 0):  # client and provider may be one account
            free[client] += found.lock
            reasons[bid.id] = Reason.CAPACITY
            continue
        free[provider] -= bid.bid.stake
        active[provider] = active.get(provider, 0) + 1
        matches.append(found)
    return Result(tuple(matches), reasons)


def _best_first(bid: BidOffer) -> tuple[Fraction, str]:
    return (-Fraction(bid.bid.max_price - bid.bid.fee, bid.bid.units), bid.id)


def _cheapest(
    bid: BidOffer, asks: tuple[AskOffer, ...], free: dict[str, int], active: dict[str, int]
) -> Match | Reason:
    best: tuple[tuple[bool, int, str], AskOffer] | None = None
    furthest = -1
    for offer in asks:
        passed = _checks_passed(bid, offer, free, active)
        furthest = max(furthest, passed)
        if passed == len(_CHECKS):
            price = offer.ask.lowest_price(bid.bid.units)
            key = (offer.ask.provider in bid.avoid, price, offer.id)
            if best is None or key < best[0]:
                best = (key, offer)
    if best is None:
        return _CHECKS[furthest] if furthest >= 0 else Reason.NO_ASKS
    offer = best[1]
    return Match(bid, offer, best[0][1], _count(bid, offer))


def _checks_passed(bid: BidOffer, offer: AskOffer, free: dict[str, int], active: dict[str, int]) -> int:
    """How many of _CHECKS the pair passes before the first it fails."""
    ask, order = offer.ask, bid.bid
    checks = (
        lambda: ask.rules == order.rules,
        lambda: bid.environment in offer.resources.environments,
        lambda: has(offer.resources, bid.needs),
        lambda: bid.hosts.issubset(offer.resources.hosts),
        lambda: order.stake <= ask.max_stake,
        lambda: bid.timeout is None or fast_enough(ask, order.units, bid.timeout),
        lambda: bid.left is None or fast_enough(ask, order.units * bid.rest, bid.left),
        lambda: ask.lowest_price(order.units) + order.fee <= order.max_price,
        lambda: wanted(bid, offer),
        lambda: active.get(ask.provider, 0) < ask.max_active and free.get(ask.provider, 0) >= order.stake,
    )
    for passed, check in enumerate(checks):
        if not check():
            return passed
    return len(checks)
