"""Loading a recipe: every mistake has its sentence. Seeds. The shipped recipes."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.errors import UserError
from contracts.job.file import parse_job_file
from contracts.job.measured import MeasuredOn
from worker import recipes
from worker.cli.job_lines import set_units, set_units_of
from worker.sandbox import bubblewrap
from worker.training.environment import check_environment, environment_id
from worker.training.failures import Failure
from worker.training.numerics import numerics
from worker.training.recipe import load_recipe
from worker.training.starting.seeding import seed_everything

GOOD = """
class Good:
    def __init__(self, config, data): ...
    def step(self, i): ...
    def state_dict(self): ...
    def load_state_dict(self, state): ...
class Lame:
    def step(self, i): ...
"""


def load(folder: Path, source: str, recipe: str = "recipe.py:Good") -> type:
    (folder / "recipe.py").write_text(source)
    return load_recipe(recipe, folder)


def test_a_recipe_loads_afresh_each_time(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).__name__ == "Good"
    assert load(tmp_path, GOOD) is not load(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("source", "recipe", "message", "hint"),
    [
        (GOOD, "recipe.py", "recipe is 'recipe.py'", "path.py:Class"),
        (GOOD, "recipe.txt:Good", "recipe is 'recipe.txt:Good'", "path.py:Class"),
        (GOOD, "other.py:Good", "no file 'other.py'", "list it"),
        (GOOD, "recipe.py:God", "recipe.py has no class 'God'", "it has Good, Lame"),
        (GOOD, "recipe.py:Lame", "class Lame lacks state_dict, load_state_dict", "needs step"),
        ("x = 1", "recipe.py:x", "recipe.py has no class 'x'", "define it"),
        ("class:", "recipe.py:Good", "recipe.py line 1: invalid syntax", "syntax"),
        ("import nosuchthing", "recipe.py:Good", "imports 'nosuchthing'", "docs/environments.md"),
        ("1/0", "recipe.py:Good", "importing recipe.py raised ZeroDivisionError", None),
    ],
)
def test_mistakes_are_told(tmp_path: Path, source: str, recipe: str, message: str, hint: str | None) -> None:
    with pytest.raises(Failure) as caught:
        load(tmp_path, source, recipe)
    assert caught.value.kind == "recipe"
    assert message in caught.value.message
    assert hint is None or hint in str(caught.value.hint)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_every_generator_is_a_function_of_seed_and_step() -> None:
    seed_everything(1, 5)
    drawn = draws()
    draws()
    seed_everything(1, 5)
    assert draws() == drawn
    for seed, step in ((1, 6), (2, 5)):
        seed_everything(seed, step)
        assert all(a != b for a, b in zip(draws(), drawn, strict=True))


def test_numerics_are_strings_and_integers() -> None:
    facts = numerics()
    assert facts["torch"] == torch.__version__ and facts["cpu_capability"]
    assert all(isinstance(value, str | int) for value in facts.values())


def test_an_environment_that_is_not_here_is_refused() -> None:
    check_environment(environment_id())
    with pytest.raises(UserError, match=r"asks for the environment 'torch-1\.0'"):
        check_environment("torch-1.0")


@pytest.mark.parametrize("name", recipes.NAMES)
def test_shipped_recipes_are_complete(name: str) -> None:
    folder = recipes.FOLDER / name
    job = parse_job_file((folder / "job.yaml").read_text())
    assert job.environment == environment_id()
    assert 6 <= job.steps // job.checkpoint_every <= 8
    assert job.units  # that they are right is tested where recipes run
    load_recipe(job.recipe, folder)
    assert (folder / "make_data.py").is_file()
    assert len((folder / "recipe.py").read_text().splitlines()) < 150


def test_only_shipped_or_trusted_recipes_run_without_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "bubblewrap_problem", lambda: "bubblewrap is not installed")
    assert bubblewrap.sandbox_for(recipes.FOLDER / "digits" / "recipe.py", trusted=False).kind == "none"
    strange = tmp_path / "recipe.py"
    strange.write_text(GOOD)
    assert bubblewrap.sandbox_for(strange, trusted=True).kind == "none"
    with pytest.raises(UserError, match=r"recipe\.py needs a sandbox to run in, and bubblewrap is not") as caught:
        bubblewrap.sandbox_for(strange, trusted=False)
    assert "apt install bubblewrap" in str(caught.value.hint)


def test_units_are_written_and_all_else_left() -> None:
    text = "# mine\nname: a   # b\nsteps: 4\ncheckpoint_every: 2  # c\nstake: '1'\n"
    where = MeasuredOn(device='A "fast": GPU', threads=2, units_per_hour=7, seconds=0.5)
    place = 'measured_on: {device: "A \\"fast\\": GPU", threads: 2, units_per_hour: 7, seconds: 0.5}\n'
    once = set_units(text, 12, where)
    assert once == text.replace("# c\n", f"# c\nunits: 12\n{place}")
    assert set_units(once, 345, where) == once.replace("12", "345")
    by_hand = once.replace(place, "measured_on:\n  device: X\n  threads: 1\n")
    assert set_units(by_hand, 345, where) == once.replace("12", "345")
    assert set_units("name: a", 1, where) == f"name: a\nunits: 1\n{place}"


def test_lines_beside_the_units_stay_whole() -> None:
    where = MeasuredOn(device="X", threads=1, units_per_hour=7, seconds=0.5)
    place = 'measured_on: {device: "X", threads: 1, units_per_hour: 7, seconds: 0.5}\n'
    flow = "units: 1\n  # why\n\nmeasured_on: {device: X,\n  threads: 2}\n# The offer.\nstake: '1'"
    assert set_units(flow, 2, where) == f"units: 2\n  # why\n\n{place}# The offer.\nstake: '1'"
    block = "measured_on:\n  # an old one\n  device: X\nunits: 1"
    assert set_units_of(set_units(block, 2, where), "0x1") == f'{place}units: 2\nunits_of: "0x1"\n'
    assert set_units("checkpoint_every: 2", 3, where) == f"checkpoint_every: 2\nunits: 3\n{place}"


def test_what_units_are_of_is_written_below_them() -> None:
    once = set_units_of("a: 1\nunits: 12  # mine\nstake: 1\n", "0x12")
    assert once == 'a: 1\nunits: 12  # mine\nunits_of: "0x12"\nstake: 1\n'
    assert set_units_of(once, "0x34") == once.replace("0x12", "0x34")
