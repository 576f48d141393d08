"""The keeper's round: for the leases of this market, and no lease keeps it from the others."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from contracts.orders import Rules, new_account
from contracts.terms import Phase, StateWord, Terms
from market.chain import keeper
from market.store.models import LeaseRow
from tests.support.market_parts import make_bid, make_lease, make_spec
from tests.support.offline_market import DOMAIN, RULES, World


def kept(world: World, phases: dict[str, Phase], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What one round sends, if the chain has these leases in these phases, long ago."""
    sent: list[tuple[str, str]] = []

    def call(what: str) -> Any:
        return lambda terms, *_: (what, cast(Terms, terms).lease)

    chain = SimpleNamespace(
        state=lambda lease: StateWord(phases[lease].value, 0, 0, 0, 0, 0),
        dry_run=lambda call, sender: None,
        resolve=call("resolve"),
        end=call("end"),
    )
    monkeypatch.setattr(world.context, "chain", chain)
    monkeypatch.setattr(keeper, "_send", lambda context, what, call, row, state: sent.append(call))
    keeper.keep_leases(world.context)
    return sorted(sent)


def add_lease(world: World, nonce: int, matcher: str, rules: Rules = RULES) -> LeaseRow:
    """Of a Bid that this market does not hold."""
    bid = make_bid(world.client, matcher, rules, make_spec(), nonce=nonce)
    lease = make_lease(bid, DOMAIN, world.provider.address)
    with world.context.db.session() as session:
        session.add(lease)
    return lease


def test_it_acts_for_leases_of_this_market_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one escrow there may be several markets, and each pays the gas for its own."""
    former = world.lease()
    monkeypatch.setattr(world.context, "matcher", new_account().address)  # a key that was replaced opened it
    own = add_lease(world, 1, world.context.matcher)
    others = add_lease(world, 2, world.stranger.address)
    phases = dict.fromkeys((former.id, own.id, others.id), Phase.ACTIVE)
    assert kept(world, phases, monkeypatch) == sorted([("end", former.id), ("end", own.id)])


def test_a_challenged_lease_under_unknown_rules_holds_up_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = cast(Rules, RULES.model_copy(update={"window": RULES.window + 1}))
    matcher = world.context.matcher
    lost, own, late = (add_lease(world, nonce, matcher, rules) for nonce, rules in enumerate((unknown, RULES, RULES)))
    phases = {lost.id: Phase.CHALLENGED, own.id: Phase.CHALLENGED, late.id: Phase.ACTIVE}
    assert kept(world, phases, monkeypatch) == sorted([("resolve", own.id), ("end", late.id)])
