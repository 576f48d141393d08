"""What a recipe can reach. The same recipe looks around inside the sandbox and, to prove the test, outside."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker_jobs import toy_job
from worker import sandbox
from worker.messages import Failed, Ready
from worker.runner import Runner


@pytest.fixture(autouse=True)
def bubblewrap() -> None:
    if problem := sandbox.bubblewrap_problem():
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a key in it. (Under /tmp, which is another one inside.)"""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "key").write_text("secret")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GPUMARKET_PASSPHRASE", "secret")
    return folder


def look(
    tmp_path: Path, address: tuple[str, int], home: Path, *, write: list[str], trusted: bool = False
) -> dict[str, Any]:
    config = {
        "at": 2,
        "read": [str(home), str(home / "key"), str(Path.home().parent), "/etc/passwd", "/var", "/home"],
        "write": [str(home / "key"), *write],
        "connect": list(address),
        "variables": ["GPUMARKET_PASSPHRASE"],
    }
    spec = toy_job(tmp_path / "job", "Looks", config=config)
    with Runner(spec, tmp_path / "job", tmp_path / "work", trusted=trusted) as run:
        for message in run.messages():
            if isinstance(message, Ready):
                run.go()
            if isinstance(message, Failed):
                assert message.message.startswith("RuntimeError: {"), message
                return dict(json.loads(message.message.removeprefix("RuntimeError: ")))
    raise AssertionError("it looked at nothing")


def test_a_recipe_sees_its_job_and_nothing_else(tmp_path: Path, address: tuple[str, int], home: Path) -> None:
    write = ["/usr/bin/env", "/etc/new", "/new", "/dev/new", sandbox.__file__]
    # As root, even without any capability, a process could write these if /proc were writable.
    write += ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"]
    seen = look(tmp_path, address, home, write=write)
    assert seen["reached"] == []
    assert seen["processes"] <= 3  # bubblewrap's, and its own
    assert seen["uid"] == int(sandbox.NOBODY)


def test_without_the_sandbox_it_would_see(
    tmp_path: Path, address: tuple[str, int], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "bubblewrap_problem", lambda: "bubblewrap is not installed")
    reached = look(tmp_path, address, home, write=[], trusted=True)["reached"]
    assert f"read {home / 'key'}: secret" in reached
    assert f"write {home / 'key'}" in reached
    assert "network" in reached
    assert not [what for what in reached if what.startswith("variable")]  # never passed on
