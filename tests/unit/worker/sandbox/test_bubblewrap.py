"""The command lines of the sandboxes, GPUs by grant, and the filter of system calls. Nothing is started with them."""

import errno
import json
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from contracts.errors import UserError
from worker.sandbox import bubblewrap, gpus, podman, seccomp
from worker.sandbox.bubblewrap import Program
from worker.sandbox.gpus import Gpu
from worker.sandbox.limits import Limits

TWO = (Gpu(1, "GPU-b"), Gpu(3, "GPU-d"))


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Device nodes of four GPUs, as far as a file can be one."""
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-modeset"):
        (folder / name).touch()
    monkeypatch.setattr(gpus, "DEV", folder)
    return folder


def after(command: list[str], option: str) -> list[str]:
    return [command[at + 1] for at, word in enumerate(command) if word == option]


@pytest.mark.parametrize("uid", [None, 70_000])
def test_bubblewrap_passes_on_the_granted_gpus_only(dev: Path, uid: int | None) -> None:
    bare = bubblewrap.bubblewrap_command(Program(["python"]), uid=uid)
    assert not [word for word in bare if "nvidia" in word or word == "/sys"]
    command = bubblewrap.bubblewrap_command(Program(["python"], gpus=TWO), uid=uid)
    nodes = {Path(word).name for word in command if "nvidia" in word}
    assert nodes == {"nvidia1", "nvidia3", "nvidiactl", "nvidia-uvm"}
    assert "/sys" in after(command, "--ro-bind")


def test_podman_passes_on_the_granted_gpus_only(dev: Path, tmp_path: Path) -> None:
    def command(program: Program) -> list[str]:
        seen = bubblewrap.view(program, host_python=False)
        return podman.podman_command(program, seen, ["image"], "name", uid=7)

    assert not [word for word in command(Program(["python"])) if "nvidia" in word or word == "--device"]
    assert after(command(Program(["python"], gpus=TWO)), "--device") == ["nvidia.com/gpu=GPU-b", "nvidia.com/gpu=GPU-d"]


def test_podman_shuts_out_the_rest(tmp_path: Path) -> None:
    program = Program(
        ["python3", "-m", "worker.training.harness"], {"A": "b"}, output=tmp_path, limits=Limits(memory_mb=512)
    )
    seen = bubblewrap.view(program, host_python=False)
    command = podman.podman_command(program, seen, ["registry/image:1"], "name", uid=7)
    assert (after(command, "--network"), after(command, "--cap-drop"), after(command, "--pull")) == (
        ["none"], ["all"], ["never"],
    )  # fmt: skip
    assert "--read-only" in command and "no-new-privileges" in after(command, "--security-opt")
    assert after(command, "--memory") == after(command, "--memory-swap") == ["512m"]
    assert (after(command, "--pids-limit"), after(command, "--user")) == (["256"], ["7:7"])
    assert after(command, "--mount") == [f"type=bind,source={tmp_path},destination=/out"]
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


def test_root_gives_each_run_a_user_of_its_own() -> None:
    uids = {bubblewrap.own_uid() for _ in range(64)}
    assert len(uids) == 64 and min(uids) >= bubblewrap.FIRST_OWN_UID and max(uids) < 2**31
    command = bubblewrap.bubblewrap_command(Program(["python"], output=Path("/srv/out")), uid=70_000)
    assert after(command, "--reuid") == ["70000"]
    inner = command[command.index("setpriv") :]
    assert "/srv/out" not in inner and after(inner, "--bind") == ["/out"]


def test_gpus_are_named_as_the_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMinorNumber", lambda index: 7 - index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda index: f"GPU-{index}")
    assert gpus.granted([1]) == (Gpu(6, "GPU-1"),)
    assert gpus.granted([]) == (Gpu(7, "GPU-0"), Gpu(6, "GPU-1"))
    variables = gpus.training_environment(1, gpus.granted([]), "/tmp")
    assert variables["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    assert gpus.training_environment(1, (), "/tmp")["CUDA_VISIBLE_DEVICES"] == ""


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UserError, match="can't find GPU 99 on this machine"):
        gpus.granted([99])


# The filter, as the kernel would run it


def run_filter(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """The filter's answer to a call: ALLOW, KILL, or an error number."""
    code = seccomp.program(machine)
    assert code
    steps = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    known = seccomp.ARCHITECTURES[machine]
    data = struct.pack(
        "<iIQ6Q", number, known.audit if audit is None else audit, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6]
    )
    accumulator, at = 0, 0
    while True:
        operation, true, false, operand = steps[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += true if accumulator == operand else false
            case 0x35:
                at += true if accumulator >= operand else false
            case 0x06:
                return int(operand) & 0xFFFF if operand >> 16 == 5 else int(operand)


ALLOW, KILL = 0x7FFF_0000, 0x8000_0000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_what_it_lists_and_no_more(machine: str) -> None:
    known = seccomp.ARCHITECTURES[machine]
    refused = {numbers[known.column]: errno.EPERM for numbers in seccomp.CALLS.values()}
    refused |= {numbers[known.column]: errno.ENOSYS for numbers in seccomp.UNKNOWN.values()}
    for number in range(500):
        expected = errno.EAFNOSUPPORT if number == known.socket else refused.get(number, ALLOW)
        assert run_filter(machine, number) == expected, number
    assert run_filter(machine, 1, audit=0x40000003) == KILL  # 32-bit calls have other numbers
    assert run_filter(machine, known.clone, 0x0001_0F00 | 17) == ALLOW
    assert run_filter(machine, known.clone, 0x1000_0000 | 17) == errno.EPERM
    for family in range(50):
        assert run_filter(machine, known.socket, family) == (ALLOW if family in (1, 2, 10) else errno.EAFNOSUPPORT)
    assert run_filter(machine, known.ioctl, 2, 0x5412) == errno.EPERM
    assert run_filter(machine, known.ioctl, 2, 0x5412 | 1 << 40) == errno.EPERM  # the kernel looks at 32 bits
    assert run_filter(machine, known.ioctl, 2, 0x5413) == ALLOW


def test_x32_calls_are_refused() -> None:
    assert run_filter("x86_64", 0x4000_0000 | 101) == errno.ENOSYS


def test_there_is_no_filter_for_other_machines() -> None:
    assert seccomp.program("riscv64") is None


@pytest.mark.skipif(platform.machine() not in seccomp.ARCHITECTURES, reason="no filter for this machine")
def test_the_kernel_takes_the_filter() -> None:
    keyctl = seccomp.CALLS["keyctl"][seccomp.ARCHITECTURES[platform.machine()].column]
    program = f"import ctypes; c = ctypes.CDLL(None, use_errno=True); c.syscall({keyctl}, 0, -4, 0)"
    command = [
        sys.executable,
        "-m",
        "worker.sandbox.seccomp",
        sys.executable,
        "-c",
        f"{program}; print(ctypes.get_errno())",
    ]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip() == str(errno.EPERM)
