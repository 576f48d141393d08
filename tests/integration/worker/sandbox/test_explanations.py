"""What a recipe's exception is told as: where in the recipe it was raised, and what the sandbox had to do with it."""

import os
from pathlib import Path

import pytest

from tests.support.attack_runs import attack
from tests.support.recipes import AT_HOME, TOY
from worker.sandbox import bubblewrap
from worker.sandbox.limits import Limits

LIMITS = Limits(memory_mb=2000, disk_mb=64, processes=40, start_seconds=100, hang_seconds=60)


@pytest.fixture(scope="module", autouse=True)
def needs_bubblewrap() -> None:
    if problem := bubblewrap.bubblewrap_problem():
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)


@pytest.mark.parametrize(
    ("does", "message", "hint"),
    [
        ("opens_a_file", "FileNotFoundError", "only those under `files` in job.yaml (recipe.py)"),
        ("opens_a_file_of_the_job", "FileNotFoundError", "open data['recipe.py']"),
        ("downloads", "URLError", "it has no network"),
        ("connects", "OSError", "it has no network"),
        ("writes", "/usr/share/notes.txt", "only the folder that the recipe starts in and /tmp"),
        ("makes_a_folder_at_home", "/home", "only the folder that the recipe starts in and /tmp"),
        ("imports", "ModuleNotFoundError", "List a module of your own under `files`"),
        ("runs_a_program", "FileNotFoundError", "there is no program 'nvidia-smi-of-mine'"),
        ("starts_threads", "can't start new thread", "number of processes and threads"),
        ("asks", "EOFError", "nobody can answer there"),
        ("looks_for_a_variable", "KeyError", "it passes no variables on"),
        ("fills_memory_folder", "No space left on device", "/tmp and /dev/shm are memory, of 256 MB each"),
    ],
)
def test_what_comes_of_the_sandbox_is_told_so(tmp_path: Path, does: str, message: str, hint: str) -> None:
    failed = attack(tmp_path, "AtHome", limits=LIMITS, source=AT_HOME, does=does)
    assert (failed.kind, message in failed.message) == ("exception", True), failed
    assert failed.hint and failed.hint.startswith("this is the sandbox: ") and hint in failed.hint, failed.hint
    assert f"in {does}" in failed.traceback, failed.traceback


def test_of_an_exception_the_recipe_s_own_lines_are_shown(tmp_path: Path) -> None:
    failed = attack(tmp_path, "AtHome", limits=LIMITS, source=AT_HOME, does="fails_of_itself")
    assert failed.hint is None
    source = AT_HOME.read_text().splitlines()
    place = next(number for number, line in enumerate(source, 1) if "torch.randn(2, 5)" in line)
    called = next(number for number, line in enumerate(source, 1) if "getattr(self, self.config" in line)
    *shown, said = failed.traceback.rstrip().splitlines()
    assert shown == [
        "Traceback of the recipe:",
        f'  File "recipe.py", line {called}, in step',
        '    getattr(self, self.config["does"])()',
        f'  File "recipe.py", line {place}, in fails_of_itself',
        "    self.model(torch.randn(2, 5))",
    ]
    assert said.startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")


def test_silence_says_whose_limit_it_was(tmp_path: Path) -> None:
    limits = Limits(memory_mb=2000, hang_seconds=2)
    failed = attack(tmp_path, "Hangs", limits=limits, source=TOY, at=2)
    assert failed.message == "no step or checkpoint was done within 2 s"
    assert failed.hint and failed.hint.startswith("this is the sandbox: it ends what takes that long. ")


def test_the_norm_of_a_step_that_loss_scaling_skipped_is_named(tmp_path: Path) -> None:
    failed = attack(tmp_path, "Scaled", limits=LIMITS, source=AT_HOME)
    assert (failed.kind, failed.message) == ("nan", "step 1: grad_norm is inf")
    assert failed.hint and "leave grad_norm out of such a step's metrics, or clamp it" in failed.hint
