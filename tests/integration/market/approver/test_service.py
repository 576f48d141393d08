"""What an approver signs and what it rejects, whatever its market let pass."""

from typing import Any

import pytest
from sqlmodel import select

from market.approver.memory import Signed
from market.store.models import (
    ApprovalRow,
    CheckpointRow,
)
from tests.support.market_parts import signed_progress
from tests.support.stepped_market import Lives, one_lease


@pytest.mark.mostly_sqlite
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
