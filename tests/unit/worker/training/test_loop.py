"""The training loop: a stretch's bits depend on the job and its first checkpoint, and on nothing else."""

import errno
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import torch

from contracts.commitment import step_digest, trace_root
from contracts.statefile import file_state_root
from tests.support.recipes import RESUMING, TOY
from tests.support.recipes.resuming import EXACT
from worker.training.checkpoints import checkpoint_name, read_trace, trace_name
from worker.training.failures import Failure
from worker.training.loop import CheckpointSaved, StepDone, checked_metrics, sample, start_recipe, train
from worker.training.recipe import Recipe, load_recipe
from worker.training.starting.seeding import pin
from worker.training.state import FlatState, as_bytes, difference, flatten, read_checkpoint, save_file, write_checkpoint
from worker.training.work_units import count_work

SEED = 7


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    pin(threads=1)


def toy(name: str = "Toy", source: Path = TOY, **config: object) -> Callable[[], Recipe]:
    recipe = load_recipe(f"{source.name}:{name}", source.parent)
    return lambda: recipe(dict(config), {})


def run(
    make: Callable[[], Recipe], folder: Path, *, first: int = 1, last: int = 5, state: Path | None = None
) -> tuple[list[StepDone], list[CheckpointSaved]]:
    recipe = start_recipe(make, SEED, state)
    events = list(train(recipe, seed=SEED, checkpoint_every=4, first=first, last=last, folder=folder))
    steps = [event for event in events if isinstance(event, StepDone)]
    return steps, [event for event in events if isinstance(event, CheckpointSaved)]


def disturb_generators() -> None:
    torch.manual_seed(999)
    torch.randn(5)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole, part, rest = (tmp_path / name for name in ("whole", "part", "rest"))
    for folder in (whole, part, rest):
        folder.mkdir()
    steps, checkpoints = run(toy(), whole)
    assert [step.step for step in steps] == list(range(1, 21))

    run(toy(), part, last=2)
    disturb_generators()
    resumed, later = run(toy(), rest, first=3, state=part / checkpoint_name(2))

    assert [step.metrics for step in resumed] == [step.metrics for step in steps[8:]]
    assert [saved.trace_root for saved in later] == [saved.trace_root for saved in checkpoints[2:]]
    for index in range(3, 6):
        assert file_state_root(rest / checkpoint_name(index)) == file_state_root(whole / checkpoint_name(index))
    assert file_state_root(rest / checkpoint_name(5)) != file_state_root(whole / checkpoint_name(4))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_natural_ports_of_scripts_go_on_bit_for_bit(name: str, at: int, tmp_path: Path) -> None:
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    whole.mkdir()
    rest.mkdir()
    steps, checkpoints = run(toy(name, RESUMING), whole)
    disturb_generators()
    resumed, later = run(toy(name, RESUMING), rest, first=at + 1, state=whole / checkpoint_name(at))
    assert [step.metrics for step in resumed] == [step.metrics for step in steps[4 * at :]]
    assert [saved.trace_root for saved in later] == [saved.trace_root for saved in checkpoints[at:]]
    assert difference(read_checkpoint(rest / checkpoint_name(5)), read_checkpoint(whole / checkpoint_name(5))) is None


def test_what_comes_back_as_another_kind_is_told_before_it_trains(tmp_path: Path) -> None:
    """It would train on, to states that have other roots than those of a run that was never resumed."""
    _, (first, *_) = run(toy("NumpyBest", RESUMING), tmp_path)
    with pytest.raises(Failure, match="is not what was saved: best is float against scalar") as caught:
        run(toy("NumpyBestAsFloat", RESUMING), tmp_path, first=2, state=first.path)
    assert caught.value.kind == "state"


def test_what_a_state_may_not_hold_is_told_at_the_first_step(tmp_path: Path) -> None:
    recipe = start_recipe(toy(), SEED, None)
    inner = recipe.state_dict
    recipe.state_dict = lambda: {**inner(), "best": {"names": {"a", "b"}}}  # type: ignore[method-assign]
    with pytest.raises(Failure, match=r"the state's 'best/names' is a set") as caught:
        next(train(recipe, seed=SEED, checkpoint_every=4, first=1, last=5, folder=tmp_path))
    assert caught.value.kind == "state"
    recipe.state_dict = lambda: {**inner(), "many": list(range(200_000))}  # type: ignore[method-assign]
    with pytest.raises(Failure, match=r"200\d+ entries of the state are no plain tensors"):
        next(train(recipe, seed=SEED, checkpoint_every=4, first=1, last=5, folder=tmp_path))


def test_stopping_between_checkpoints_loses_only_the_steps_since(tmp_path: Path) -> None:
    recipe = start_recipe(toy(), SEED, None)
    for event in train(recipe, seed=SEED, checkpoint_every=4, first=1, last=5, folder=tmp_path):
        if event.step == 6:
            break
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint_name(1), trace_name(1)]


def test_another_seed_trains_differently(tmp_path: Path) -> None:
    metrics = []
    for seed in (1, 2):
        recipe = start_recipe(toy(), seed, None)
        (first, *_) = train(recipe, seed=seed, checkpoint_every=1, first=1, last=1, folder=tmp_path)
        assert isinstance(first, StepDone)
        metrics.append(first.metrics["loss"])
    assert metrics[0] != metrics[1]


def test_counting_work_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    (step, *_), _ = run(toy(), tmp_path, last=1)
    work = count_work(toy(), SEED, 4)
    (again, *_), _ = run(toy(), tmp_path, last=1)
    assert again.metrics == step.metrics
    # Two linear layers, 16 x 32, batch 8: forward, gradient of the weights; the second also of its input.
    assert work.flops == 2 * 8 * 16 * 32 * 5
    assert work.units == 1  # 0.16 MFLOP in 4 steps, rounded up
    assert work.parameters == 16 * 32 + 32 + 32 * 16 + 16


def test_a_recipe_that_computes_nothing_has_no_units() -> None:
    with pytest.raises(Failure, match="no floating-point work") as caught:
        count_work(toy("NotFinite", at=1), SEED, 4)
    assert caught.value.kind == "units"


def test_attention_is_counted_in_its_plain_form_on_every_device() -> None:
    class Attends:
        def step(self, i: int) -> dict[str, float]:
            q = torch.randn(1, 2, 16, 8, requires_grad=True)
            torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
            return {}

    product = 2 * 2 * 16 * 16 * 8
    assert count_work(lambda: Attends(), SEED, 1).flops == 2 * product + 4 * product  # type: ignore[arg-type,return-value]


def test_a_recipe_must_restore_all_that_it_saved(tmp_path: Path) -> None:
    run(toy(), tmp_path, last=1)
    with pytest.raises(Failure, match="after load_state_dict the state is not what was saved") as caught:
        start_recipe(toy("Forgetful"), SEED, tmp_path / checkpoint_name(1))
    assert caught.value.kind == "state"


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(100)])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(Failure, match=r"can't read the checkpoint broken\.safetensors"):
        start_recipe(toy(), SEED, path)


def test_another_recipes_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_checkpoint(path, {"weight": torch.zeros(3)})
    with pytest.raises(Failure, match="load_state_dict raised KeyError: 'model'"):
        start_recipe(toy(), SEED, path)


def test_the_trace_is_of_metrics_and_sampled_state(tmp_path: Path) -> None:
    steps, (saved,) = run(toy(), tmp_path, last=1)
    state = read_checkpoint(saved.path)
    digests = list(read_trace(tmp_path / trace_name(1)))
    assert len(digests) == 4
    assert trace_root(digests) == saved.trace_root
    ordered = {name: state[name] for name in sorted(state, key=str.encode)}
    assert digests[-1] == step_digest(4, steps[-1].metrics, sample(ordered, SEED, 4))


def test_sampled_bytes_are_the_elements_at_the_drawn_positions() -> None:
    from contracts.commitment import sample_positions

    state = {
        "a": torch.randn(5, 7),
        "b": torch.arange(40, dtype=torch.int64),
        "c": torch.empty(0),
        "d": torch.randn(3, 4).to(torch.bfloat16).T,
        "e": torch.tensor(True),
    }
    elements = []
    for tensor in state.values():
        data = bytes(as_bytes(tensor).tolist())
        size = tensor.element_size()
        elements += [data[at : at + size] for at in range(0, len(data), size)]
    drawn = sample_positions(SEED, 3, len(elements))
    assert sample(state, SEED, 3) == b"".join(elements[position] for position in drawn)
    assert sample({}, SEED, 3) == b""
    assert sample({"c": torch.empty(0)}, SEED, 3) == b""


def test_metrics_become_floats() -> None:
    assert checked_metrics({"loss": torch.tensor(0.5), "n": 3}, 1) == {"loss": 0.5, "n": 3.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("-inf"))])
def test_a_metric_that_is_not_finite_fails_the_training(value: object) -> None:
    with pytest.raises(Failure, match="step 3: loss is") as caught:
        checked_metrics({"loss": value}, 3)
    assert caught.value.kind == "nan"


@pytest.mark.parametrize(
    "metrics",
    [None, 0.5, {"loss": "low"}, {"loss": torch.zeros(2)}, {1: 1.0}, {"": 1.0}, {"x" * 65: 1.0},
     {str(n): 0.0 for n in range(33)}],
)  # fmt: skip
def test_what_is_no_metrics_fails_the_training(metrics: object) -> None:
    with pytest.raises(Failure, match="step 3 returned") as caught:
        checked_metrics(metrics, 3)
    assert caught.value.kind == "exception"


def test_a_disk_that_is_full_leaves_the_former_checkpoint_as_it_was(tmp_path: Path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    write_checkpoint(first, {"a": torch.zeros(3)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # this process ignores its signal: writing fails
    try:
        with pytest.raises(Failure, match=r"can't write 2\.safetensors: .*File too large") as caught:
            write_checkpoint(second, {"a": torch.zeros(1_000)})
        with pytest.raises(Failure, match=r"can't write 1\.safetensors"):
            write_checkpoint(first, {"a": torch.zeros(1_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.kind == "disk"
    assert [path.name for path in tmp_path.iterdir()] == ["1.safetensors"]
    assert difference(read_checkpoint(first), flatten({"a": torch.zeros(3)})) is None


def test_a_checkpoint_waits_for_room_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [
        safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"),
    ]
    waited: list[float] = []

    def save_when_there_is_room(flat: FlatState, path: Path) -> None:
        if full:
            path.write_bytes(b"a part of it")
            raise full.pop()
        save_file(flat, path)

    monkeypatch.setattr("worker.training.state.save_file", save_when_there_is_room)
    monkeypatch.setattr("worker.training.loop.time.sleep", waited.append)
    (tmp_path / "full").mkdir()
    (tmp_path / "free").mkdir()
    _, saved = run(toy(), tmp_path / "full", last=2)
    assert len(waited) == 2
    monkeypatch.undo()
    _, expected = run(toy(), tmp_path / "free", last=2)
    assert [one.trace_root for one in saved] == [one.trace_root for one in expected]
    assert [file_state_root(one.path) for one in saved] == [file_state_root(one.path) for one in expected]
