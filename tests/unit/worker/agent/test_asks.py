"""The standing Ask: what it wants for its gas, and how it keeps away from leases that are not wanted."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts.api import receipts
from contracts.api.auditing.notes import RulingContent, signed_note
from contracts.api.bodies import ReceiptOut
from contracts.api.info import RuleSet
from contracts.audits.levels import OPEN
from contracts.errors import UserError
from contracts.job.provider_wants import Wants
from contracts.orders import Receipt, new_account
from tests.support.market_parts import rule_set
from tests.support.worker_leases import APPROVER, DOMAIN, OFFER, PROVIDER, RULES
from worker.agent import asks
from worker.agent.asks import BACK_OFF_SECONDS, CurrentAsk, check_market_terms
from worker.lease.folder import Store
from worker.settings import MoneyRules

GWEI = 10**9
MATCHER = new_account()
HOURLY = OFFER.model_copy(
    update={"price_per_hour": 10**7, "rules": RULES.model_copy(update={"checkpoint_timeout": 3600})}
)


class World:
    """Chain, sender and market of one provider, and the machine's clock."""

    decimals = 6
    domain = DOMAIN

    def __init__(self) -> None:
        self.gas_price, self.seconds = GWEI, 1_000.0
        self.clock: float | None = None  # the market's
        self.page, self.posted = 0, list[Any]()
        self.rulings: list[Any] = []  # notes of approvers on its work
        self.w3 = SimpleNamespace(eth=self)
        self.matcher = MATCHER

    def account(self, address: str) -> Any:
        return SimpleNamespace(page=self.page)

    def now(self) -> int:
        return int(self.seconds)

    def raise_page(self, page: int) -> int:
        return page

    def send(self, page: int, *, key: str) -> None:
        self.page = page

    def info(self) -> Any:
        rules = [rule_set("unchecked", one.rules) for one in (OFFER, HOURLY)]
        return SimpleNamespace(
            matcher=MATCHER.address,
            chain_id=DOMAIN.chain_id,
            escrow=DOMAIN.verifying_contract,
            rules=rules,
            draining=False,
            successor=None,
        )

    def post_ask(self, body: Any) -> Any:
        assert body.resources.hash() == body.ask.resources
        self.posted.append(body)
        order = body.ask.digest(DOMAIN)
        receipt = Receipt(order=order, epoch=1, block=0, time=self.now())
        answer = ReceiptOut(receipt=receipt, signature=receipt.sign(DOMAIN, self.matcher))
        return SimpleNamespace(id=order, status="open", receipt=answer)

    def audit_notes(self, *, provider: str, kind: str) -> list[Any]:
        assert (provider, kind) == (PROVIDER.address, "ruling")
        return self.rulings

    def monotonic(self) -> float:
        return self.seconds

    time = monotonic


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    world = World()
    monkeypatch.setattr(asks, "time", world)
    return world


def standing(world: World, offer: Any = HOURLY, **money: Any) -> CurrentAsk:
    offer = offer.model_copy(update={"money": MoneyRules.model_validate(money)})
    fake: Any = world
    return CurrentAsk(offer, fake, fake, fake, PROVIDER, Store("rig"))


def test_an_ask_wants_leases_that_pay_for_their_gas(world: World) -> None:
    free, strict = standing(world), standing(world, tokens_per_eth="2500", pay_over_gas=2)
    free.renew()
    strict.renew()
    least = [body.resources.wants.min_pay for body in world.posted]
    # 2 x 46,977 gas at 1 gwei are 0.23 tokens; and what each half hour's redemption takes of 10 tokens an hour.
    assert least[0] == 0 and 234_885 < least[1] < 300_000


def test_where_a_rate_is_known_a_lease_pays_twice_its_gas_by_default(world: World) -> None:
    for money in ({"tokens_per_eth": "2500"}, {"tokens_per_eth": "2500", "pay_over_gas": 2}, {}):
        standing(world, **money).renew()
    standing(world, tokens_per_eth="2500", pay_over_gas=0).renew()
    by_default, twice, unknown, off = (body.resources.wants.min_pay for body in world.posted)
    assert by_default == twice > 0 == unknown == off


def test_while_gas_is_too_dear_there_is_no_ask(world: World) -> None:
    ask = standing(world, tokens_per_eth="2500", pay_over_gas=2)
    world.gas_price = 1_000 * GWEI
    with capture_logs() as logs:
        ask.renew()
    assert world.posted == []
    assert "no lease pays 2 times its gas" in str(logs)
    world.gas_price = GWEI
    world.seconds += 10
    ask.renew()
    assert len(world.posted) == 1


def test_a_lease_under_the_ask_before_is_taken(world: World) -> None:
    """Gas got dearer since: the lower of both wishes is what the market went by."""
    ask = standing(world, tokens_per_eth="2500", pay_over_gas=2)
    ask.renew()
    before = ask.min_pay
    world.gas_price *= 2
    world.seconds += HOURLY.ask_seconds / 2
    ask.renew()
    assert world.posted[1].resources.wants.min_pay > before == ask.min_pay
    world.seconds += HOURLY.ask_seconds
    ask.renew()
    ask.renew()
    assert ask.min_pay == world.posted[1].resources.wants.min_pay


def test_it_keeps_the_markets_receipts(world: World) -> None:
    ask = standing(world)
    ask.renew()
    (kept,) = receipts.load_receipts(MATCHER.address)
    assert (kept.order, kept.id) == (world.posted[0].ask, world.posted[0].ask.digest(DOMAIN))
    world.matcher = new_account()  # not the one that the market names
    with capture_logs() as logs:
        for _ in range(2):
            world.seconds += HOURLY.ask_seconds / 2
            ask.renew()
    assert len(world.posted) == 3 and receipts.load_receipts(MATCHER.address) == [kept]
    assert str(logs).count(f"not signed by its matcher {MATCHER.address}") == 1


def test_each_refusal_keeps_it_away_for_longer(world: World) -> None:
    ask = standing(world)
    pauses = []
    for refusal in range(1, 10):
        ask.renew()
        ask.back_off()
        assert world.page == refusal  # nothing can be matched
        began, count = world.seconds, len(world.posted)
        while len(world.posted) == count:
            world.seconds += 1
            ask.renew()
        pauses.append(world.seconds - began)
    first, longest = BACK_OFF_SECONDS
    assert pauses[:3] == [first, 2 * first, 4 * first] and pauses[-1] == longest
    ask.was_wanted()
    ask.back_off()
    world.seconds += first
    ask.renew()
    assert len(world.posted) == 11


def test_a_withdrawal_that_fails_is_no_reason_to_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = standing(world)
    ask.renew()

    def fail(page: int, *, key: str) -> None:
        raise UserError("no gas")

    monkeypatch.setattr(world, "send", fail)
    with pytest.raises(UserError):
        ask.back_off()
    world.seconds += BACK_OFF_SECONDS[0] - 1
    ask.renew()
    assert len(world.posted) == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_an_ask_is_withdrawn_through_a_node_that_lags(
    world: World, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """It gives the page of before, which was left under a key that the sender knows: it would send nothing again."""
    sent: dict[str, int] = {}

    def send(page: int, *, key: str) -> None:
        if key not in sent:
            assert page > world.page, "the escrow refuses a page that is not higher"
            world.page = sent[key] = page

    monkeypatch.setattr(world, "send", send)
    ask = standing(world)
    ask.renew()
    ask.withdraw()
    ask.renew()
    assert world.posted[-1].ask.page == world.page == 1
    monkeypatch.setattr(world, "account", lambda address: SimpleNamespace(page=0))
    if restarted:
        ask = standing(world)
    ask.withdraw()
    assert world.page == 2


def test_an_ask_names_the_page_that_this_agent_has_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = standing(world)
    ask.renew()
    ask.withdraw()
    monkeypatch.setattr(world, "account", lambda address: SimpleNamespace(page=0))  # a node that lags
    ask.renew()
    assert world.posted[-1].ask.page == world.page == 1


def test_no_ask_while_the_markets_clock_is_another(world: World) -> None:
    """It would refuse reports and uploads of the leases that come."""
    ask = standing(world)
    world.clock = world.seconds - 7_200
    with capture_logs() as logs:
        ask.renew()
    assert world.posted == []
    assert "2 h ahead of the market's clock" in logs[0]["problem"]
    world.clock, world.seconds = world.seconds + 100, world.seconds + 100
    ask.renew()
    assert len(world.posted) == 1


def test_a_market_that_shows_another_level_than_was_agreed_to(world: World) -> None:
    info = world.info()
    check_market_terms(info, world, HOURLY)
    info.rules = [one.model_copy(update={"verification": OPEN}) for one in info.rules]
    with pytest.raises(UserError, match=f"the JSON that it shows for it is one with the hash {OPEN.hash()}"):
        check_market_terms(info, world, HOURLY)


def test_a_market_that_drains_is_asked_less_and_less_often_and_its_successor_is_told(world: World) -> None:
    ask, looks = standing(world), list[float]()
    info = world.info()
    info.draining, info.successor = True, "https://new.example"

    def look() -> Any:
        looks.append(world.seconds)
        return info

    world.info = look  # type: ignore[method-assign]
    for _ in range(2 * 3600):
        ask.renew()
        world.seconds += 1
    assert world.posted == []
    pauses = [later - before for before, later in pairwise(looks)]
    assert pauses == [30, 60, 120, 240, 480, 960, 1920]
    assert "https://new.example as its successor" in ask.waits and "register --market https://new.example" in ask.waits
    info.draining = False
    world.seconds += 3600
    ask.renew()
    assert len(world.posted) == 1 and ask.waits == ""


def test_no_ask_under_rules_that_the_owner_does_not_want(world: World) -> None:
    for wants in (Wants(levels=("closed", "open")), Wants(most_unjudged=1, levels=("unchecked",))):
        offer = HOURLY.model_copy(update={"wants": wants})
        if wants.objection_to_rules("unchecked", 1):
            with pytest.raises(UserError, match="the level 'unchecked', and this provider wants closed or open"):
                check_market_terms(world.info(), world, offer)
        else:
            check_market_terms(world.info(), world, offer)
    assert Wants(most_unjudged=5).objection_to_rules("open", 6) == (
        "the rules leave up to 6 checkpoints unjudged, and this provider wants 5 at most"
    )


def test_asks_of_before_have_the_hashes_they_had() -> None:
    before = HOURLY.resources.model_copy(update={"wants": Wants(min_pay=7)})
    assert set(before.model_dump(mode="json")["wants"]) == {
        "allow_clients", "deny_clients", "allow_recipes", "deny_recipes", "min_pay",
    }  # fmt: skip
    assert set(before.model_copy(update={"wants": Wants(new_clients=False)}).model_dump()["wants"]) > {"new_clients"}


def test_no_ask_under_audited_rules_without_a_numerics_class(world: World) -> None:
    audited = RULES.model_copy(update={"verification": OPEN.hash()})
    offer = HOURLY.model_copy(update={"rules": audited})
    info = world.info()
    info.rules.append(RuleSet(name="open", hash=audited.struct_hash(), rules=audited, verification=OPEN))
    fake: Any = world
    world.info = lambda: info  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"are audited \(open\), and this machine's numerics class is not known"):
        check_market_terms(info, fake, offer)
    ask = standing(world, offer)
    ask.renew()
    assert world.posted == [] and "numerics class is not known" in ask.waits
    told = offer.resources.model_copy(update={"numerics": "0x" + "77" * 32})
    offer = offer.model_copy(update={"resources": told})
    assert check_market_terms(info, fake, offer).name == "open"

    for n in (1, 2):  # it is told why no lease comes
        ask = standing(world, offer)
        ask.renew()
        assert len(world.posted) == n and ask.waits == "" == Store("rig").read_state()["no_lease"]
        said = signed_note("0x" + "66" * 32, RulingContent(n=n, ruling="unaudited"), 1, DOMAIN, APPROVER)
        world.rulings.append(SimpleNamespace(note=said.note, signature=said.signature, content=said.content))
    standing(world, offer).renew()
    assert "while nobody else of the numerics class 0x7777" in Store("rig").read_state()["no_lease"]
