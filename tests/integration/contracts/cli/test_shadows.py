"""Somebody's own package with the name of one of ours: which file was found instead is told, whatever is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("gpumarket")


def shadow(folder: Path, name: str, *, empty: bool = False) -> Path:
    package = folder / name
    package.mkdir(parents=True)
    file = package / "__init__.py"
    file.write_text("" if empty else "raise RuntimeError('this is not gpumarket')\n")
    return file


Done = subprocess.CompletedProcess[str]


def start(*command: str | Path, path: Path | None = None, cwd: Path | None = None) -> Done:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["worker", "market", "contracts", "gpumarket"])
def test_a_package_of_the_callers_is_named(tmp_path: Path, name: str) -> None:
    file = shadow(tmp_path, name)
    for command in ("--help", "recipe list", "wallet show"):
        done = start(COMMAND, *command.split(), path=tmp_path)
        assert done.returncode == 1
        error, hint = done.stderr.splitlines()
        assert error.startswith(f"error: the package '{name}' was found in {file}, but that of gpumarket is in ")
        assert "PYTHONPATH leads there" in hint


@pytest.mark.parametrize("name", ["worker", "market"])
def test_a_folder_that_python_is_started_in(tmp_path: Path, name: str) -> None:
    file = shadow(tmp_path, name, empty=True)
    done = start(sys.executable, "-m", "contracts.cli.main", "recipe", "list", cwd=tmp_path)
    assert done.returncode == 1
    assert f"'{name}' was found in {file}" in done.stderr and "another folder" in done.stderr
    assert "Traceback" not in done.stderr
    program = start(sys.executable, "-c", "import gpumarket.recipe", cwd=tmp_path)
    assert f"ImportError: the package '{name}' was found in {file}" in program.stderr


def test_what_does_no_harm(tmp_path: Path) -> None:
    """A folder without __init__.py comes after packages; and the command does not look where it is started."""
    (tmp_path / "market").mkdir()
    assert start(COMMAND, "--version", path=tmp_path).returncode == 0
    shadow(tmp_path, "worker")
    assert start(COMMAND, "--version", cwd=tmp_path).returncode == 0
