"""Leases under audited rules, from the draw to the payment: a real chain, a real market, real training."""

from typing import Any

import pytest

from contracts.api.auditing.notes import check_note
from contracts.api.bodies import JobStatus
from contracts.audits.levels import OPEN
from tests.support.whole_market import FREE, PRICE, Stage, StageOf, wait_for

pytestmark = pytest.mark.mostly_sqlite

ALL = OPEN.model_copy(update={"share_ppm": 1_000_000, "approve_every": 2})  # each checkpoint is replayed


def notes(stage: Stage, job: str) -> list[tuple[str, dict[str, Any]]]:
    """What the approver has told of a job, with its signatures checked."""
    found = list(stage.market.audit_notes(job=job))
    assert [check_note(note, stage.chain.domain, stage.approver.address) for note in found] == [None] * len(found)
    return [(note.content.kind, note.content.model_dump(mode="json")) for note in found]


def test_honest_work_is_replayed_and_paid(stage_of: StageOf) -> None:
    stage = stage_of(window=120, verification=ALL)
    with stage.approving(replays_here=True), stage.agent():
        job = stage.submit(checkpoints=3)
        wait_for("the job", lambda: stage.job(job).status is JobStatus.DONE)
        wait_for("the secret", lambda: "secret" in [kind for kind, _ in notes(stage, job)])
    told = notes(stage, job)
    assert [kind for kind, _ in told if kind in ("commitment", "secret")] == ["commitment", "secret"]
    assert [content["drawn"] for kind, content in told if kind == "batch"] == [[1, 2], [3]]
    replays = [(one["n"], one["auditor"], one["outcome"]) for kind, one in told if kind == "replay"]
    assert replays == [(1, None, "equal"), (2, None, "equal"), (3, None, "equal")]
    assert [one["ruling"] for kind, one in told if kind == "ruling"] == ["good"] * 3
    assert stage.free(stage.provider) == FREE + 3 * PRICE
    shown = stage.market.encryption_key(stage.provider.address)
    assert shown is not None  # of a job that is not sealed: a client may let it replay one that is


def test_training_in_another_class_than_the_ask_tells_gives_the_lease_back(stage_of: StageOf) -> None:
    """What would come of it no replay could tell: nothing is claimed, and it costs nobody a stake."""
    stage = stage_of(window=120, verification=ALL)
    other = stage.resources.model_copy(update={"numerics": "0x" + "11" * 32})
    with stage.approving(replays_here=True), stage.agent(resources=other):
        job = stage.submit(checkpoints=2)
        (lease,) = wait_for("the lease to end", lambda: [one for one in stage.leases(job) if one.finished])
    assert (lease.reported, lease.stops, lease.penalty) == (0, "machine", 0)
    assert stage.free(stage.provider) == FREE
