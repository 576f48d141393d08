"""Which class an ask is in, and which classes a bid may trade in."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from operator import contains, ge
from typing import Any

from contracts.job.provider_wants import Standing, Wants
from market.matching.book import AskOffer, BidOffer, Lot, Needs, Reason, TradeClass

MAX_VALUE = 1 << 40  # ticks per hour: the most that a bid counts as, and that an ask may take, or sums overflow
SPEED_BITS = 6
MEMORY_BITS = 4
WORK_BITS = 4
STAKE_DIGITS = 2


def round_down(value: int, bits: int) -> int:
    """To a number with `bits` leading bits, the rest of them 0: by less than 1 / 2^(bits-1)."""
    shift = max(0, value.bit_length() - bits)
    return value >> shift << shift


def round_up(value: int, bits: int) -> int:
    down = round_down(value, bits)
    return value if down == value else down + (1 << (value.bit_length() - bits))


def round_stake(stake: int) -> int:
    """Down to two decimal digits: round numbers, as people choose them, stay what they are."""
    power = 10 ** max(0, len(str(stake)) - STAKE_DIGITS)
    return stake // power * power


def rounded(lot: Lot) -> Lot:
    """Machines differ by a few MB of memory; classes do not."""
    memory = round_down(lot.memory_mb, MEMORY_BITS)
    return Lot(
        lot.rules, lot.environments, lot.device, lot.gpus, lot.vram_mb, memory, lot.region, lot.tier, lot.hosts,
        lot.wants, lot.numerics,
    )  # fmt: skip


def class_bounds(ask: AskOffer, stake: int) -> tuple[int, int, int, int]:
    """A TradeClass's units_per_hour, stake, min_work and max_checkpoints, where the ask can lock `stake`."""
    wanted_pay = ask.lot.wants.min_pay
    # A lease pays at least price_per_hour / units_per_hour for each unit, so this much work is enough.
    min_work = -(-wanted_pay * ask.units_per_hour // ask.price_per_hour) if wanted_pay else 0
    return (
        round_down(ask.units_per_hour, SPEED_BITS),
        round_stake(stake),
        round_up(min_work, WORK_BITS),
        ask.max_checkpoints if min_work else 0,
    )


@dataclass(frozen=True)
class Bound:
    """What bids ask for in one respect, and what machines offer."""

    reason: Reason  # of who does not find it
    asked: Callable[[Needs], Any]
    offered: Callable[[Lot], Any]
    keeps: Callable[[Any, Any], bool]  # (offered, asked)


def _is_one_of(has: str, any_of: Collection[str]) -> bool:
    return has in any_of or not any_of


# Within one lot size under one rule-set.
LOT_BOUNDS = (
    Bound(Reason.ENVIRONMENT, lambda needs: needs.environment, lambda lot: lot.environments, contains),
    Bound(Reason.DEVICE, lambda needs: needs.devices, lambda lot: lot.device, _is_one_of),
    # A job without GPUs asks for no memory of theirs.
    Bound(Reason.VRAM, lambda needs: needs.vram_mb if needs.gpus else 0, lambda lot: lot.vram_mb, ge),
    Bound(Reason.MEMORY, lambda needs: needs.memory_mb, lambda lot: lot.memory_mb, ge),
    Bound(Reason.REGION, lambda needs: needs.regions, lambda lot: lot.region, _is_one_of),
    Bound(Reason.TIER, lambda needs: needs.tier, lambda lot: lot.tier, ge),
    Bound(Reason.HOSTS, lambda needs: needs.hosts, lambda lot: lot.hosts, ge),
    Bound(Reason.NUMERICS, lambda needs: needs.numerics, lambda lot: lot.numerics, _is_one_of),
)


def welcome(wants: Wants, client: str, recipe: str, standing: Standing) -> bool:
    """Whether a provider takes such a lease if it pays enough."""
    return wants.objection(client, recipe, wants.min_pay, standing) is None


def pays(bid: BidOffer, min_work: int, max_checkpoints: int) -> bool:
    """Whether a lease has the work that a class's providers want."""
    return bid.units * min(bid.rest, max_checkpoints) >= min_work


def hourly(bid: BidOffer, units_per_hour: int, tick: int) -> int:
    """What a bid may pay for an hour of a machine with that speed, in ticks; MAX_VALUE if it is more."""
    return min(bid.limit * units_per_hour // (bid.units * tick), MAX_VALUE)


def cost(ask: AskOffer, tick: int) -> int:
    """The least that an ask takes for an hour, in ticks."""
    return -(-ask.price_per_hour // tick)


def obstacle(bid: BidOffer, ask: AskOffer, tick: int) -> Reason | None:
    """What keeps the two from trading, and comes first in this order; None: nothing does."""
    if bid.needs.pool != ask.lot.pool:
        return Reason.LOT if bid.needs.rules == ask.lot.rules else Reason.RULES
    offered = TradeClass(rounded(ask.lot), *class_bounds(ask, ask.max_stake))
    keeps = [(bound.reason, bound.keeps(bound.offered(offered.lot), bound.asked(bid.needs))) for bound in LOT_BOUNDS]
    keeps += [
        (Reason.STAKE, offered.stake >= bid.stake),
        (Reason.SPEED, offered.units_per_hour >= bid.lowest_speed),
        (Reason.DEADLINE, offered.units_per_hour >= bid.deadline_speed),
        (Reason.WANTED, _is_wanted(bid, offered)),
        (Reason.PROVIDERS, is_named(bid, ask.provider)),
        (Reason.UNITS, ask.provider not in bid.given_back_by),
        (Reason.RANGE, cost(ask, tick) <= MAX_VALUE),
        (Reason.PRICE, hourly(bid, offered.units_per_hour, tick) >= cost(ask, tick)),
    ]
    return next((reason for reason, kept in keeps if not kept), None)


def is_named(bid: BidOffer, provider: str) -> bool:
    """Whether a job may go to the provider, by those that its client names."""
    return provider not in bid.not_providers and _is_one_of(provider, bid.providers)


def _is_wanted(bid: BidOffer, offered: TradeClass) -> bool:
    wants = offered.lot.wants
    return welcome(wants, bid.client, bid.recipe, bid.standing) and pays(bid, offered.min_work, offered.max_checkpoints)


def lowest_limit(ask: AskOffer, units: int, tick: int) -> int:
    """Per checkpoint of `units`: the least that a bid must be ready to pay for this ask."""
    per_hour = cost(ask, tick) * tick
    return max(1, -(-per_hour * units // round_down(ask.units_per_hour, SPEED_BITS)))


def lone_price(ask: AskOffer, units: int, tick: int) -> int:
    """Per checkpoint of `units`: what a bid pays for this ask if nobody else wants it. Below `lowest_limit`."""
    return ask.price(cost(ask, tick) * tick, units)
