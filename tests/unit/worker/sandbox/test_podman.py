"""The command line of podman: GPUs by grant, and nothing else. Nothing is started with it."""

import json
import subprocess
from pathlib import Path

import pytest

from worker.sandbox import podman
from worker.sandbox.gpus import Gpu
from worker.sandbox.hiding.view import Program, view
from worker.sandbox.limits import Limits

MASKED = ("loadavg", "meminfo", "stat", "uptime")
TWO = (Gpu(1, "GPU-b"), Gpu(3, "GPU-d"))


def after(command: list[str], option: str) -> list[str]:
    return [command[at + 1] for at, word in enumerate(command) if word == option]


def test_podman_passes_on_the_granted_gpus_only(dev: Path, tmp_path: Path) -> None:
    def command(program: Program) -> list[str]:
        staging = tmp_path / str(len(program.gpus))
        staging.mkdir()
        seen = view(program, staging, host_python=False)
        return podman.podman_command(program, seen, ["image"], "name", uid=7)

    assert not [word for word in command(Program(["python"])) if "nvidia" in word or word == "--device"]
    assert after(command(Program(["python"], gpus=TWO)), "--device") == ["nvidia.com/gpu=GPU-b", "nvidia.com/gpu=GPU-d"]


def test_podman_shuts_out_the_rest(tmp_path: Path) -> None:
    program = Program(
        ["python3", "-m", "worker.training.harness"], {"A": "b"}, output=tmp_path, limits=Limits(memory_mb=512)
    )
    seen = view(program, tmp_path, host_python=False)
    command = podman.podman_command(program, seen, ["registry/image:1"], "name", uid=7)
    assert (after(command, "--network"), after(command, "--cap-drop"), after(command, "--pull")) == (
        ["none"], ["all"], ["never"],
    )  # fmt: skip
    assert "--read-only" in command and "no-new-privileges" in after(command, "--security-opt")
    assert after(command, "--memory") == after(command, "--memory-swap") == ["512m"]
    assert (after(command, "--pids-limit"), after(command, "--user")) == (["256"], ["7:7"])
    mounts = after(command, "--mount")
    assert mounts[-1] == f"type=bind,source={tmp_path},destination=/out"
    masks = {f"type=bind,source={tmp_path}/proc/{name},destination=/proc/{name},readonly" for name in MASKED}
    assert masks <= set(mounts)
    image = command.index("registry/image:1")
    assert command[image + 1 :] == [
        "python3",
        "-m",
        "worker.sandbox.seccomp",
        "python3",
        "-m",
        "worker.training.harness",
    ]


def test_podman_that_keeps_no_limits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's on a machine with control groups v1: it would warn, and start all the same."""

    def says(*controllers: str) -> None:
        told = json.dumps({"host": {"cgroupVersion": "v1", "cgroupControllers": controllers}})
        done = subprocess.CompletedProcess([], 0, stdout=told)
        monkeypatch.setattr(podman, "_podman", lambda *arguments: done)
        monkeypatch.setattr(podman.Podman, "start", lambda *_: pytest.fail("it was started"))

    monkeypatch.setattr(podman.shutil, "which", lambda name: f"/usr/bin/{name}")
    says()
    assert "can't limit memory and pids here" in str(podman.podman_problem.__wrapped__(None))
    says("cpu", "memory")
    assert "can't limit pids here" in str(podman.podman_problem.__wrapped__(None))
