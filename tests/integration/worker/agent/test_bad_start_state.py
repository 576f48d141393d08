"""A provider whose lease goes on from a state that another one has spoiled."""

import pytest
from safetensors.numpy import load_file, save_file

from contracts.api.bodies import CheckpointRecord, JobStatus
from contracts.job.file import hash_file
from contracts.job.state_kinds import METADATA
from market.approver.judging import Judging
from tests.support.whole_market import Stage, StageOf, paid, wait_for
from worker.lease.folder import LeaseFolder

pytestmark = pytest.mark.mostly_sqlite


def reports(stage: Stage, job: str) -> list[tuple[str, str, str]]:
    """Lease, kind and text, but of what a recipe prints."""
    found = stage.market.reports(job)
    return [(one.report.lease, one.report.kind, one.text) for one in found if one.report.kind != "log"]


@pytest.mark.long
def test_a_state_that_nobody_can_load_is_not_the_recipes_failure(
    stage_of: StageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(timeout=1200)  # being late has a price
    job = stage.submit(checkpoints=8, pause=0.25)
    add = LeaseFolder.add_checkpoint

    def spoil(folder: LeaseFolder, record: CheckpointRecord) -> None:
        path = folder.state_path(record.index)
        save_file(load_file(path), path, {METADATA: '{"nothing": "int"}'})
        add(folder, record.model_copy(update={"state": hash_file(path)}))

    with monkeypatch.context() as patch:
        patch.setattr(LeaseFolder, "add_checkpoint", spoil)
        patch.setattr(Judging, "_problem_with_bytes", lambda *_: None)  # one that looks at nothing
        with stage.approving(), stage.agent(finish_seconds=0):
            wait_for("an Approval", lambda: any(lease.approved for lease in stage.leases(job)))
    with stage.approving(), stage.agent(finish_seconds=0):
        (first, *_) = wait_for("its end", lambda: [lease for lease in stage.leases(job) if lease.finished])
        (told, *_) = wait_for("the next one's word", lambda: [one for one in reports(stage, job) if one[0] != first.id])
    assert told[1] == "release" and f"nobody can go on from checkpoint {first.state.accepted}" in told[2]
    assert "failed" not in {kind for _, kind, _ in reports(stage, job)}
    assert stage.job(job).status != JobStatus.FAILED
    assert paid(stage) == (first.state.accepted, first.state.accepted)
