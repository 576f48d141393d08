"""Environments by id: one list, and documents that say the same."""

import json

import pytest
from typer.testing import CliRunner

from contracts.errors import UserError
from tests.support import ROOT
from worker.cli.recipe import app
from worker.training.environment import ENVIRONMENTS, check_environment, environment_id, installed

DOCS = ROOT / "docs" / "environments.md"


def test_the_documents_list_each_environment_with_what_it_contains() -> None:
    sections = {part.split("\n", 1)[0]: part for part in DOCS.read_text().split("\n## ")[1:]}
    assert [title for title in sections if title.startswith("torch")] == list(ENVIRONMENTS)
    for environment in ENVIRONMENTS.values():
        for name, version in environment.contents.items():
            assert f"| {name} | {version} |" in sections[environment.id]


def test_this_installation_is_one_of_them() -> None:
    environment = ENVIRONMENTS[environment_id()]
    assert set(installed()) == set(environment.contents)
    assert "missing" not in installed().values()
    check_environment(environment.id)


def test_another_is_refused() -> None:
    with pytest.raises(UserError, match="asks for the environment 'tensorflow-1'") as caught:
        check_environment("tensorflow-1")
    assert "none there is" in str(caught.value.hint)


def test_the_command_lists_them() -> None:
    shown = CliRunner().invoke(app, ["environments"])
    assert "torch-2.13" in shown.output and "this machine has it" in shown.output
    listed = json.loads(CliRunner().invoke(app, ["environments", "-o", "json"]).output)
    assert listed["environments"][0]["contains"] == dict(ENVIRONMENTS["torch-2.13"].contents)
    assert listed["installed"] == installed()
