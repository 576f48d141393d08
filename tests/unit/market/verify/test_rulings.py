"""What an epoch says of providers that nobody audits, and when the rulings on them came."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.api.auditing.notes import AuditNoteIn, AuditNoteOut, ReplayContent, RulingContent, signed_note
from contracts.api.bodies import AskResources
from contracts.api.epochs import EpochAsk, LeftOut, LeftOutReason
from contracts.audits.levels import OPEN
from contracts.chain.events import Opened
from contracts.orders import new_account
from market.verify.published import Promise, until
from tests.support.epoch_to_spoil import BLOCK, Held, World
from tests.support.market_parts import TELLS_CLASS, make_ask
from tests.support.offline_market import DOMAIN, RULES

AUDITED = RULES.model_copy(update={"verification": OPEN.hash()})
APPROVER = new_account()
STARTED = datetime.fromtimestamp(1000 + BLOCK + 2, UTC)


def ask_of(world: World, provider: int, resources: AskResources = TELLS_CLASS) -> EpochAsk:
    key = world.providers[provider]
    ask = make_ask(key, world.matcher.address, AUDITED, resources)
    id = ask.digest(DOMAIN)
    return EpochAsk(id=id, ask=ask, signature=ask.sign(DOMAIN, key), resources=resources, receipt=world.receipt(id))


def ruled(lease: Opened, n: int, ruling: Any, seconds: float = -600, key: Any = APPROVER) -> AuditNoteOut:
    """`seconds`: after the epoch began, when it came."""
    said = signed_note(lease.lease, RulingContent(n=n, ruling=ruling), 1, DOMAIN, key)
    return AuditNoteOut(
        id=n, lease=lease.lease, job=lease.terms.parties.bid, note=said.note, signature=said.signature,
        content=said.content, received=STARTED + timedelta(seconds=seconds),
    )  # fmt: skip


def body(out: AuditNoteOut) -> AuditNoteIn:
    return AuditNoteIn(note=out.note, signature=out.signature, content=out.content)


@pytest.fixture
def lease(world: World) -> Opened:
    """Of the first provider, under audited rules; the header of the epoch has them."""
    world.header_changes["rules"] = sorted([RULES, AUDITED], key=lambda one: one.struct_hash())
    world.bid(1)
    world.ask(2)
    bid = world.make_bid(rules=AUDITED.struct_hash(), approver=APPROVER.address)
    return world.open(bid, ask_of(world, 0), 1_000_000, 5)


def held_with(world: World, *notes: AuditNoteOut) -> Held:
    """The first provider's Ask is left out, by the first two notes."""
    ask = ask_of(world, 0)
    world.lookup.notes[ask.ask.provider] = list(notes)
    world.lookup.sold[ask.id] = ask.resources
    promise = Promise(ask.id, ask.ask, ask.signature, until(ask), ask.receipt, "was left out")
    world.lookup.orders[ask.id] = promise
    world.header_changes["left_out"] = [LeftOut(order=ask.id, reason=LeftOutReason.UNAUDITED)]
    world.header_changes["unaudited"] = [body(one) for one in notes[:2]]
    return world.hold()


@pytest.mark.parametrize(
    ("good", "is_lie"),
    [(None, False), (-600.0, True), (-61.0, True), (-30.0, False), (30.0, False), (600.0, False)],
)
def test_when_a_good_ruling_came(world: World, lease: Opened, good: float | None, is_lie: bool) -> None:
    notes = [ruled(lease, 1, "unaudited"), ruled(lease, 2, "unaudited")]
    notes += [] if good is None else [ruled(lease, 3, "good", good)]
    held = held_with(world, *notes)
    if is_lie:
        assert "by the rulings that had come when the epoch began its provider's work is audited" in held.lie()
    else:
        assert held.notes() == []


@pytest.mark.parametrize(("second", "is_lie"), [(-600.0, True), (-30.0, False), (600.0, False)])
def test_who_stays(world: World, lease: Opened, second: float, is_lie: bool) -> None:
    world.asks.append(ask_of(world, 0))
    world.lookup.notes[lease.provider] = [ruled(lease, 1, "unaudited"), ruled(lease, 2, "unaudited", second)]
    held = world.hold()
    if is_lie:
        assert f"ask {world.asks[-1].id} is in epoch 3, though 2 checkpoints of its provider" in held.lie()
    else:
        assert held.notes() == []


def test_who_stays_in_company(world: World, lease: Opened) -> None:
    world.asks += [ask_of(world, 0), ask_of(world, 1)]
    world.lookup.notes[lease.provider] = [ruled(lease, 1, "unaudited"), ruled(lease, 2, "unaudited")]
    assert world.hold().notes() == []


def test_rulings_that_are_none(world: World, lease: Opened) -> None:
    first, second = ruled(lease, 1, "unaudited"), ruled(lease, 2, "unaudited")
    held = held_with(world, first, second)
    header = held.orders.header

    def lie(*told: AuditNoteIn) -> str:
        held.commit_anew(header.model_copy(update={"unaudited": list(told)}))
        return held.lie()

    assert "the header has 1 rulings on its provider's work" in lie(body(first))
    assert "tells a ruling twice" in lie(body(first), body(first))
    strangers = ruled(lease, 2, "unaudited", key=world.clients[0])
    assert f"is not signed by {APPROVER.address}" in lie(body(first), body(strangers))
    assert "is none that says 'unaudited'" in lie(body(first), body(ruled(lease, 2, "good")))
    replay = ReplayContent(n=1, auditor=None, job=None, outcome="equal", root="")
    assert "is none that says" in lie(signed_note(lease.lease, replay, 1, DOMAIN, APPROVER))
    nowhere = RulingContent(n=1, ruling="unaudited")
    assert "is of no lease" in lie(signed_note("0x" + "99" * 32, nowhere, 1, DOMAIN, APPROVER))


def test_a_lease_under_rules_that_promise_no_audit(world: World, lease: Opened) -> None:
    other = world.open(world.make_bid(approver=APPROVER.address), ask_of(world, 0), 1_000_000, 6)
    held = held_with(world, ruled(lease, 1, "unaudited"), ruled(other, 2, "unaudited"))
    assert "is of a lease under rules that promise no audit" in held.lie()


def test_only_asks_under_audited_rules_are_left_out_for_it(world: World, lease: Opened) -> None:
    held = held_with(world, ruled(lease, 1, "unaudited"), ruled(lease, 2, "unaudited"))
    plain = world.make_ask(0)
    promise = Promise(plain.id, plain.ask, plain.signature, until(plain), plain.receipt, "was left out")
    world.lookup.orders[plain.id] = promise
    left_out = [LeftOut(order=plain.id, reason=LeftOutReason.UNAUDITED)]
    held.commit_anew(held.orders.header.model_copy(update={"left_out": left_out}))
    assert "it is no ask under audited rules" in held.lie()
