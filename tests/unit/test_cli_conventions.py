"""What holds for every command of `gpumarket`: JSON on demand, dry runs where money moves, help with misspellings."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from contracts.cli import main
from tests.support import ROOT

# They run until they are stopped, or what they print is a file.
SERVICES = {"approver start", "arbiter start", "audit watch", "devnet", "market serve", "provider start"}
FILES = {"provider systemd"}
MONEY = {
    "deploy",
    "wallet deposit", "wallet withdraw", "wallet faucet",
    "job submit", "job cancel", "job extend", "job reprice",
    "provider register", "provider withdraw", "provider sweep",
}  # fmt: skip
# No money, but what can't be taken back.
DELETES = {"market collect", "market reindex", "reconcile", "arbiter start"}


@cache
def commands() -> dict[str, Any]:
    found = {}
    for entry_point in entry_points(group=main.GROUP):
        found |= dict(_below(get_command(entry_point.load()), entry_point.name.replace(".", " ")))
    return found


def _below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
    else:
        for sub in command.commands.values():
            yield from _below(sub, f"{name} {sub.name}")


def options(name: str) -> set[str]:
    return {option for parameter in commands()[name].params for option in parameter.opts if option.startswith("-")}


def test_each_command_prints_json_on_demand() -> None:
    assert {name for name in commands() if not {"-o", "--output"} <= options(name)} == SERVICES | FILES


def test_each_command_that_moves_money_has_a_dry_run() -> None:
    assert {name for name in commands() if "--dry-run" in options(name)} == MONEY | DELETES


def test_a_misspelt_option_is_answered_with_the_nearest() -> None:
    for name in commands():
        longest = max((option for option in options(name) if option.startswith("--")), key=len)
        result = CliRunner().invoke(main.app, [*name.split(), longest[:-2] + "x"])
        assert result.exit_code == 2, name
        assert longest in re.sub(r"[│\s]+", " ", result.stderr).split("No such option")[1], (name, result.stderr)


@pytest.mark.parametrize(
    "group", ["approver", "arbiter", "audit", "epoch", "job", "market", "offer", "provider", "recipe", "wallet"]
)
def test_a_misspelt_command_is_answered_with_the_nearest(group: str) -> None:
    for name in (name for name in commands() if name.startswith(f"{group} ")):
        command = name.split()[1]
        result = CliRunner().invoke(main.app, [group, command + "x"])
        assert (result.exit_code, f"'{command}'" in result.stderr) == (2, True), (name, result.stderr)


MARKUP = re.compile(r"\[/\]|\[/?(bold|dim|italic|red|green|yellow|blue|cyan|magenta)\b[^\]]*\]")


def _marked(tree: ast.Module) -> set[int]:
    """Ids of all nodes that are arguments of `marked`."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "marked")
    return {id(inner) for call in calls for inner in ast.walk(call)}


def test_markup_stands_only_where_values_are_kept_apart_from_it() -> None:
    """A console prints strings as they are; what is coloured goes through `marked`."""
    for path in (path for package in ("contracts", "market", "worker") for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        apart = _marked(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and MARKUP.search(node.value):
                assert id(node) in apart, f"{path}:{node.lineno}: {node.value!r}"
