"""Jobs that can't be audited in time are refused or told so; replays and unchecked jobs are not asked."""

from decimal import Decimal
from typing import Any

import pytest

from contracts.api.bodies import BidIn
from contracts.api.problems import Code
from contracts.api.quotes import QuoteIn
from contracts.audits.levels import OPEN
from contracts.chain.devnet.devnet import DevnetTiming, rule_sets
from contracts.orders import Rules
from contracts.types import SECONDS_PER_HOUR
from market.services.quoting.audit_terms import REPLAY_GAS
from tests.support.market_parts import CPU, make_ask, make_bid, make_spec, rule_set, signed_ask, signed_bid
from tests.support.offline_market import DOMAIN, RULES, World

OTHER = "0x00000000000000000000000000000000000000AA"
UNITS = 1_000_000
ENOUGH = {"window": 60, "checkpoint_timeout": 120, "arbiter_timeout": 120, "arbiter_fee": 30_000_000}


def offered(world: World, **changes: Any) -> Rules:
    """Audited rules, in place of those that were offered."""
    rules = RULES.model_copy(update={"verification": OPEN.hash(), **ENOUGH, **changes})
    world.context.rules = {"audited": rule_set("audited", rules)}
    world.context.rules_by_hash |= {one.hash: one for one in world.context.rules.values()}
    return rules


def bid(world: World, rules: Rules, seconds: float = 0, **changes: Any) -> BidIn:
    """Of a machine on which a checkpoint takes so long at most; 0: any."""
    speed = int(UNITS * SECONDS_PER_HOUR / seconds) if seconds else 0
    spec = make_spec(resources={"units_per_hour": speed})
    fields = {"approver": OTHER, "units": UNITS, "stake": 40_000_000} | changes
    return signed_bid(make_bid(world.client, world.context.matcher, rules, spec, **fields), DOMAIN, world.client, spec)


@pytest.mark.parametrize(
    ("changes", "seconds", "told"),
    [
        ({}, 21, "window is 60 s, and two replays may take 62 s: 2 x (epoch 5 + opening 2 + replay 21 + transfer 3)"),
        ({"window": 19}, 0, "window is 19 s, and two replays may take 20 s"),
        ({}, 13, "checkpointTimeout is 120 s, and approvals may take 124 s: 6 checkpoints of 13 s"),
        ({"arbiter_timeout": 29}, 10, "arbiterTimeout is 29 s, and 3 replays may take 30 s"),
    ],
)
def test_what_can_not_be_audited_in_time_is_refused(
    world: World, changes: dict[str, int], seconds: float, told: str
) -> None:
    rules = offered(world, **changes)
    problem = world.refuses(lambda: world.api.post_bid(bid(world, rules, seconds)), 422, Code.ORDER_TERMS_INVALID)
    assert told in problem.message and "'audited' (open)" in problem.message
    # Who approves its own job, as replays are, needs nobody's audit.
    own = bid(world, rules, seconds, approver=world.client.address)
    assert world.api.post_bid(own).status == "pending"


def test_what_can_be_is_taken(world: World) -> None:
    assert world.api.post_bid(bid(world, offered(world), 12)).status == "pending"


def test_a_devnets_rules_leave_the_time_for_small_jobs(world: World) -> None:
    offers = {name: rule_set(name, rules) for name, rules in rule_sets(OTHER, DevnetTiming()).items()}
    audited = {name: one.rules for name, one in offers.items() if one.level != "unchecked"}
    world.context.rules_by_hash |= {one.hash: one for one in offers.values()}
    assert set(audited) == {"open", "closed"}
    for nonce, (name, rules) in enumerate(audited.items()):
        world.context.rules = {name: rule_set(name, rules)}
        assert world.api.post_bid(bid(world, rules, 12, nonce=nonce)).status == "pending"


def warnings(world: World, rules: Rules, max_price: int = 1_000_000, **changes: Any) -> list[str]:
    asked = {"client": world.client.address, "spec": world.spec, "units": UNITS, "max_price": max_price} | changes
    told = world.api.quote(QuoteIn.model_validate({"approver": OTHER, "rules": "audited"} | asked)).warnings
    return [one for one in told if one.startswith(("audits: ", "gas: "))]


def test_a_quote_warns_by_what_a_checkpoint_takes_there(world: World) -> None:
    rules = offered(world, arbiter_fee=2_000_000)
    resources = CPU.model_copy(update={"numerics": "0x" + "11" * 32})
    ask = make_ask(
        world.provider, world.context.matcher, rules, resources, units_per_hour=UNITS * SECONDS_PER_HOUR // 30,
        price_per_hour=12_000_000,
    )  # fmt: skip
    world.api.post_ask(signed_ask(ask, DOMAIN, world.provider, resources))
    window, timeout, fee = warnings(world, rules, stake=10_000_000)
    assert "audits: window is 60 s, and two replays may take 80 s" in window
    assert "audits: checkpointTimeout is 120 s" in timeout
    assert "audits: arbiterFee is 2 tUSD, and 3 replays may cost 3 tUSD, 1 tUSD each" in fee
    assert warnings(world, rules, stake=10_000_000, approver=world.client.address) == []


def test_a_quote_warns_of_gas_where_the_rate_is_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = offered(world)
    gas = 10**9  # wei
    monkeypatch.setattr(world.chain.w3.eth, "gas_price", gas, raising=False)
    assert warnings(world, rules) == []
    world.context.settings = world.context.settings.model_copy(update={"gas_token_price": Decimal(2000)})
    cost = 2000 * 10**6 * REPLAY_GAS * gas // 10**18
    assert cost == 170_000
    (told,) = warnings(world, rules, max_price=10 * cost - 1)
    assert told.startswith("gas: a replay takes about 85,000 gas, now 0.17 tUSD, which is 10% of max_price")
    assert warnings(world, rules, max_price=10 * cost) == []
