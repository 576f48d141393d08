"""What a recipe may have besides: evaluate() at each checkpoint, and weights to start from. And steps that count on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from contracts.commitment import step_digest
from tests.support.recipes import TOY
from worker.training.checkpoints import checkpoint_name, read_trace, trace_name
from worker.training.failures import Failure
from worker.training.loop import CheckpointSaved, StepDone, sample, start_recipe, train
from worker.training.recipe import Recipe, load_recipe
from worker.training.starting.seeding import pin
from worker.training.state import difference, flatten, read_checkpoint

SEED = 7


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    pin(threads=1)


def judged(name: str = "Judged") -> Callable[[], Recipe]:
    recipe = load_recipe(f"judged.py:{name}", TOY.parent)
    return lambda: recipe({"judged": [3, 2, 1]}, {})


def run(
    make: Callable[[], Recipe], folder: Path, *, first: int = 1, last: int = 2, start_step: int = 0,
    state: Path | None = None, weights: Path | None = None,
) -> list[StepDone | CheckpointSaved]:  # fmt: skip
    recipe = start_recipe(make, SEED, state, weights)
    folder.mkdir()
    return list(
        train(recipe, seed=SEED, checkpoint_every=4, first=first, last=last, folder=folder, start_step=start_step)
    )


def saved(events: list[StepDone | CheckpointSaved]) -> list[CheckpointSaved]:
    return [event for event in events if isinstance(event, CheckpointSaved)]


def test_an_evaluation_is_part_of_the_last_steps_metrics_and_of_its_digest(tmp_path: Path) -> None:
    events = run(judged(), tmp_path / "run")
    assert [one.metrics["eval_loss"] for one in saved(events)] == [3, 2]
    assert all(("eval_loss" in one.metrics) == (one.step % 4 == 0) for one in events)
    digests = list(read_trace(tmp_path / "run" / trace_name(1)))
    state = read_checkpoint(tmp_path / "run" / checkpoint_name(1))
    ordered = {name: state[name] for name in sorted(state, key=str.encode)}
    assert digests[-1] == step_digest(4, saved(events)[0].metrics, sample(ordered, SEED, 4))


def test_an_evaluation_changes_no_bit_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(judged(), tmp_path / "with")
    make = judged()
    monkeypatch.delattr(type(make()), "evaluate")
    run(make, tmp_path / "without")
    states = [read_checkpoint(tmp_path / name / checkpoint_name(2)) for name in ("with", "without")]
    assert difference(*states) is None


def test_an_evaluation_that_meddles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="changed the state"):
        run(judged("Meddles"), tmp_path / "run")


def test_a_follow_up_job_is_the_rest_of_a_longer_one(tmp_path: Path) -> None:
    run(judged(), tmp_path / "whole", last=4)
    run(judged(), tmp_path / "first", last=2)
    state = tmp_path / "first" / checkpoint_name(2)
    events = run(judged(), tmp_path / "more", last=2, start_step=8, state=state)
    assert [one.step for one in saved(events)] == [12, 16]
    whole, more = tmp_path / "whole", tmp_path / "more"
    assert difference(read_checkpoint(whole / checkpoint_name(4)), read_checkpoint(more / checkpoint_name(2))) is None
    assert list(read_trace(whole / trace_name(3))) == list(read_trace(more / trace_name(1)))


def test_weights_to_start_from(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.full((16, 16), 0.5), "bias": torch.full((16,), 2.0)}, path)
    recipe = start_recipe(judged(), SEED, None, path)
    assert flatten(recipe.state_dict())["model/bias"].tolist() == [2.0] * 16
    state = tmp_path / "run" / checkpoint_name(1)
    run(judged(), tmp_path / "run", weights=path)
    resumed = start_recipe(judged(), SEED, state, path)  # a state to go on from comes before them
    assert difference(flatten(resumed.state_dict()), read_checkpoint(state)) is None


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(Failure, match="load_weights raised RuntimeError"):
        start_recipe(judged(), SEED, None, path)
    path.write_bytes(b"no weights")
    with pytest.raises(Failure, match="can't read"):
        start_recipe(judged(), SEED, None, path)


def test_without_load_weights_load_state_dict_takes_them(tmp_path: Path) -> None:
    toy = load_recipe("toy.py:Toy", TOY.parent)
    run(lambda: toy({}, {}), tmp_path / "run", last=1)
    path = tmp_path / "run" / checkpoint_name(1)
    recipe = start_recipe(lambda: toy({}, {}), SEED, None, path)
    assert difference(flatten(recipe.state_dict()), read_checkpoint(path)) is None
