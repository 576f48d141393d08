"""The matcher's promises, on random books."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from contracts.api.bodies import AskResources
from contracts.jobspec import Resources
from contracts.orders import Ask, Bid
from contracts.types import ZERO_ADDRESS, ZERO_HASH
from contracts.wants import Wants
from market.matching import AskOffer, BidOffer, Book, Reason, clear

RULES = ["0x" + "a1" * 32, "0x" + "a2" * 32]
PARTIES = [f"0x{n:040x}" for n in range(1, 7)]


def bid_offer(n: int, client: str = PARTIES[0], **changes: object) -> BidOffer:
    bid = Bid(
        client=client, matcher=ZERO_ADDRESS, approver=client, job=ZERO_HASH, rules=RULES[0], checkpoints=4, units=1000,
        max_price=100, fee=0, stake=50, valid_until=2**39, nonce=n,
    )  # fmt: skip
    return BidOffer(f"0x{n:064x}", bid.model_copy(update=changes), "torch-2.13", Resources())


def ask_offer(n: int, provider: str = PARTIES[5], **changes: object) -> AskOffer:
    ask = Ask(
        provider=provider, matcher=ZERO_ADDRESS, resources=ZERO_HASH, rules=RULES[0], price_per_hour=3000,
        units_per_hour=50_000, max_stake=100, max_active=1, max_checkpoints=10, valid_from=0, valid_until=2**39, page=0,
    )  # fmt: skip
    resources = AskResources(
        device="cpu", gpus=0, vram_mb=0, memory_mb=1000, environments=("torch-2.13",), sandbox="none"
    )
    return AskOffer(f"0x{n:064x}", ask.model_copy(update=changes), resources)


def wanting(**wants: object) -> AskOffer:
    """An Ask of a provider that does not want every lease."""
    offer = ask_offer(1)
    return replace(offer, resources=offer.resources.model_copy(update={"wants": Wants.model_validate(wants)}))


def from_hosts(offer: AskOffer, *hosts: str) -> AskOffer:
    return replace(offer, resources=offer.resources.model_copy(update={"hosts": hosts}))


RICH = dict.fromkeys(PARTIES, 10**9)


def reason_of(bid: BidOffer, *asks: AskOffer, free: dict[str, int] = RICH) -> Reason:
    result = clear(Book((bid,), asks, free))
    assert not result.matches
    return result.reasons[bid.id]


def test_price_is_rounded_up_to_what_the_escrow_accepts() -> None:
    (match,) = clear(Book((bid_offer(1, units=17),), (ask_offer(1),), RICH)).matches
    assert match.price == 2  # 17 units x 3000 / 50000 = 1.02
    assert match.price * 50_000 >= 3000 * 17 > (match.price - 1) * 50_000


def test_each_reason_is_given() -> None:
    assert reason_of(bid_offer(1)) is Reason.NO_ASKS
    assert reason_of(bid_offer(1, rules=RULES[1]), ask_offer(1)) is Reason.RULES
    assert reason_of(replace(bid_offer(1), environment="jax"), ask_offer(1)) is Reason.ENVIRONMENT
    assert reason_of(replace(bid_offer(1), needs=Resources(gpus=1)), ask_offer(1)) is Reason.RESOURCES
    away = replace(bid_offer(1), hosts=frozenset({"a.example", "b.example"}))
    assert reason_of(away, ask_offer(1), from_hosts(ask_offer(2), "a.example")) is Reason.HOSTS
    assert clear(Book((away,), (from_hosts(ask_offer(1), "a.example", "b.example", "c.example"),), RICH)).matches
    assert reason_of(bid_offer(1, stake=101), ask_offer(1)) is Reason.STAKE
    assert reason_of(replace(bid_offer(1), timeout=71), ask_offer(1)) is Reason.SPEED  # it would take 72 s
    assert clear(Book((replace(bid_offer(1), timeout=72),), (ask_offer(1),), RICH)).matches
    assert reason_of(replace(bid_offer(1), left=4 * 72 - 1), ask_offer(1)) is Reason.DEADLINE
    assert clear(Book((replace(bid_offer(1), left=4 * 72),), (ask_offer(1),), RICH)).matches
    assert clear(Book((replace(bid_offer(1), left=72, start=3),), (ask_offer(1),), RICH)).matches
    assert reason_of(bid_offer(1, max_price=59), ask_offer(1)) is Reason.PRICE
    assert reason_of(bid_offer(1), wanting(deny_clients=(PARTIES[0],))) is Reason.WANTED
    assert reason_of(bid_offer(1), ask_offer(1, max_active=0)) is Reason.CAPACITY
    assert reason_of(bid_offer(1), ask_offer(1), free=RICH | {PARTIES[5]: 49}) is Reason.CAPACITY
    assert reason_of(bid_offer(1), ask_offer(1), free=RICH | {PARTIES[0]: 4 * 60 - 1}) is Reason.BALANCE


def test_a_provider_that_let_the_job_down_comes_last_but_comes() -> None:
    cheap, dear = ask_offer(1), ask_offer(2, provider=PARTIES[4], price_per_hour=4000)
    bid = replace(bid_offer(1), avoid=frozenset({PARTIES[5]}))
    assert clear(Book((bid,), (cheap, dear), RICH)).matches[0].ask is dear
    assert clear(Book((bid,), (cheap,), RICH)).matches[0].ask is cheap


IDS = st.integers(1, 10**6)
bids = st.tuples(
    IDS,
    st.fixed_dictionaries(
        {
            "client": st.sampled_from(PARTIES),
            "units": st.integers(1, 5000),
            "max_price": st.integers(21, 420),
            "fee": st.integers(0, 20),
            "stake": st.integers(1, 150),
            "checkpoints": st.integers(1, 20),
            "rules": st.sampled_from(RULES),
        }
    ),
)
asks = st.tuples(
    IDS,
    st.fixed_dictionaries(
        {
            "provider": st.sampled_from(PARTIES),
            "price_per_hour": st.integers(1, 9000),
            "units_per_hour": st.integers(1, 90_000),
            "max_stake": st.integers(1, 200),
            "max_active": st.integers(1, 3),
            "max_checkpoints": st.integers(1, 12),
            "rules": st.sampled_from(RULES),
        }
    ),
)
books = st.tuples(
    st.lists(bids, max_size=8, unique_by=lambda b: b[0]),
    st.lists(asks, max_size=8, unique_by=lambda a: a[0]),
    st.lists(st.integers(0, 5000), min_size=6, max_size=6),
    st.randoms(use_true_random=False),
)


@given(books)
def test_every_match_keeps_both_limits_and_all_of_them_open_together(raw: tuple) -> None:
    raw_bids, raw_asks, balances, random = raw
    offers = tuple(bid_offer(n, **fields) for n, fields in raw_bids)
    machines = tuple(ask_offer(n, **fields) for n, fields in raw_asks)
    free, active = dict(zip(PARTIES, balances, strict=True)), dict.fromkeys(PARTIES, 0)
    result = clear(Book(offers, machines, dict(free), dict(active)))

    assert {m.bid.id for m in result.matches} | set(result.reasons) == {b.id for b in offers}
    assert len(result.matches) + len(result.reasons) == len(offers)
    for match in result.matches:
        bid, ask = match.bid.bid, match.ask.ask
        assert match.price * ask.units_per_hour >= ask.price_per_hour * bid.units
        assert match.price + bid.fee <= bid.max_price and match.price >= 1
        assert bid.rules == ask.rules and bid.stake <= ask.max_stake
        assert match.count == min(bid.checkpoints, ask.max_checkpoints)
        assert active[ask.provider] < ask.max_active
        active[ask.provider] += 1
        assert free[bid.client] >= match.lock
        free[bid.client] -= match.lock
        assert free[ask.provider] >= bid.stake
        free[ask.provider] -= bid.stake

    shuffled_bids, shuffled_asks = list(offers), list(machines)
    random.shuffle(shuffled_bids)
    random.shuffle(shuffled_asks)
    again = clear(Book(tuple(shuffled_bids), tuple(shuffled_asks), dict(zip(PARTIES, balances, strict=True)), {}))
    assert again == result


def test_a_lease_that_its_provider_would_give_back_is_not_made() -> None:
    mine, other = "0x" + "01" * 32, "0x" + "02" * 32
    bid = replace(bid_offer(1), recipe=mine)  # 4 checkpoints at 60
    for wants in (
        {"allow_clients": PARTIES[1:3]}, {"deny_clients": PARTIES[:1]}, {"allow_recipes": [other]},
        {"deny_recipes": [mine]}, {"min_pay": 241}, {"allow_recipes": [mine], "deny_recipes": [mine]},
    ):  # fmt: skip
        assert reason_of(bid, wanting(**wants)) is Reason.WANTED
    for wants in (
        {"allow_clients": PARTIES[:1]},
        {"deny_clients": PARTIES[1:]},
        {"allow_recipes": [mine]},
        {"min_pay": 240},
    ):
        assert clear(Book((bid,), (wanting(**wants),), RICH)).matches
    # A continued job's rest may be too short, and so may what one lease of this provider covers.
    assert reason_of(replace(bid, start=2), wanting(min_pay=240)) is Reason.WANTED
