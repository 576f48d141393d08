"""An agent under audited rules: nothing is claimed before the approver is committed; a batch at most is unjudged."""

import pytest

from contracts.api.auditing.notes import CommitmentContent, signed_note
from contracts.api.bodies import JobStatus
from contracts.audits.draw import commitment, lease_secret
from contracts.audits.levels import OPEN
from contracts.chain.events import Claimed
from contracts.chain.lookup import lease_events
from tests.support.devnet import pass_time
from tests.support.whole_market import FREE, PRICE, Stage, StageOf, wait_for
from worker.cli.status import status_report
from worker.lease.folder import Store

RARELY = OPEN.model_copy(update={"share_ppm": 1, "approve_every": 2})  # nobody is drawn

pytestmark = pytest.mark.mostly_sqlite


def claims_on_chain(stage: Stage, lease: str) -> list[int]:
    events = lease_events(stage.chain, lease, stage.chain.settings.deploy_block)
    return [event.n for event in events if isinstance(event, Claimed)]


def commit(stage: Stage, lease: str) -> None:
    """As an approver does that is away afterwards."""
    secret = lease_secret(bytes(stage.approver.key), stage.chain.domain, lease)
    note = signed_note(lease, CommitmentContent(commitment=commitment(secret)), 1, stage.chain.domain, stage.approver)
    stage.market.post_audit_note(note)


def test_batches_are_approved_and_nothing_is_claimed_on_chain(stage_of: StageOf) -> None:
    stage = stage_of(window=60, verification=RARELY)
    with stage.approving(), stage.agent():
        job = stage.submit(checkpoints=5)
        wait_for("the job", lambda: stage.job(job).status is JobStatus.DONE)
    (lease,) = stage.leases(job)
    folder = stage.folder()
    assert folder.file.commitment is not None and folder.file.commitment.content.kind == "commitment"
    assert folder.file.rehearsed  # though its owner's settings say that there is no need
    assert claims_on_chain(stage, lease.id) == []
    assert stage.free(stage.provider) == FREE + 5 * PRICE


def test_without_a_commitment_the_lease_is_given_back_unclaimed(stage_of: StageOf) -> None:
    stage = stage_of(window=12, verification=RARELY)
    with stage.agent(commitment_wait=200.0):
        job = stage.submit(checkpoints=2)
        wait_for("checkpoints", lambda: stage.made() == 2)
        report = status_report(stage.chain, Store("rig"), "rig")
        assert [lease["waits"] for lease in report["live"]] == ["waits for the approver's commitment"]
        (lease,) = stage.leases(job)
        assert (lease.reported, lease.state.claimed) == (0, 0)
        pass_time(stage.chain, 210)
        wait_for("the end", lambda: stage.leases(job)[0].finished)
    assert "no commitment" in stage.folder().file.reason
    assert claims_on_chain(stage, lease.id) == [] and stage.leases(job)[0].reported == 0
    assert (stage.leases(job)[0].penalty, stage.free(stage.provider)) == (0, FREE)


@pytest.mark.long  # unit tests of the schedule have it, too
def test_a_batch_without_a_word_is_claimed_on_chain_and_training_waits_for_that(stage_of: StageOf) -> None:
    stage = stage_of(window=12, verification=RARELY)
    with stage.agent(patience=1.0):
        job = stage.submit(checkpoints=5)
        (lease,) = wait_for("its lease", lambda: stage.leases(job))
        commit(stage, lease.id)
        wait_for("a batch", lambda: stage.made() == 2)
        wait_for("a claim", lambda: claims_on_chain(stage, lease.id) == [2])
        assert stage.made() == 2 and "2 checkpoints are not judged" in stage.folder().file.waits
        wait_for("the window", lambda: stage.folder().file.accepted == 2)
        wait_for("the job", lambda: stage.job(job).status is JobStatus.DONE)
    assert claims_on_chain(stage, lease.id) == [2, 4, 5]
    assert stage.free(stage.provider) == FREE + 5 * PRICE
