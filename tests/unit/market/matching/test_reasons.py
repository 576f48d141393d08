"""Why a bid waits: how far the best of all asks came, and never another's reason."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from contracts.job.provider_wants import Standing, Wants
from market.matching import AskOffer, BidOffer, Book, Reason, Resting, clear
from market.matching.classes import MAX_VALUE, obstacle
from market.matching.reserve import reserve
from tests.support.small_books import PARTIES, RICH, RULES, ask_offer, bid_offer, book, checked, markets
from tests.unit.market.matching.test_carry_over import epochs

MUCH = 2**60
GPU = {"gpus": 1, "vram_mb": 8000}

# What a bid and the one ask are told, and what makes them miss each other.
MISSES: list[tuple[Reason, BidOffer, AskOffer]] = [
    (Reason.RULES, bid_offer(1, {"rules": RULES[1]}), ask_offer(1)),
    (Reason.LOT, bid_offer(1, {"gpus": 1}), ask_offer(1)),
    (Reason.ENVIRONMENT, bid_offer(1, {"environment": "jax"}), ask_offer(1)),
    (Reason.DEVICE, bid_offer(1, {"devices": frozenset({"H200"})}), ask_offer(1)),
    (Reason.VRAM, bid_offer(1, {"gpus": 1, "vram_mb": 8001}), ask_offer(1, GPU)),
    (Reason.MEMORY, bid_offer(1, {"memory_mb": 1025}), ask_offer(1)),
    (Reason.REGION, bid_offer(1, {"regions": frozenset({"eu"})}), ask_offer(1, {"region": "us"})),
    (Reason.TIER, bid_offer(1, {"tier": 2}), ask_offer(1, {"tier": 1})),
    (Reason.HOSTS, bid_offer(1, {"hosts": frozenset({"a.example"})}), ask_offer(1)),
    (Reason.NUMERICS, bid_offer(1, {"numerics": frozenset({"avx2"})}), ask_offer(1, {"numerics": "avx512"})),
    (Reason.STAKE, bid_offer(1, stake=101), ask_offer(1)),
    (Reason.SPEED, bid_offer(1, timeout=73), ask_offer(1)),
    (Reason.DEADLINE, bid_offer(1, left=4 * 73), ask_offer(1)),
    (Reason.WANTED, bid_offer(1), ask_offer(1, {"wants": Wants(deny_clients=(PARTIES[0],))})),
    (Reason.WANTED, bid_offer(1, standing=Standing(3, new=False)), ask_offer(1)),
    (Reason.WANTED, bid_offer(1), ask_offer(1, {"wants": Wants(new_clients=False)})),
    (Reason.PROVIDERS, bid_offer(1, providers=frozenset(PARTIES[2:4])), ask_offer(1)),
    (Reason.PROVIDERS, bid_offer(1, not_providers=frozenset(PARTIES[4:])), ask_offer(1)),
    (Reason.UNITS, bid_offer(1, given_back_by=frozenset(PARTIES[4:])), ask_offer(1)),
    (Reason.RANGE, bid_offer(1, limit=MUCH), ask_offer(1, price_per_hour=MAX_VALUE + 1)),
    (Reason.PRICE, bid_offer(1, limit=61), ask_offer(1)),
]
FREE = RICH | {PARTIES[0]: 2**90}


def told(bid: BidOffer, *asks: AskOffer, busy: str | None = None) -> Reason | None:
    """The bid's reason, if it is not matched, with the provider `busy` at its most leases."""
    return checked(replace(book(bid, *asks, free=FREE), active={busy: 1} if busy else {})).reasons.get(bid.id)


@pytest.mark.parametrize(("reason", "bid", "ask"), MISSES, ids=[one[0].name for one in MISSES])
def test_each_reason_beside_a_machine_that_is_taken(reason: Reason, bid: BidOffer, ask: AskOffer) -> None:
    other = replace(ask, id=ask_offer(2).id, provider=PARTIES[4])
    assert told(bid, ask) is reason
    assert told(bid, ask, busy=PARTIES[5]) is reason  # were it free, that would keep them apart all the same
    assert told(bid, ask, other, busy=PARTIES[4]) is reason
    if reason is Reason.RULES or reason is Reason.LOT:
        return
    able = replace(fitting(bid, ask, other), provider=PARTIES[2])
    assert told(bid, able) is None
    assert told(bid, ask, able, busy=PARTIES[2]) is Reason.CAPACITY
    assert told(bid, able, busy=PARTIES[2]) is Reason.CAPACITY
    # One that is too dear came further than one that does not fit, and less far than one that is taken.
    if reason.rank < Reason.RANGE.rank:
        dear = replace(able, price_per_hour=10_000)
        assert told(bid, ask, dear) is Reason.PRICE
        assert told(bid, ask, dear, busy=PARTIES[5]) is Reason.PRICE
        assert told(bid, dear, ask, replace(able, id=ask_offer(3).id, provider=PARTIES[3]), busy=PARTIES[3]) is (
            Reason.CAPACITY
        )


def fitting(bid: BidOffer, ask: AskOffer, other: AskOffer) -> AskOffer:
    """`other`, with what the bid misses in `ask`."""
    needs = bid.needs
    lot: dict[str, Any] = {
        "environments": frozenset({needs.environment}), "vram_mb": max(ask.lot.vram_mb, 16_000), "memory_mb": 4096,
        "device": next(iter(needs.devices), "cpu"), "region": next(iter(needs.regions), ""), "tier": 3,
        "hosts": needs.hosts, "wants": Wants(client_voids_at_most=9), "numerics": next(iter(needs.numerics), ""),
    }  # fmt: skip
    return replace(other, lot=replace(other.lot, **lot), max_stake=500, units_per_hour=98_304, price_per_hour=3000)


def expected(market: Book, bid: BidOffer) -> Reason:
    """By the definition: all asks, one by one."""
    reserved = reserve(market)
    if bid in reserved.unfunded:
        return Reason.BALANCE
    free = [replace(slot.ask, max_stake=slot.stake) for slot in reserved.slots]
    if any(obstacle(bid, ask, 1) is None for ask in free):
        return Reason.OUTBID
    found = [obstacle(bid, ask, 1) or Reason.CAPACITY for ask in market.asks]
    return max(found, key=lambda reason: reason.rank, default=Reason.NO_ASKS)


@given(markets())
def test_a_reason_is_how_far_the_best_ask_came(market: Book) -> None:
    result = checked(market)
    for bid in market.bids:
        if bid.id in result.reasons:
            assert result.reasons[bid.id] is expected(market, bid)


@given(epochs())
def test_a_reason_of_an_epoch_before_does_not_outlive_its_cause(books: list[Book]) -> None:
    resting: Resting | None = None
    for market in books:
        result = clear(market, before=resting)
        for bid in market.bids:
            if bid.id in result.reasons:
                assert result.reasons[bid.id] is expected(market, bid)
        resting = result.resting
