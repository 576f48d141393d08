"""The auction's promises, on random books."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.job.provider_wants import Wants
from market.matching import AskOffer, BidOffer, Book, Reason, clear
from market.matching.classes import MAX_VALUE
from market.matching.verifier import ClaimedMatch, lies
from tests.support.gpu_books import random_book
from tests.support.small_books import PARTIES, RICH, RULES, ask_offer, bid_offer, book, checked, claims, markets, rich


def reason_of(bid: BidOffer, *asks: AskOffer, free: dict[str, int] | None = None) -> Reason:
    result = checked(book(bid, *asks, free=free))
    assert not result.matches
    return result.reasons[bid.id]


# ------------------------------------------------------------------ one pair


def test_a_price_is_the_asks_and_rounded_up_to_what_the_escrow_accepts() -> None:
    (match,) = checked(book(bid_offer(1), ask_offer(1))).matches
    assert match.price == 62  # 61.04
    assert match.price * 49_152 >= 3000 * 1000 > (match.price - 1) * 49_152


def test_a_price_is_what_the_best_loser_would_have_paid() -> None:
    losing, winning = bid_offer(1, limit=80), bid_offer(2, limit=400)
    (match,) = checked(book(losing, winning, ask_offer(1))).matches
    assert (match.bid, match.price) == (winning, 80)


def test_a_price_keeps_both_limits_at_the_machines_own_speed() -> None:
    faster = ask_offer(1, units_per_hour=50_000)  # counted as 49152
    (match,) = checked(book(bid_offer(1), faster)).matches
    assert match.price == 60 and match.price * 50_000 >= 3000 * 1000
    assert reason_of(bid_offer(1, limit=61), faster) is Reason.PRICE


def test_each_reason_is_given() -> None:
    assert reason_of(bid_offer(1)) is Reason.NO_ASKS
    assert reason_of(bid_offer(1, {"rules": RULES[1]}), ask_offer(1)) is Reason.RULES
    assert reason_of(bid_offer(1, {"gpus": 1}), ask_offer(1)) is Reason.LOT
    assert reason_of(bid_offer(1, {"environment": "jax"}), ask_offer(1)) is Reason.ENVIRONMENT
    assert reason_of(bid_offer(1, {"devices": frozenset({"H200", "A100"})}), ask_offer(1)) is Reason.DEVICE
    one_gpu = ask_offer(1, {"gpus": 1, "vram_mb": 8000})
    assert reason_of(bid_offer(1, {"gpus": 1, "vram_mb": 8001}), one_gpu) is Reason.VRAM
    assert reason_of(bid_offer(1, {"memory_mb": 1025}), ask_offer(1)) is Reason.MEMORY
    assert reason_of(bid_offer(1, {"regions": frozenset({"eu"})}), ask_offer(1, {"region": "us"})) is Reason.REGION
    assert reason_of(bid_offer(1, {"tier": 2}), ask_offer(1, {"tier": 1})) is Reason.TIER
    away = bid_offer(1, {"hosts": frozenset({"a.example", "b.example"})})
    assert reason_of(away, ask_offer(1), ask_offer(2, {"hosts": frozenset({"a.example"})})) is Reason.HOSTS
    assert reason_of(bid_offer(1, stake=101), ask_offer(1)) is Reason.STAKE
    assert reason_of(bid_offer(1, stake=99), ask_offer(1), free=RICH | {PARTIES[5]: 98}) is Reason.CAPACITY
    assert reason_of(bid_offer(1, {"units_per_hour": 49_153}), ask_offer(1)) is Reason.SPEED
    assert reason_of(bid_offer(1, timeout=73), ask_offer(1)) is Reason.SPEED  # it would take 73.2 s
    assert reason_of(bid_offer(1, left=4 * 73), ask_offer(1)) is Reason.DEADLINE
    assert reason_of(bid_offer(1, left=0), ask_offer(1)) is Reason.DEADLINE
    refusing = ask_offer(1, {"wants": Wants(deny_clients=(PARTIES[0],))})
    assert reason_of(bid_offer(1), refusing) is Reason.WANTED
    assert reason_of(bid_offer(1), ask_offer(1, max_active=0)) is Reason.CAPACITY
    assert reason_of(bid_offer(1, {"tier": 2}), ask_offer(1, max_active=0)) is Reason.TIER  # taken, but no good anyway
    assert reason_of(bid_offer(1), ask_offer(1), free=RICH | {PARTIES[5]: 49}) is Reason.CAPACITY
    assert reason_of(bid_offer(1, limit=61), ask_offer(1)) is Reason.PRICE
    assert reason_of(bid_offer(1), ask_offer(1), free=RICH | {PARTIES[0]: 399}) is Reason.BALANCE
    two = checked(book(bid_offer(1), bid_offer(2, limit=101), ask_offer(1)))
    assert two.reasons == {bid_offer(1).id: Reason.OUTBID}


def test_what_a_bid_asks_for_it_gets() -> None:
    wants_all = bid_offer(
        1,
        {
            "gpus": 2, "vram_mb": 24_000, "memory_mb": 60_000, "devices": frozenset({"RTX 3090", "RTX 4090"}),
            "regions": frozenset({"eu", "us"}), "tier": 1, "hosts": frozenset({"a.example"}), "units_per_hour": 49_152,
        },
        timeout=74, left=4 * 74, stake=100,
    )  # fmt: skip
    machine = {
        "gpus": 2, "vram_mb": 24_000, "memory_mb": 61_440, "device": "RTX 4090", "region": "us", "tier": 2,
        "hosts": frozenset({"a.example", "b.example"}), "environments": frozenset({"jax", "torch-2.13"}),
    }  # fmt: skip
    assert checked(book(wants_all, ask_offer(1, machine))).matches


def test_lots_trade_by_size() -> None:
    """Three GPUs are wanted of a machine with four, and are sold as two."""
    four = ask_offer(1, {"gpus": 4})
    assert checked(book(bid_offer(1, {"gpus": 3}), four)).matches
    assert reason_of(bid_offer(1, {"gpus": 2}), four) is Reason.LOT
    assert checked(book(bid_offer(1, {"gpus": 2}), ask_offer(1, {"gpus": 3}))).matches
    assert reason_of(bid_offer(1), four) is Reason.LOT  # a job for a CPU


def test_a_provider_that_let_the_job_down_comes_last_but_comes() -> None:
    cheap, dear = ask_offer(1), ask_offer(2, provider=PARTIES[4], price_per_hour=4000)
    bid = bid_offer(1, avoid=frozenset({PARTIES[5]}))
    assert [match.ask for match in checked(book(bid, cheap, dear)).matches] == [dear]
    assert [match.ask for match in checked(book(bid, cheap)).matches] == [cheap]
    too_dear = replace(dear, price_per_hour=5000)
    assert [match.ask for match in checked(book(bid, cheap, too_dear)).matches] == [cheap]


def test_a_provider_that_gave_it_back_for_its_work_never_gets_it_again() -> None:
    theirs, other = ask_offer(1), ask_offer(2, provider=PARTIES[4], price_per_hour=4000)
    bid = bid_offer(1, avoid=frozenset({PARTIES[5]}), given_back_by=frozenset({PARTIES[5]}))
    assert [match.ask for match in checked(book(bid, theirs, other)).matches] == [other]
    assert reason_of(bid, theirs) is Reason.UNITS
    assert reason_of(bid, theirs, replace(other, price_per_hour=5000)) is Reason.PRICE
    result = clear(book(bid, theirs))
    told = ClaimedMatch(bid.id, theirs.id, 0, 62)
    (lie,) = lies(book(bid, theirs), dict.fromkeys(result.prices, 3000), [told])
    assert "does not fit" in lie


def test_a_lease_that_its_provider_would_give_back_is_not_made() -> None:
    mine, other = "0x" + "01" * 32, "0x" + "02" * 32
    bid = bid_offer(1, recipe=mine)  # 4 checkpoints, at 62 at least
    for wants in (
        {"allow_clients": PARTIES[1:3]}, {"deny_clients": PARTIES[:1]}, {"allow_recipes": [other]},
        {"deny_recipes": [mine]}, {"min_pay": 250}, {"allow_recipes": [mine], "deny_recipes": [mine]},
    ):  # fmt: skip
        wanting = ask_offer(1, {"wants": Wants.model_validate(wants)})
        assert reason_of(bid, wanting) is Reason.WANTED
    for wants in (
        {"allow_clients": PARTIES[:1]}, {"deny_clients": PARTIES[1:]}, {"allow_recipes": [mine]}, {"min_pay": 230},
    ):  # fmt: skip
        assert checked(book(bid, ask_offer(1, {"wants": Wants.model_validate(wants)}))).matches
    # A continued job's rest may be too short, and so may what one lease of this provider covers.
    picky = {"wants": Wants(min_pay=230)}
    assert reason_of(replace(bid, rest=2), ask_offer(1, picky)) is Reason.WANTED
    assert reason_of(bid, ask_offer(1, picky, max_checkpoints=3)) is Reason.WANTED


def test_a_bid_at_just_the_price_of_an_ask_trades() -> None:
    exact = ask_offer(1, price_per_hour=4915)
    assert [match.price for match in checked(book(bid_offer(1), exact)).matches] == [100]


def test_one_ask_may_open_several_leases() -> None:
    bids = [bid_offer(n, client=PARTIES[n]) for n in range(4)]
    result = checked(book(*bids, ask_offer(1, max_active=3)))
    assert sorted(match.place for match in result.matches) == [0, 1, 2]
    result = checked(book(*bids, ask_offer(1, max_active=3), free=RICH | {PARTIES[5]: 199}))
    assert len(result.matches) == 2  # the third has no stake


def test_a_clients_bids_share_its_balance() -> None:
    first, second = bid_offer(1, limit=90), bid_offer(2)
    asks = [ask_offer(n, provider=PARTIES[n]) for n in (1, 2)]
    assert len(checked(book(first, second, *asks, free=RICH | {PARTIES[0]: 760})).matches) == 2
    result = checked(book(first, second, *asks, free=RICH | {PARTIES[0]: 759}))
    assert [match.bid for match in result.matches] == [second]
    assert result.reasons == {first.id: Reason.BALANCE}


def test_who_may_trade_is_known_before_the_seed() -> None:
    """Alike in all but their ids: half of the bids are funded, and a provider opens one ask of two."""
    bids = [bid_offer(n) for n in range(1, 9)]
    asks = [ask_offer(n, provider=PARTIES[1 + n % 4]) for n in range(1, 9)]
    market = book(*bids, *asks, free=RICH | {PARTIES[0]: 4 * 400})
    found = [checked(market, seed) for seed in (b"one", b"two", b"three")]
    assert len({frozenset(one.bid.id for one in result.matches) for result in found}) == 1
    assert len({frozenset(one.ask.id for one in result.matches) for result in found}) == 1
    pairs = [{(one.bid.id, one.ask.id) for one in result.matches} for result in found]
    assert pairs[0] != pairs[1]


def test_a_bid_beyond_the_range_pays_what_the_others_would() -> None:
    too_much = bid_offer(1, limit=MAX_VALUE, client=PARTIES[1])
    (match,) = checked(book(too_much, bid_offer(2), ask_offer(1), free=RICH | {PARTIES[1]: 2**90})).matches
    assert (match.bid, match.price) == (too_much, 100)


def test_numbers_of_96_bits_are_counted_right() -> None:
    """A token with 18 decimals, priced in ticks of 10^12."""
    huge = 10**18
    bid = bid_offer(1, limit=100 * huge, units=1000)
    ask = ask_offer(1, price_per_hour=3000 * huge)
    (match,) = checked(book(bid, ask, free={PARTIES[0]: 2**95, PARTIES[5]: 100}), tick=10**12).matches
    assert 3000 * huge * 1000 <= match.price * 49_152 and match.price <= 100 * huge
    assert match.price == -(-3000 * 1000 * huge // 49_152)


# ------------------------------------------------------------------ random books


@given(markets(), st.sampled_from([1, 7]), st.randoms(use_true_random=False))
def test_matches_keep_all_limits_and_open_together_whatever_the_order(market: Book, tick: int, dice: Any) -> None:
    result = checked(market, b"seed", tick)
    free, active = dict(market.free), dict(market.active)
    for match in result.matches:
        bid, ask = match.bid, match.ask
        assert match.price * ask.units_per_hour >= ask.price_per_hour * bid.units
        assert 1 <= match.price <= bid.limit
        assert bid.needs.rules == ask.lot.rules and bid.stake <= ask.max_stake
        assert match.count == min(bid.rest, ask.max_checkpoints)
        assert match.price * match.count >= ask.lot.wants.min_pay
        assert active[ask.provider] < ask.max_active
        active[ask.provider] += 1
        assert free[bid.client] >= match.lock
        free[bid.client] -= match.lock
        assert free[ask.provider] >= bid.stake
        free[ask.provider] -= bid.stake

    shuffled = [list(market.bids), list(market.asks)]
    for orders in shuffled:
        dice.shuffle(orders)
    again = clear(Book(tuple(shuffled[0]), tuple(shuffled[1]), market.free, market.active), b"seed", tick)
    assert again == result


def gain(bid: BidOffer, ask: AskOffer) -> int:
    """What a pair is worth, by the definition: at the speed's leading six bits. -1 if it does not fit."""
    speed = int(f"{ask.units_per_hour:b}"[:6].ljust(ask.units_per_hour.bit_length(), "0"), 2)
    memory = ask.lot.memory_mb
    paid = bid.limit * speed // bid.units
    least_work = -(-ask.lot.wants.min_pay * ask.units_per_hour // ask.price_per_hour)
    if least_work.bit_length() > 4:
        power = 2 ** (least_work.bit_length() - 4)
        least_work = -(-least_work // power) * power
    stake = int(f"{ask.max_stake:03}"[:2] + "0") if ask.max_stake > 99 else ask.max_stake
    fits = (
        bid.needs.rules == ask.lot.rules
        and bid.needs.tier <= ask.lot.tier
        and bid.needs.memory_mb <= memory
        and (not bid.needs.regions or ask.lot.region in bid.needs.regions)
        and (not bid.needs.numerics or ask.lot.numerics in bid.needs.numerics)
        and bid.stake <= stake
        and bid.standing.voids <= ask.lot.wants.client_voids_at_most
        and (ask.lot.wants.new_clients or not bid.standing.new)
        and (bid.timeout is None or bid.units * 3600 <= speed * bid.timeout)
        and (not ask.lot.wants.min_pay or bid.units * min(bid.rest, ask.max_checkpoints) >= least_work)
    )
    return paid - ask.price_per_hour if fits else -1


@given(markets(5).map(rich))
def test_no_other_matching_has_a_greater_surplus(market: Book) -> None:
    result = checked(market)
    bids = [*market.bids, *[None] * len(market.asks)]
    worth = {(bid, ask): gain(bid, ask) for bid in market.bids for ask in market.asks}
    best = max(
        sum(max(0, worth.get((bid, ask), 0)) for bid, ask in zip(order, market.asks, strict=True))
        for order in permutations(bids, len(market.asks))
    )
    assert result.surplus == best == sum(worth[match.bid, match.ask] for match in result.matches)
    matched = {match.bid for match in result.matches} | {match.ask for match in result.matches}
    for (bid, ask), value in worth.items():
        assert value < 0 or bid in matched or ask in matched  # the two would have traded at some price


@given(markets().map(rich), st.integers(2, 1000))
def test_scaling_all_amounts_keeps_the_matches(market: Book, by: int) -> None:
    bids = tuple(replace(bid, limit=bid.limit * by, fee=bid.fee * by) for bid in market.bids)
    asks = tuple(
        replace(ask, price_per_hour=ask.price_per_hour * by, lot=replace(ask.lot, wants=Wants())) for ask in market.asks
    )
    plain = replace(market, asks=tuple(replace(ask, lot=replace(ask.lot, wants=Wants())) for ask in market.asks))
    scaled = Book(bids, asks, market.free)
    pairs = [
        {(one.bid.id, one.ask.id) for one in clear(of, tick=tick).matches} for of, tick in ((plain, 1), (scaled, by))
    ]
    assert pairs[0] == pairs[1]


@given(markets().map(rich), st.integers(0, 5))
def test_one_more_ask_never_hurts_the_bids_as_a_whole(market: Book, last: int) -> None:
    if not market.asks:
        return
    fewer = replace(market, asks=market.asks[: last % len(market.asks)])

    def gains(of: Book) -> int:
        result = checked(of)
        return sum(
            one.bid.limit * one.trade_class.units_per_hour // one.bid.units - result.prices[one.trade_class]
            for one in result.matches
        )

    assert gains(market) >= gains(fewer)


# ------------------------------------------------------------------ the verifier


def test_a_market_that_lies_is_caught() -> None:
    market = random_book(60, 40, seed=3)
    honest = clear(market, b"seed")
    told = claims(honest)
    prices = dict(honest.prices)

    def caught(prices: dict, told: list[ClaimedMatch], of: Book = market) -> str:
        found = list(lies(of, prices, told))
        assert found
        return found[0]

    assert not list(lies(market, prices, told))
    assert "was not sold though" in caught(prices, told[1:])
    assert "was matched twice" in caught(prices, [*told, told[0]])
    dearer = [replace(told[0], price=told[0].price + 1), *told[1:]]
    assert "its class's price is" in caught(prices, dearer)
    other = next(bid for bid in market.bids if bid.id in honest.reasons)
    assert caught(prices, [replace(told[0], bid=other.id), *told[1:]])
    assert "not in this epoch" in caught(prices, [replace(told[0], bid="bid-of-a-friend"), *told[1:]])
    for sold in {match.ask.id: match for match in honest.matches}.values():
        of = next(cls for cls in prices if cls.lot.device == sold.ask.lot.device)
        assert caught(prices | {of: prices[of] * 3}, told)
        break
    unpaid = replace(market, free=dict(market.free) | {honest.matches[0].bid.client: 1})
    assert "can't lock" in caught(prices, told, unpaid)
    gone = dict(prices)
    del gone[next(iter(gone))]
    assert "there is no price" in caught(gone, told)


@pytest.mark.parametrize("size", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_a_realistic_book_is_cleared_alike_whatever_its_order(size: int) -> None:
    market = random_book(size, size, seed=1)
    first = checked(market, b"one")
    assert clear(Book(market.bids[::-1], market.asks[::-1], market.free), b"one") == first
    assert clear(market, b"two").surplus == first.surplus
