"""What a recipe that attacks can reach of the machine: of all that a stranger would look for, nothing."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.attack_runs import LIMITS, as_anybody, attack, job
from worker.sandbox import bubblewrap
from worker.sandbox.gpus import Gpu
from worker.sandbox.hiding.view import Program
from worker.sandbox.runner import Runner
from worker.training.messages import Failed, Measured, Message, Ready


def reached(failed: Failed) -> list[str]:
    assert failed.message.startswith("RuntimeError: ["), failed
    found = json.loads(failed.message.removeprefix("RuntimeError: "))
    assert isinstance(found, list)
    return found


@as_anybody
def test_nothing_outside_is_in_reach(
    tmp_path: Path, targets: dict[str, Any], udp: socket.socket, runtime: bubblewrap.Sandbox | None
) -> None:
    found = reached(attack(tmp_path, "Reaches", runtime, **targets))
    if runtime is not None:  # podman makes an /etc/passwd, and leaves a process what is its own in /proc
        found = [what for what in found if what not in ("read /etc/passwd", "write /proc/self/oom_score_adj")]
    assert found == []
    with pytest.raises(TimeoutError):
        udp.recv(1)


def test_without_a_sandbox_much_of_it_would_be(
    tmp_path: Path, targets: dict[str, Any], udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same recipe with nothing around it: what the test above shows is the sandbox's doing."""
    targets["write"] = [str(tmp_path / "home" / "new")]
    spec = job(tmp_path / "job", "LooksAround", targets)
    monkeypatch.setattr(bubblewrap, "bubblewrap_problem", lambda: "bubblewrap is not installed")
    last: Message | None = None
    with Runner(spec, tmp_path / "job", tmp_path / "work", limits=LIMITS, trusted=True) as run:
        for last in run.messages():
            if isinstance(last, Ready):
                run.go()
    assert isinstance(last, Failed)
    found = reached(last)
    home = tmp_path / "home"
    assert {f"read {home / 'keys/me.json'}", f"write {home / 'new'}", f"user {os.getuid()}"} <= set(found)
    assert {"TCP", f"unix socket '{home}/socket'", "a signal to the agent"} <= set(found)
    assert udp.recv(1) == b"x"
    assert {"processes of others", "the secret in some process's environ"} <= set(found)


def test_a_file_that_only_root_may_read_is_there_inside(tmp_path: Path) -> None:
    spec = job(tmp_path / "job", "Attack", {})
    (tmp_path / "job" / "recipe.py").chmod(0o600)
    with Runner(spec, tmp_path / "job", tmp_path / "work") as run:
        assert isinstance(run.next_message(timeout=300), Measured)
        assert isinstance(run.next_message(timeout=300), Ready)


def test_gpus_that_are_not_granted_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dev = tmp_path / "dev"
    dev.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-modeset"):
        (dev / name).write_text(name)
    monkeypatch.setattr("worker.sandbox.gpus.DEV", dev)
    look = [sys.executable, "-S", "-c", "import os; print(sorted(n for n in os.listdir('/dev') if 'nvidia' in n))"]
    for gpus, expected in (((), []), ((Gpu(1, "GPU-b"),), ["nvidia-uvm", "nvidia1", "nvidiactl"])):
        sandbox = bubblewrap.Bubblewrap()
        process = sandbox.start(Program(look, gpus=gpus))
        said, log = process.communicate(timeout=300)
        sandbox.end(process)
        assert said.decode().strip() == str(expected), log
