"""Small order books, for tests of the auction: orders that fit unless a test says otherwise, and random ones."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from contracts.job.provider_wants import UNKNOWN, Standing, Wants
from market.matching import AskOffer, BidOffer, Book, Lot, Needs, Result, clear
from market.matching.verifier import ClaimedMatch, lies

RULES = ["0x" + "a1" * 32, "0x" + "a2" * 32]
PARTIES = [f"0x{n:040x}" for n in range(1, 7)]
RICH = dict.fromkeys(PARTIES, 10**9)
NEEDS = Needs(RULES[0], "torch-2.13")
LOT = Lot(RULES[0], frozenset({"torch-2.13"}), "cpu", memory_mb=1024)


def bid_offer(n: int, needs: dict[str, Any] | None = None, **changes: Any) -> BidOffer:
    made = BidOffer(
        f"0x{n:064x}", PARTIES[0], replace(NEEDS, **needs or {}), units=1000, limit=100, fee=0, stake=50, rest=4
    )
    return replace(made, **changes)


def ask_offer(n: int, lot: dict[str, Any] | None = None, **changes: Any) -> AskOffer:
    """3000 for an hour at 49152 units, a number that no rounding changes: a checkpoint of 1000 units is 61.04."""
    made = AskOffer(
        f"0x{n:064x}", PARTIES[5], replace(LOT, **lot or {}), price_per_hour=3000, units_per_hour=49_152,
        max_stake=100, max_active=1, max_checkpoints=10,
    )  # fmt: skip
    return replace(made, **changes)


def book(*orders: BidOffer | AskOffer, free: dict[str, int] | None = None, **active: int) -> Book:
    bids = tuple(order for order in orders if isinstance(order, BidOffer))
    asks = tuple(order for order in orders if isinstance(order, AskOffer))
    return Book(bids, asks, RICH if free is None else free, active)


def checked(of: Book, seed: bytes = b"", tick: int = 1) -> Result:
    """A result that has been verified."""
    result = clear(of, seed, tick)
    assert list(lies(of, result.prices, claims(result), tick)) == []
    assert {match.bid.id for match in result.matches} | set(result.reasons) == {bid.id for bid in of.bids}
    assert len(result.matches) + len(result.reasons) == len(of.bids)
    return result


def claims(result: Result) -> list[ClaimedMatch]:
    return [ClaimedMatch(one.bid.id, one.ask.id, one.place, one.price) for one in result.matches]


def markets(orders: int = 6) -> st.SearchStrategy[Book]:
    """Orders that often fit, of parties that share balances."""
    bids = st.builds(
        dict,
        needs=st.fixed_dictionaries(
            {
                "rules": st.sampled_from(RULES), "tier": st.integers(0, 1), "memory_mb": st.sampled_from([0, 500]),
                "regions": st.sampled_from([frozenset(), frozenset({"eu"})]),
                "numerics": st.sampled_from([frozenset(), frozenset(), frozenset({"avx2"})]),
            }
        ),
        client=st.sampled_from(PARTIES), units=st.integers(1, 5000), limit=st.integers(1, 420), fee=st.integers(0, 20),
        stake=st.integers(1, 150), rest=st.integers(1, 20), timeout=st.sampled_from([None, 600]),
        avoid=st.sampled_from([frozenset(), frozenset(), frozenset(PARTIES[3:4])]),
        given_back_by=st.sampled_from([frozenset(), frozenset(), frozenset(PARTIES[4:5])]),
        providers=st.sampled_from([frozenset(), frozenset(), frozenset(PARTIES[2:5])]),
        not_providers=st.sampled_from([frozenset(), frozenset(), frozenset(PARTIES[3:4])]),
        standing=st.sampled_from([UNKNOWN, UNKNOWN, Standing(3, new=False), Standing(0, new=False)]),
    )  # fmt: skip
    asks = st.builds(
        dict,
        lot=st.fixed_dictionaries(
            {
                "rules": st.sampled_from(RULES), "tier": st.integers(0, 1), "memory_mb": st.sampled_from([400, 1024]),
                "region": st.sampled_from(["", "eu"]), "numerics": st.sampled_from(["", "avx2"]),
                "wants": st.sampled_from(
                    [
                        Wants(), Wants(), Wants(min_pay=300), Wants(deny_clients=(PARTIES[1],)),
                        Wants(client_voids_at_most=9), Wants(new_clients=False),
                    ]
                ),
            }
        ),
        provider=st.sampled_from(PARTIES), price_per_hour=st.integers(1, 9000), units_per_hour=st.integers(1, 90_000),
        max_stake=st.integers(1, 200), max_active=st.integers(0, 3), max_checkpoints=st.integers(1, 12),
    )  # fmt: skip
    return st.builds(
        lambda bids, asks, free, active: Book(
            tuple(bid_offer(n, **of) for n, of in enumerate(bids)),
            tuple(ask_offer(n, **of) for n, of in enumerate(asks)),
            dict(zip(PARTIES, free, strict=True)),
            dict(zip(PARTIES, active, strict=True)),
        ),
        st.lists(bids, max_size=orders),
        st.lists(asks, max_size=orders),
        st.lists(st.sampled_from([0, 300, 5000, 10**6]), min_size=6, max_size=6),
        st.lists(st.integers(0, 2), min_size=6, max_size=6),
    )


def rich(market: Book) -> Book:
    """Parties of their own for all orders, who can pay for all: what the auction does without its admission."""
    nobody = dict.fromkeys(("avoid", "given_back_by", "providers", "not_providers"), frozenset[str]())
    bids = tuple(
        replace(bid, client=f"client{n}", **nobody)  # type: ignore[arg-type]
        for n, bid in enumerate(market.bids)
    )
    asks = tuple(replace(ask, provider=f"provider{n}", max_active=1) for n, ask in enumerate(market.asks))
    parties = [*(bid.client for bid in bids), *(ask.provider for ask in asks)]
    return Book(bids, asks, dict.fromkeys(parties, 10**9))
