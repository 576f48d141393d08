"""The command line of bubblewrap: GPUs by grant, and a user of its own. Nothing is started with it."""

from pathlib import Path

import pytest

from worker.sandbox import bubblewrap
from worker.sandbox.gpus import Gpu
from worker.sandbox.hiding.view import Program, view

TWO = (Gpu(1, "GPU-b"), Gpu(3, "GPU-d"))


def after(command: list[str], option: str) -> list[str]:
    return [command[at + 1] for at, word in enumerate(command) if word == option]


@pytest.mark.parametrize("uid", [None, 70_000])
def test_bubblewrap_passes_on_the_granted_gpus_only(dev: Path, tmp_path: Path, uid: int | None) -> None:
    def command_of(program: Program) -> list[str]:
        staging = tmp_path / str(len(program.gpus))
        staging.mkdir()
        return bubblewrap.bubblewrap_command(program, view(program, staging), uid=uid)

    bare = command_of(Program(["python"]))
    assert not [word for word in bare if "nvidia" in word or word == "/sys"]
    command = command_of(Program(["python"], gpus=TWO))
    nodes = {Path(word).name for word in command if "nvidia" in word}
    assert nodes == {"nvidia1", "nvidia3", "nvidiactl", "nvidia-uvm"}
    assert "/sys" in after(command, "--ro-bind")


def test_root_gives_each_run_a_user_of_its_own(tmp_path: Path) -> None:
    uids = {bubblewrap.own_uid() for _ in range(64)}
    assert len(uids) == 64 and min(uids) >= bubblewrap.FIRST_OWN_UID and max(uids) < 2**31
    program = Program(["python"], output=Path("/srv/out"))
    command = bubblewrap.bubblewrap_command(program, view(program, tmp_path), uid=70_000)
    assert after(command, "--reuid") == ["70000"]
    inner = command[command.index("setpriv") :]
    assert "/srv/out" not in inner and after(inner, "--bind") == ["/out"]


# The filter, as the kernel would run it
