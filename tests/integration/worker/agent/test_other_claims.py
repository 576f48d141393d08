"""Another Claim of this provider is approved than what its machine has: all go on from that one, and it is paid."""

import shutil

import pytest

from contracts import commitment
from contracts.api.bodies import CheckpointRecord, JobStatus, ProgressIn
from contracts.orders import Claim
from contracts.types import from_hex, to_hex
from tests.support.whole_market import Stage, StageOf, paid, terminate, wait_for

pytestmark = pytest.mark.mostly_sqlite


def other_record(stage: Stage, job: str, record: CheckpointRecord, before: str) -> CheckpointRecord:
    """The same state, reached on another way: another tip."""
    changed = record.model_copy(update={"trace_root": "0x" + "77" * 32})
    root = commitment.checkpoint_root(
        stage.job(job).spec.job_hash(),
        changed.index,
        changed.step,
        from_hex(changed.state_root),
        from_hex(changed.trace_root),
        commitment.numerics_class(changed.numerics),
    )
    tip = commitment.next_tip(from_hex(before), root)
    return changed.model_copy(update={"root": to_hex(root), "tip": to_hex(tip)})


def hand_in(stage: Stage, lease: str, record: CheckpointRecord) -> None:
    claim = Claim(lease=lease, n=record.index, tip=record.tip)
    signature = claim.sign(stage.chain.domain, stage.provider)
    stage.market.post_progress(ProgressIn(claim=claim, signature=signature, checkpoint=record))


@pytest.mark.long
@pytest.mark.parametrize("checkpoints", [2, 5])
def test_a_claim_that_is_not_what_is_here(stage_of: StageOf, checkpoints: int) -> None:
    """As after a Claim that was replaced, and came back since the approver had signed it."""
    stage = stage_of()
    job = stage.submit(checkpoints=checkpoints, pause=0.15)
    process = stage.agent_process()
    wait_for("two Claims", lambda: len(list(stage.market.checkpoints(job))) >= 2)
    (lease,) = stage.leases(job)
    others, before = list[CheckpointRecord](), lease.state.tip
    for shown in list(stage.market.checkpoints(job))[:2]:
        others.append(other_record(stage, job, shown.checkpoint, before))
        before = others[-1].tip
    for record in others:
        hand_in(stage, lease.id, record)
    with stage.approving():
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
        assert terminate(process, 300) == 0
    assert paid(stage) == (checkpoints, checkpoints)
    assert "lease.goes_on_from_another" in stage.log()
    assert [one.checkpoint for one in stage.market.checkpoints(job)][:2] == others
    assert len(stage.leases(job)) == 1


@pytest.mark.long
def test_what_was_approved_before_the_files_were_lost(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=6, pause=0.25)
    with stage.approving():
        process = stage.agent_process()
        wait_for("approvals", lambda: stage.made() and stage.folder().file.approved >= 3)
        process.kill()
        process.wait()
        shutil.rmtree(stage.folder().folder)
        again = stage.agent_process()
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
        assert terminate(again, 300) == 0
    assert paid(stage) == (6, 6)
    assert "lease.goes_on_from_another" in stage.log()
    assert len(stage.leases(job)) == 1
