"""What an approver signs and what it rejects, whatever its market let pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlmodel import select

from contracts.api.bodies import CheckpointRecord, LeaseOut, RejectionIn
from contracts.chain.sending.sender import Sender
from contracts.commitment import state_root
from contracts.errors import UserError
from contracts.job.state_kinds import METADATA
from contracts.statefile import read_state
from contracts.types import to_hex
from market.approver.memory import Signed
from market.store.models import (
    ApprovalRow,
    CheckpointRow,
)
from tests.support.market_parts import make_record, sha256, signed_progress, upload
from tests.support.stepped_market import Lives, differences, one_lease, safetensors_bytes

pytestmark = pytest.mark.mostly_sqlite


def test_a_state_that_nobody_could_load_is_rejected(market: Lives) -> None:
    """Its bytes are what the record commits to; but the next provider could only fail with it."""
    lease = market.lease_of(one_lease(market))
    good = safetensors_bytes({"number": bytes(8)})
    bad = safetensors_bytes({"number": bytes(8)}, **{METADATA: '{"number": "float"}'})
    for state in (bad, good):
        upload(market.context, lease.provider, state)
        root = to_hex(state_root(*read_state(state)))
        record = make_record(lease.bid.job, 1, lease.state.tip, state, state_root=root, trace_root=sha256(state))
        market.hand_in(lease, record)
        market.approver.approve_reported()
        out = market.api.lease(lease.id)
        if state == bad:
            assert out.approval is None and out.rejection is not None
            assert "the state contradicts itself: 'number'" in out.rejection.rejection.reason
    assert out.approval is not None and out.approval.approval.n == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state_root": "0x" + "11" * 32}, "the file's state root is 0x"),
        ({"step": 11}, "checkpoint 1 is at step 10, not 11"),
        ({"root": "0x" + "11" * 32}, "is not that of its parts"),
        ({"tip": "0x" + "11" * 20}, "does not follow"),
    ],
)
def test_the_approver_rejects_whatever_its_market_let_pass(market: Lives, changes: dict[str, Any], says: str) -> None:
    lease = market.lease_of(one_lease(market))
    record = market.record(lease, 1, lease.state.tip, **changes)
    body = signed_progress(lease.id, record, market.chain.domain, market.key(lease.provider))
    with market.context.db.session() as session:  # a market that checks nothing
        market.context.accept(session, "progress", body, bid=lease.job, provider=lease.provider)
    market.approver.approve_reported()
    out = market.api.lease(lease.id)
    assert out.rejection is not None and says in out.rejection.rejection.reason
    assert out.approval is None and market.new_approver()._memory.recall(lease.id) is None


def test_the_approver_never_signs_two_tips_for_one_checkpoint(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    tip = market.make(lease, 1)
    with market.context.db.session() as session:  # a market that forgets what it was told
        for model in (ApprovalRow, CheckpointRow):
            for row in session.exec(select(model)):
                session.delete(row)
    again = market.new_approver()
    market.report(lease, 1, lease.state.tip, metrics={"loss": 0.5}, trace_root="0x" + "33" * 32)
    again.approve_reported()
    assert market.api.lease(lease.id).approval is None
    assert again._memory.recall(lease.id) == Signed(1, tip)
    with pytest.raises(ValueError, match="would contradict"):
        again._memory.remember(lease.id, Signed(1, "0x" + "44" * 20))


@contextmanager
def market_away(market: Lives, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For what the approver would post."""

    def away(_: object) -> None:
        raise UserError("the market does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(market.approver._market, "post_approval", away)
        yield


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("replaced", [1, 2])
def test_a_claim_that_is_replaced_while_its_approval_is_on_the_way(
    market: Lives, replaced: int, restarts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed and remembered; then the market is away, and the maker puts others in place of one or both."""
    lease = market.lease_of(one_lease(market))
    records = [market.report(lease, 1, lease.state.tip)]
    records.append(market.report(lease, 2, records[0].tip))
    with market_away(market, monkeypatch):
        market.approver.approve_reported()
    assert market.approver._memory.recall(lease.id) == Signed(2, records[1].tip)
    before = records[0].tip if replaced == 2 else lease.state.tip
    market.report(lease, replaced, before, trace_root="0x" + "33" * 32)
    approver = market.new_approver() if restarts else market.approver
    approver.approve_reported()
    out = market.api.lease(lease.id)
    assert out.approval is not None and (out.approval.approval.n, out.approval.approval.tip) == (2, records[1].tip)
    assert [one.checkpoint for one in market.api.checkpoints(lease.job)] == records
    third = market.make(out, 1)  # and so it goes on
    market.redeem(lease)
    assert (market.state(lease).accepted, f"0x{market.state(lease).tip:040x}") == (3, third)
    assert differences(market) == []


def claim_on_chain(market: Lives, lease: LeaseOut, *records: CheckpointRecord) -> None:
    call = market.chain.claim(market.terms(lease), records[-1].index, records[-1].tip, [one.root for one in records])
    Sender(market.chain, market.key(lease.provider)).send(call)
    market.follow()


def window_passes(market: Lives, lease: LeaseOut) -> None:
    market.pass_time(market.rules.window + 1)
    Sender(market.chain, market.key(lease.provider)).send(market.chain.collect(market.terms(lease)))
    market.follow()


def test_what_was_claimed_on_chain_in_place_of_what_is_signed(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is rejected: what the chain accepts is what the approver goes on from."""
    lease = market.lease_of(one_lease(market))
    first = market.report(lease, 1, lease.state.tip)
    with market_away(market, monkeypatch):
        market.approver.approve_reported()
    second = market.report(lease, 1, lease.state.tip, trace_root="0x" + "33" * 32)
    claim_on_chain(market, lease, second)
    third = market.report(lease, 2, second.tip)
    for _ in range(2):
        market.approver.approve_reported()
    out = market.api.lease(lease.id)
    assert (out.approval, out.rejection) == (None, None)
    window_passes(market, lease)
    claim_on_chain(market, lease, third)  # now it is pending, and the one before is accepted
    market.approver.approve_reported()
    out = market.api.lease(lease.id)
    assert out.rejection is None and out.approval is not None
    assert (out.approval.approval.n, out.approval.approval.tip) == (2, third.tip)
    assert market.new_approver()._memory.recall(lease.id) == Signed(2, third.tip)
    assert [one.checkpoint for one in market.api.checkpoints(lease.job)] == [second, third] != [first, third]
    market.redeem(lease)
    assert market.state(lease).accepted == 2 and differences(market) == []


def test_an_approver_that_was_away_goes_on_from_what_the_chain_accepted(market: Lives) -> None:
    lease = market.lease_of(one_lease(market))
    first = market.report(lease, 1, lease.state.tip)
    second = market.report(lease, 2, first.tip)
    claim_on_chain(market, lease, first, second)
    window_passes(market, lease)
    market.say(lease, "release", 2)
    third = market.report(lease, 3, second.tip)
    market.approver.approve_reported()
    market.approver.answer_releases()
    out = market.api.lease(lease.id)
    assert out.approval is not None and out.approval.approval.last
    assert (out.approval.approval.n, out.approval.approval.tip) == (3, third.tip)


def test_a_rejection_of_what_is_replaced_on_its_way_keeps_nothing_up(
    market: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = market.lease_of(one_lease(market))
    market.report(lease, 1, lease.state.tip, state_root="0x" + "11" * 32)
    post, right = market.approver._market.post_rejection, []

    def crossed(body: RejectionIn) -> LeaseOut:
        right.append(market.report(lease, 1, lease.state.tip))
        return post(body)

    monkeypatch.setattr(market.approver._market, "post_rejection", crossed)
    for _ in range(2):
        market.approver.approve_reported()
    out = market.api.lease(lease.id)
    assert out.rejection is None and len(right) == 1
    assert out.approval is not None and out.approval.approval.tip == right[0].tip
