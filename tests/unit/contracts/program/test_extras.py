"""Extras: which is lacking, what is a bug instead, and the command that adds one to this very installation."""

import json
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import UserError
from contracts.program import extras

ROOT = Path(__file__).resolve().parents[4]
REQUIRES = [
    "web3==8.0.0",
    "fastapi>=0.120; extra == 'market'",
    "gpumarket[recipes,verify]; extra == 'market'",
    'ortools==9.15.6755; extra == "verify"',
    "scikit-learn>=1.7; extra == 'recipes'",
    "uvicorn[standard]>=0.35; extra == 'serve'",
]


def installed(monkeypatch: pytest.MonkeyPatch, *there: str, origin: Any = None) -> None:
    """As if gpumarket had come from `origin` (of direct_url.json), and beside it `there` were all."""

    def distribution(name: str) -> SimpleNamespace:
        if name != extras.PROJECT and name not in there:
            raise PackageNotFoundError(name)
        return SimpleNamespace(requires=REQUIRES, read_text=lambda file: json.dumps(origin) if origin else None)

    monkeypatch.setattr(extras, "distribution", distribution)


@pytest.mark.parametrize(
    ("extra", "there", "is_here"),
    [
        ("client", [], True),  # asks for nothing
        ("verify", [], False),
        ("verify", ["ortools"], True),
        ("serve", ["uvicorn"], True),
        ("market", ["fastapi", "scikit-learn"], False),  # it includes another, which is not here
        ("market", ["fastapi", "scikit-learn", "ortools"], True),
    ],
)
def test_an_extra_is_here_with_all_that_it_asks_for(
    extra: str, there: list[str], is_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, *there)
    assert extras.is_here(extra) is is_here


def test_a_missing_module_is_told_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "fastapi", "scikit-learn")
    with pytest.raises(UserError) as caught, extras.needed_by("`gpumarket epoch verify`", "market", "verify"):
        import no_such_solver  # noqa: F401
    assert caught.value.message == (
        "`gpumarket epoch verify` needs the extra 'market,verify': there is no module named 'no_such_solver'"
    )
    assert caught.value.hint == extras.install_command("market", "verify")


def test_what_no_extra_brings_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "ortools")
    with pytest.raises(ModuleNotFoundError, match="no_such_solver"), extras.needed_by("it", "verify"):
        import no_such_solver  # noqa: F401
    installed(monkeypatch)
    for gone in ("worker.no_such_room", "market", "gpumarket.no_such_door", "contracts.no_such_word"):
        assert extras.missing_extra("it", ["verify"], ModuleNotFoundError(name=gone)) is None
    assert extras.missing_extra("it", [], ModuleNotFoundError(name="numpy")) is None
    assert extras.missing_extra("it", ["verify"], ModuleNotFoundError("raised by hand")) is None


WHEEL = "https://example.org/gpumarket-0.1.0-py3-none-any.whl"
GIT = {"vcs": "git", "requested_revision": "main", "commit_id": "89ab"}


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        (None, ["gpumarket[market,worker]"]),
        ({"url": WHEEL, "archive_info": {}}, [f"gpumarket[market,worker] @ {WHEEL}"]),
        (
            {"url": "https://example.org/g.git", "vcs_info": GIT, "subdirectory": "py"},
            ["gpumarket[market,worker] @ git+https://example.org/g.git@89ab#subdirectory=py"],
        ),
        ({"url": "file:///no/such/tree", "dir_info": {}}, ["gpumarket[market,worker]"]),
        ({"url": "file:///no/such/gpumarket.whl", "archive_info": {}}, ["gpumarket[market,worker]"]),
    ],
)
def test_the_command_installs_from_where_this_came(
    origin: Any, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, origin=origin)
    assert shlex.split(extras.install_command("market", "worker")) == [sys.executable, "-m", "pip", "install", *wanted]


def test_the_command_installs_from_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "my tree"
    tree.mkdir()
    pip = [sys.executable, "-m", "pip", "install"]
    installed(monkeypatch, origin={"url": tree.as_uri(), "dir_info": {"editable": True}})
    assert shlex.split(extras.install_command("market")) == [*pip, "--editable", f"{tree}[market]"]
    installed(monkeypatch, origin={"url": tree.as_uri(), "dir_info": {}})
    assert shlex.split(extras.install_command("market")) == [*pip, f"{tree}[market]"]


def test_the_command_for_a_python_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "executable", "/my venv/bin/python")
    assert extras.install_command("market") == "pip --python '/my venv/bin/python' install 'gpumarket[market]'"


def test_the_extras_that_commands_name_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commands = project["entry-points"]["gpumarket.commands"]
    named = {extra for name, value in commands.items() for extra in EntryPoint(name, value, "").extras}
    assert named <= project["optional-dependencies"].keys()


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("market.client.cli.job, market.client.cli.offers, market.verify.cli", "prometheus_client numpy ortools"),
        ("market.approver.cli", "numpy ortools"),
        ("market.verify.verify", "prometheus_client"),
    ],
)
def test_clients_and_approvers_import_no_more_than_their_extras_bring(modules: str, without: str) -> None:
    heavy = {"fastapi", "sqlmodel", "sqlalchemy", "uvicorn", "torch", "psutil", *without.split()}
    code = f"import sys, {modules}; print({heavy!r} & sys.modules.keys())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert output == "set()\n"
