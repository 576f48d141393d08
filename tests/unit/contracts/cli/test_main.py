"""`gpumarket` itself: lazy sub-commands, and errors that say what to do."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner, Result

from contracts.cli import main
from contracts.errors import UserError
from contracts.program import extras

two_commands = typer.Typer()
one_command = typer.Typer()
callback_only = typer.Typer()


@two_commands.command()
def fail() -> None:
    raise UserError("the key file '/no/such' does not exist", "gpumarket wallet new")


@two_commands.command()
def crash() -> None:
    raise ValueError("a bug")


@two_commands.command()
def serve() -> None:
    import no_such_framework  # noqa: F401


@one_command.command()
def reconcile(url: str) -> None:
    print(f"reconciled {url}")


@callback_only.callback(invoke_without_command=True)
def reconcile_all() -> None:
    print("reconciled all")


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "two": f"{__name__}:two_commands",
        "one": f"{__name__}:one_command",
        "bare": f"{__name__}:callback_only",
        "market": "no_such_framework:app [market]",
        "late": f"{__name__}:two_commands [market]",
    }
    found = [EntryPoint(name, value, main.GROUP) for name, value in values.items()]
    monkeypatch.setattr(main, "entry_points", lambda group: found)
    monkeypatch.delenv("GPUMARKET_DEBUG", raising=False)


def run(*args: str) -> Result:
    return CliRunner().invoke(main.app, args)


def test_help_lists_commands_without_importing_them() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert main.SUMMARIES["market"] in result.output


def test_user_error_is_one_line_and_a_hint() -> None:
    result = run("two", "fail")
    assert result.exit_code == 1
    assert result.stderr == "error: the key file '/no/such' does not exist\nhint: gpumarket wallet new\n"


@pytest.mark.parametrize("args", [["--debug"], []])
def test_debug_shows_the_traceback(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not args:
        monkeypatch.setenv("GPUMARKET_DEBUG", "1")
    assert isinstance(run(*args, "two", "fail").exception, UserError)


def test_a_bug_is_not_hidden() -> None:
    assert isinstance(run("two", "crash").exception, ValueError)


def test_an_app_of_one_command_is_the_command() -> None:
    assert run("one", "http://m").output == "reconciled http://m\n"
    assert run("bare").output == "reconciled all\n"


@pytest.mark.parametrize("args", [["market"], ["late", "serve"]])
def test_a_missing_library_names_the_extra(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "is_here", lambda extra: False)
    result = run(*args)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: `gpumarket {args[0]}` needs the extra 'market': there is no module named 'no_such_framework'\n"
        f"hint: {extras.install_command('market')}\n"
    )


@pytest.mark.parametrize("args", [["market"], ["late", "serve"]])
def test_a_module_that_no_extra_brings_is_a_bug(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "is_here", lambda extra: True)
    assert isinstance(run(*args).exception, ModuleNotFoundError)


def test_a_misspelt_command_suggests_the_nearest() -> None:
    result = run("markt")
    assert result.exit_code == 2
    assert "Did you mean 'market'?" in result.stderr


def test_help_is_light() -> None:
    heavy = {"torch", "fastapi", "web3", "sqlmodel", "numpy"}
    code = f"import sys, contracts.cli.main; print({heavy!r} & sys.modules.keys())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
