"""`job cancel` sends nothing that only the market says."""

from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import UserError
from contracts.orders import Bid
from contracts.terms import AccountWord, Phase, StateWord
from market.client import cancellation
from market.store.queries.leases import terms_of
from tests.support.market_parts import make_bid, make_lease, make_spec
from tests.support.offline_market import DOMAIN, RULES, World


def job(bid: Bid, leases: list[Any]) -> Any:
    return SimpleNamespace(id=bid.digest(DOMAIN), bid=bid, leases=leases, status="pending")


@pytest.fixture
def bids(world: World) -> list[Bid]:
    return [make_bid(world.client, world.context.matcher, RULES, make_spec(), nonce=nonce) for nonce in (0, 1)]


def test_a_lease_of_another_job_is_not_ended(world: World, bids: list[Bid], monkeypatch: pytest.MonkeyPatch) -> None:
    lease = make_lease(bids[1], DOMAIN, world.provider.address)
    chain: Any = SimpleNamespace(
        state=lambda id: StateWord(Phase.ACTIVE.value, 0, 1, 2, 0, 0), end=lambda terms: "end", now=lambda: 100
    )
    monkeypatch.setattr(cancellation, "opened", lambda chain, id, near: SimpleNamespace(terms=terms_of(lease)))
    market: Any = SimpleNamespace()
    # What it says of prices and progress counts for nothing.
    said = SimpleNamespace(id=lease.id, opened_block=1, provider=lease.provider, price=1, fee=0, end=9, state=None)
    with pytest.raises(UserError, match="of another job on chain"):
        cancellation.plan_cancellation(market, chain, job(bids[0], [said]))
    found = cancellation.plan_cancellation(market, chain, job(bids[1], [said]))
    assert (found.call, found.refund) == ("end", (lease.price + lease.fee) * (lease.end - 2))
    later = SimpleNamespace(**vars(chain) | {"state": lambda id: StateWord(Phase.ACTIVE.value, 0, 2, 2, 0, 0)})
    assert cancellation.plan_cancellation(market, later, job(bids[1], [said])).key != found.key


def test_a_hidden_lease_is_found_on_chain(world: World, bids: list[Bid]) -> None:
    words = [AccountWord(0, 0, 0, used) for used in (0b10, 0b01)]
    market: Any = SimpleNamespace(jobs=lambda client: [])
    chains: list[Any] = [SimpleNamespace(account=lambda id, w=w: w, raise_page=lambda page: page) for w in words]
    with pytest.raises(UserError, match="on chain one was opened"):
        cancellation.plan_cancellation(market, chains[0], job(bids[1], []))
    assert cancellation.plan_cancellation(market, chains[1], job(bids[1], [])).call == 1  # type: ignore[comparison-overlap]


def test_a_node_that_lags_cancels_nothing(bids: list[Bid]) -> None:
    """Raised from the page of before, the Bid's own would stay in force; it might be called cancelled all the same."""
    market: Any = SimpleNamespace(jobs=lambda client: [])
    chain: Any = SimpleNamespace(account=lambda id: AccountWord(0, 0, 0, 0), raise_page=lambda page: page)
    later = bids[1].model_copy(update={"nonce": 1 << 8})
    assert later.page == 1
    with pytest.raises(UserError, match="names page 1 of your orders, and the node says that you are at 0"):
        cancellation.plan_cancellation(market, chain, job(later, []))
