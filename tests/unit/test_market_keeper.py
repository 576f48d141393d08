"""The keeper's round: no lease of strangers keeps it from the others."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from contracts.orders import Rules
from contracts.terms import Phase, StateWord, Terms
from market import keeper
from tests.market_fixtures import DOMAIN, RULES, World, world
from tests.market_world import make_bid, make_lease, make_spec

__all__ = ["world"]


def test_a_challenged_lease_of_another_market_holds_up_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone may open a lease on the escrow under rules of his own, and challenge it."""
    unknown = RULES.model_copy(update={"window": RULES.window + 1})
    leases = []
    for nonce, rules in enumerate((unknown, RULES, RULES)):
        bid = make_bid(world.client, world.context.matcher, cast(Rules, rules), make_spec(), nonce=nonce)
        leases.append(make_lease(bid, DOMAIN, world.provider.address))
    with world.context.db.session() as session:
        session.add_all(leases)
    challenged, own, late = leases
    phases = {challenged.id: Phase.CHALLENGED, own.id: Phase.CHALLENGED, late.id: Phase.ACTIVE}
    tried: list[tuple[str, str]] = []

    def call(what: str) -> Any:
        return lambda terms, *_: (what, cast(Terms, terms).lease)

    chain = SimpleNamespace(
        state=lambda lease: StateWord(phases[lease].value, 0, 0, 0, 0, 0),
        dry_run=lambda call, sender: None,
        resolve=call("resolve"),
        end=call("end"),
    )
    monkeypatch.setattr(world.context, "chain", chain)
    monkeypatch.setattr(keeper, "_send", lambda context, what, call, row, state: tried.append(call))
    keeper.keep(world.context)
    assert sorted(tried) == sorted([("resolve", own.id), ("end", late.id)])
