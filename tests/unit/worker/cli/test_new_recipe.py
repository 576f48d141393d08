"""`gpumarket recipe new`: whole or not at all."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.errors import UserError
from contracts.job.file import parse_job_file, read_job
from worker import recipes
from worker.cli import new_recipe
from worker.cli.recipe import app


def make(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["new", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_without_what_makes_the_data_no_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str, folder: Path) -> list[Path]:
        (folder / "half").write_text("x")
        raise UserError("making the data of digits needs the extra 'recipes'")

    monkeypatch.setattr(new_recipe, "make_example_data", lacking)
    for target in (tmp_path / "new", tmp_path / "there"):
        if target.name == "there":
            target.mkdir()
        with pytest.raises(UserError, match="needs the extra 'recipes'"):
            make("digits", target)
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and not list((tmp_path / "there").iterdir())


def test_an_empty_one_is_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(make("--empty", tmp_path / 'my "model"', "-o", "json"))
    assert told == {"folder": str(tmp_path / 'my "model"'), "files": ["recipe.py", "job.yaml"]}
    job, spec = read_job(tmp_path / 'my "model"')
    assert (job.name, job.rules, spec.checkpoints) == ('my "model"', None, 4)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make("--empty", ".")
    assert read_job(Path())[0].name == "here"


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder to put digits into") as caught:
        make("digits")
    assert caught.value.hint == "gpumarket recipe new digits ./digits"
    with pytest.raises(UserError, match="--empty takes the folder only"):
        make("--empty", "digits", tmp_path)
    with pytest.raises(UserError, match="no example recipe") as caught:
        make("./mine")
    assert "gpumarket recipe new --empty ./mine" in str(caught.value.hint)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't make"):
        make("--empty", tmp_path / "file" / "new")


def test_shipped_jobs_sign_the_rules_that_register_offers() -> None:
    """A provider's are the market's first if it names none, and so are a job's: an example finds a machine anywhere."""
    for name in recipes.NAMES:
        job = parse_job_file((recipes.FOLDER / name / "job.yaml").read_text())
        assert job.rules is None
