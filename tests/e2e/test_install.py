"""Installed by pip in a fresh environment: a client's extra is enough for a client, and the rest says what it lacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


class Installation:
    """A venv with nothing but what pip was told to install, and a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.folder = folder / "venv" / "bin", folder
        # Neither the tree on the path nor somebody's settings.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GPUMARKET_", "PYTHON"))}
        home = {"GPUMARKET_HOME": str(folder / "home"), "GPUMARKET_PASSWORD": "sesame"}
        self.environment = inherited | home | {"PIP_CONSTRAINT": str(ROOT / "requirements.lock"), "COLUMNS": "160"}
        self.shell(f"'{sys.executable}' -m venv '{self.bin.parent}'")

    def shell(self, command: str) -> str:
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, env=self.environment, cwd=self.folder, timeout=900
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    def gpumarket(self, command: str) -> str:
        return self.shell(f"'{self.bin}/gpumarket' {command}")

    def refusal(self, command: str) -> tuple[str, str]:
        """Error and hint of a command that can't do its work."""
        done = subprocess.run(
            [self.bin / "gpumarket", *command.split()],
            capture_output=True, text=True, env=self.environment, cwd=self.folder, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 1, done.stdout + done.stderr
        error, hint = done.stderr.splitlines()
        return error.removeprefix("error: "), hint.removeprefix("hint: ")


def test_a_clients_installation(tmp_path: Path) -> None:
    folder = tmp_path / "a place"
    folder.mkdir()
    client = Installation(folder)
    client.shell(f"'{client.bin}/pip' install --quiet '{ROOT}[client]'")
    listed = client.shell(f"'{client.bin}/pip' list --format freeze").lower()
    for heavy in ("fastapi", "ortools", "numpy", "torch"):
        assert f"\n{heavy}==" not in listed
    clients_commands_work(client)
    commands_of_others_say_what_to_install(client)
    what_they_say_works(client)


def clients_commands_work(client: Installation) -> None:
    for group in ("job", "offer", "wallet", "epoch", "job submit", "epoch verify"):
        assert "Usage: gpumarket" in client.gpumarket(f"{group} --help")
    assert "me" in client.gpumarket("wallet new me")
    for command in ("job list", "offer list", "epoch list", "epoch show 1"):
        assert client.refusal(command)[0].startswith("the setting 'market_url' is missing"), command
        error, _ = client.refusal(f"{command} --market http://127.0.0.1:9")
        assert error.startswith("the market at http://127.0.0.1:9 does not answer"), command


def commands_of_others_say_what_to_install(client: Installation) -> None:
    for command, name, extra in (
        ("market serve", "market", "market"),
        ("reconcile", "reconcile", "market"),
        ("provider status", "provider", "worker"),
        ("recipe list", "recipe", "worker"),
        ("epoch verify 1", "epoch verify", "verify"),
        ("approver start", "approver", "approver"),
    ):
        error, hint = client.refusal(command)
        assert error.startswith(f"`gpumarket {name}` needs the extra '{extra}': there is no module named ")
        assert hint.endswith(f" -m pip install '{ROOT}[{extra}]'") and str(client.bin) in hint


def what_they_say_works(client: Installation) -> None:
    for command in ("approver start", "epoch verify 1"):
        client.shell(client.refusal(command)[1])
        assert client.refusal(command)[0].startswith("the setting 'chain_id' is missing"), command
