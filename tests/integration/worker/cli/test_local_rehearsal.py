"""`recipe run` rehearses a resume: each usual cause why one is not exact is found, and told with step and entry."""

import json
from pathlib import Path

import pytest

from contracts.errors import UserError
from tests.integration.worker.cli.test_recipe import gpumarket_recipe
from tests.support.recipes import RESUMING

JOB = """
environment: torch-2.13
files: [recipe.py]
resources: {memory_mb: 2048}
steps: 40
checkpoint_every: 10
"""


def job_folder(folder: Path, recipe: str) -> Path:
    (folder / "recipe.py").write_bytes(RESUMING.read_bytes())
    (folder / "job.yaml").write_text(f"{JOB}recipe: recipe.py:{recipe}\n")
    return folder


@pytest.mark.parametrize("recipe", ["PlainMilestones", "NumpyBest"])
def test_what_is_exact_passes(recipe: str, tmp_path: Path) -> None:
    shown = gpumarket_recipe("run", job_folder(tmp_path, recipe), "--json", tmp_path / "run.json")
    assert "resumed after step 2, 10: the same bit for bit (" in " ".join(shown.split())
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["rehearsal"]["resumed_after"] == [2, 10] and not record["rehearsal"]["cut"]
    assert not (tmp_path / "run" / "rehearsal").exists()


@pytest.mark.parametrize(
    ("every", "steps", "resumed"),
    [
        (8, 24, [8, 8]),
        pytest.param(100, 200, [20, 100], marks=pytest.mark.long),  # a part of a long checkpoint stands for it
        pytest.param(8, 8, [4], marks=pytest.mark.long),  # and of the only one
    ],
)
def test_what_is_exact_at_checkpoints_only_passes_and_is_told(
    every: int, steps: int, resumed: list[int], tmp_path: Path
) -> None:
    folder = job_folder(tmp_path, "Accumulates")
    job = (folder / "job.yaml").read_text()
    (folder / "job.yaml").write_text(
        job.replace("every: 10", f"every: {every}").replace("steps: 40", f"steps: {steps}")
    )
    shown = " ".join(gpumarket_recipe("run", folder, "--json", tmp_path / "run.json").split())
    assert f"resumed after step {', '.join(map(str, resumed))}: the same bit for bit (" in shown
    assert "not after step 2, which is at no checkpoint: it resumes exactly at checkpoints only" in shown
    record = json.loads((tmp_path / "run.json").read_text())["rehearsal"]
    assert (record["resumed_after"], record["unlike_after"], record["cut"]) == (resumed, 2, False)


@pytest.mark.parametrize(
    ("recipe", "step", "after", "what"),
    [
        ("AccumulatesBeyond", 3, 2, "of the state after step 4 "),
        ("OptimizerLeftOut", 3, 2, "of the state after step 4 2 of 2 entries differ: 'model/bias', 'model/weight'"),
        ("OwnTorchGenerator", 3, 2, "loss 0."),
        ("OwnNumpyGenerator", 3, 2, "loss 0."),
        ("OwnPythonRandom", 3, 2, "loss 0."),
        ("ShufflingLoader", 3, 2, "loss 0."),
        ("ScalerLeftOut", 3, 2, "scale 512.0 against 256.0"),
        ("ScheduleLeftOut", 15, 10, "lr 0.01"),
        ("Urandom", 3, 2, "loss "),
    ],
)
@pytest.mark.long
def test_each_usual_cause_is_found(recipe: str, step: int, after: int, what: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        gpumarket_recipe("run", job_folder(tmp_path, recipe))
    assert f"step {step} is not the same in a process that goes on from the state after step {after}: " in (
        caught.value.message
    )
    assert what in caught.value.message
    assert "an optimizer, schedule or scaler that state_dict() leaves out" in str(caught.value.hint)


def test_a_start_that_is_another_each_time_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="step 1 is not the same in another process: loss "):
        gpumarket_recipe("run", job_folder(tmp_path, "UrandomStart"), "--steps", 10)


@pytest.mark.long
def test_a_recipe_that_can_not_take_up_its_state_is_found(tmp_path: Path) -> None:
    folder = job_folder(tmp_path, "Forgets")
    source = (
        folder / "recipe.py"
    ).read_text() + "\n\nclass Forgets(Momentum):\n    def load_state_dict(self, state): ...\n"
    (folder / "recipe.py").write_text(source)
    with pytest.raises(UserError, match="it fails: after load_state_dict the state is not what was saved: only one of"):
        gpumarket_recipe("run", folder)


def test_it_can_be_left_out_and_is_short(tmp_path: Path) -> None:
    shown = gpumarket_recipe("run", job_folder(tmp_path, "OptimizerLeftOut"), "--no-rehearsal", "--steps", 10)
    assert "checkpoint   1" in shown and "rehearsal " not in shown
    (tmp_path / "job.yaml").write_text(JOB.replace("40", "1").replace("10", "1") + "recipe: recipe.py:Momentum\n")
    assert "resumed after no step: the same bit for bit" in " ".join(gpumarket_recipe("run", tmp_path).split())


@pytest.mark.long
def test_what_only_a_run_evaluates_is_no_difference(tmp_path: Path) -> None:
    folder = job_folder(tmp_path, "Evaluates")
    evaluates = "class Evaluates(Momentum):\n    def evaluate(self):\n        return {'loss': self.loss(0)}\n"
    (folder / "recipe.py").write_text(f"{(folder / 'recipe.py').read_text()}\n\n{evaluates}")
    (folder / "job.yaml").write_text(JOB.replace("40", "6").replace("10", "2") + "recipe: recipe.py:Evaluates\n")
    assert "resumed after step 2, 2: the same" in " ".join(gpumarket_recipe("run", folder).split())
