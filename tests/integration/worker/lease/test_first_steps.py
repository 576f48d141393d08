"""A lease whose first steps do not repeat is given back before anything is signed for; others go on as they did."""

from pathlib import Path

import pytest

from contracts.commitment import next_tip, start_tip
from contracts.types import from_hex, to_hex
from tests.support.recipes import RESUMING
from tests.support.whole_market import StageOf, paid, wait_for
from worker.cli.local_run import train_locally
from worker.lease.first_steps import REHEARSED

pytestmark = pytest.mark.mostly_sqlite


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("UrandomWeights", "step 3 is not the same in a process that goes on from the state after step 2: loss "),
        pytest.param(
            "OptimizerLeftOut",
            "of the state after step 4 2 of 2 entries differ: 'model/bias', 'model/weight'",
            marks=pytest.mark.long,
        ),
        pytest.param("UrandomStart", "step 1 is not the same in another process", marks=pytest.mark.long),
    ],
)
def test_what_does_not_repeat_is_given_back_before_a_claim(recipe: str, says: str, stage_of: StageOf) -> None:
    stage = stage_of(timeout=900)  # a share of it is what two more processes may take to start
    job = stage.submit(checkpoints=3, source=RESUMING, recipe=recipe)
    with stage.approving(), stage.agent(rehearsal_share=0.5):
        (report,) = wait_for(
            "its report", lambda: [one for one in stage.market.reports(job) if one.report.kind == "random"]
        )
    assert report.text.startswith("not reproducible: the recipe does not repeat bit for bit: ")
    assert says in report.text and "usual causes: " in report.text
    assert list(stage.market.checkpoints(job)) == [] and paid(stage) == (0, 0)


@pytest.mark.long
def test_what_a_recipe_prints_before_it_fails_to_go_on_is_told(stage_of: StageOf) -> None:
    stage = stage_of(timeout=900)
    job = stage.submit(checkpoints=3, source=RESUMING, recipe="NeverGoesOn")
    with stage.approving(), stage.agent(rehearsal_share=0.5):
        (report,) = wait_for(
            "its report", lambda: [one for one in stage.market.reports(job) if one.report.kind == "random"]
        )
    assert report.text.startswith("Traceback of the recipe:\n") and 'raise KeyError("schedule")' in report.text
    logs = [one for one in stage.market.reports(job) if one.report.kind == "log"]
    heading, *lines = "".join(one.text for one in logs).splitlines()
    assert heading == REHEARSED and all(one.id < report.id for one in logs)
    printed = [line for line in lines if line.startswith(("trains ", "looks "))]  # torch may warn of things, too
    steps = [f"trains step {step}" for step in (1, 1, 2, 3, 4, 1)]  # each process does one more, to count its work
    assert printed == [*steps, "looks for its schedule"]


@pytest.mark.parametrize("recipe", [pytest.param(name, marks=pytest.mark.long) for name in ("Accumulates", "IntStep")])
def test_what_repeats_is_trained_as_ever(recipe: str, stage_of: StageOf, tmp_path: Path) -> None:
    """From its checkpoints: it may differ within them, where no lease resumes."""
    stage = stage_of(timeout=900)
    job = stage.submit(checkpoints=3, source=RESUMING, recipe=recipe)
    with stage.approving(), stage.agent(once=True, rehearsal_share=0.5) as agent:
        agent.join(400)
        assert not agent.is_alive()
    folder = stage.folder()
    assert folder.file.rehearsed and not (folder.folder / "rehearsal").exists()
    record = train_locally(stage.job(job).spec, stage.home / "job", tmp_path / "whole")
    assert [one.checkpoint.tip for one in stage.market.checkpoints(job)] == [one["tip"] for one in record.checkpoints]
    tip = start_tip(stage.job(job).spec.job_hash())
    for made in record.checkpoints:
        tip = next_tip(tip, from_hex(made["root"]))
    assert folder.file.nums.end == 3 and to_hex(tip) == record.checkpoints[-1]["tip"]
