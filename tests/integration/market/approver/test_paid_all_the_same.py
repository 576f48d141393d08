"""What was refused, and is paid since nobody challenged it in time: an alarm names it."""

import threading
from typing import Any

import pytest
import requests
import structlog

from contracts.chain.devnet.devnet import Devnet
from contracts.chain.sending.sender import Sender
from contracts.terms import AccountWord, Phase, Verdict
from market.approver.auditing.disputes import WITHHELD, WRONG
from tests.support.audited_market import LIE, NUMERICS, Audited
from tests.support.market_parts import file_ref, make_spec, upload

TRUTH = "0x" + "55" * 32  # of the trace that all others get

pytestmark = pytest.mark.mostly_sqlite


def alarms(market: Audited, looks: int = 1) -> list[dict[str, Any]]:
    with structlog.testing.capture_logs() as logs:
        for _ in range(looks):
            market.look()
    return [line for line in logs if line["event"] == "approver.alarm"]


def test_found_false_after_its_window(audited: Audited) -> None:
    """The approver was away when the window passed, and hears of the lie afterwards."""
    market, lease = audited, audited.begin(1, 2, 3)
    market.look()
    (lie,) = market.claim(lease, LIE)
    market.say(lease, "release", 1)
    for _ in range(4):
        market.look()
    market.claim_on_chain(lease, lie)
    market.pass_time(market.rules.window + 5)
    told: list[dict[str, Any]] = []
    for _ in range(9):
        market.answer_all(lie, trace_root=TRUTH)
        told += alarms(market)
    assert market.grounds(lease) == []
    (alarm,) = told  # once, though the approver is restarted before each look
    assert alarm["lease"] == lease.id and lie.tip in alarm["problem"]
    assert market.problems(lease.job) == [
        "checkpoint 1 was found false, and is paid: unchallenged in time, or the arbiter was silent"
    ]
    assert "was refused, and is accepted on chain" in alarm["problem"]


@pytest.mark.parametrize("was_away", [True, False], ids=["away", "there"])
def test_of_a_class_that_nobody_has(audited: Audited, devnet: Devnet, was_away: bool) -> None:
    market, lease = audited, audited.begin()
    market.look()
    record = market.report(lease, 1, lease.state.tip, numerics={**NUMERICS, "torch": "2.13.0+mine"})
    market.look()
    market.claim_on_chain(lease, record)
    if was_away:
        market.pass_time(market.rules.window + 5)
        Sender(market.chain, market.key(lease.provider)).send(market.chain.end(market.terms(lease)))
    else:
        market.look()
        market.ruled(devnet.operator, lease, Verdict.FALSE)
    market.pass_time(market.rules.window + 5)
    market.keep()
    assert market.state(lease).phase is Phase.CLOSED
    assert len(alarms(market, looks=3)) == was_away
    assert market.grounds(lease) == ([] if was_away else [WRONG])


def test_no_bond_for_what_was_rejected_for_its_bytes(audited: Audited) -> None:
    market, lease = audited, audited.begin()
    market.look()
    record = market.report(lease, 1, lease.state.tip, state_root="0x" + "00" * 32)
    market.look()
    sender = Sender(market.chain, market.approver_key)
    free = market.chain.account(sender.address).free
    sender.send(market.chain.withdraw(sender.address, free))
    market.claim_on_chain(lease, record)
    (alarm,) = alarms(market)
    assert "takes a bond of" in alarm["problem"] and market.grounds(lease) == []
    sender.send(market.chain.approve(free))
    sender.send(market.chain.deposit(sender.address, free))
    market.look()
    assert market.grounds(lease) == [WITHHELD]


@pytest.mark.parametrize("after", ["the job's end", "the next lease"])
def test_the_escrow_has_forgotten_the_lease(audited: Audited, after: str) -> None:
    """The approver was away for longer than that."""
    market = audited
    market.spec = make_spec(steps=market.spec.step_of(1 if after == "the job's end" else 4))
    lease = market.begin()
    market.look()
    record = market.report(lease, 1, lease.state.tip, numerics={**NUMERICS, "torch": "2.13.0+mine"})
    market.look()
    market.claim_on_chain(lease, record)
    market.pass_time(market.rules.window + 5)
    Sender(market.chain, market.key(lease.provider)).send(market.chain.end(market.terms(lease)))
    market.pass_time(market.rules.window + 5)
    market.keep()
    if after == "the next lease":
        market.offer(market.providers[2])
        market.clear()
        assert len(market.api.job(lease.job).leases) == 2
    assert market.state(lease).phase is Phase.NONE
    (alarm,) = alarms(market, looks=3)
    assert alarm["lease"] == lease.id


def test_what_was_shown_after_all_is_neither_challenged_nor_told(audited: Audited) -> None:
    """A tip says nothing of the bytes: the right ones may come after others, and be approved."""
    market, lease = audited, audited.begin(1, 2)
    market.look()
    good = market.record(lease, 1, lease.state.tip)
    junk = b"junk" * 10
    upload(market.context, lease.provider, junk)
    bad = good.model_copy(update={"state": file_ref(junk)})
    other = market.record(lease, 1, lease.state.tip, **LIE).model_copy(update={"state": file_ref(junk)})
    assert bad.tip == good.tip != other.tip
    for one in (bad, other, good):
        market.hand_in(lease, one)
        market.look()
    market.claim_on_chain(lease, good)
    market.say(lease, "release", 1)
    told: list[dict[str, Any]] = []
    for _ in range(5):
        told += alarms(market)
        market.answer_all(good)
    assert market.grounds(lease) == []
    market.redeem(lease)
    told += alarms(market, looks=3)
    assert market.api.lease(lease.id).paid == lease.price and told == []


def test_a_lease_that_went_in_a_reorganisation_is_forgotten(audited: Audited) -> None:
    approver = audited.new_approver()
    approver._rejected.remember("0x" + "ab" * 32, 1, "0x" + "cd" * 20, WITHHELD)
    approver.audit()
    troubles = approver._metrics.troubles.labels(audited.approver_key.address)._value.get()
    approver.audit()
    assert approver._metrics.troubles.labels(audited.approver_key.address)._value.get() == troubles
    assert list(approver._rejected._folder.glob("*.json")) == []


def test_an_approver_without_money_is_told_at_its_start(audited: Audited) -> None:
    approver = audited.new_approver()
    sender = Sender(audited.chain, audited.approver_key)
    with structlog.testing.capture_logs() as logs:
        approver._round()
        sender.send(audited.chain.withdraw(sender.address, audited.chain.account(sender.address).free))
        approver._round()
        audited.new_approver()._round()
    (told,) = [line for line in logs if line["event"] == "approver.no_money"]
    assert "wallet deposit" in told["hint"]


def test_a_node_that_is_away_at_the_start_ends_no_approver(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    approver, stop = audited.new_approver(), threading.Event()
    account, asked = audited.chain.account, list[str]()

    def away_at_first(address: str) -> AccountWord:
        asked.append(address)
        if len(asked) == 1:
            raise requests.ConnectionError("no node")
        stop.set()
        return account(address)

    monkeypatch.setattr(audited.chain, "account", away_at_first)
    approver.run(stop, 0.01)
    assert asked == [audited.approver_key.address] * len(asked) and len(asked) > 1
