"""Where a run's control group is made, from what the kernel says of itself. That it limits is tried in integration."""

import os
from pathlib import Path

import pytest

from worker.sandbox import cgroups
from worker.sandbox.cgroups import GroupPlace, MemoryGroup

MIXED = """\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro
35 30 0:31 /docker/abc /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory
36 30 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
37 30 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_this_process_s_own_group_is_found_where_it_is_mounted() -> None:
    own = "4:memory:/docker/abc/inner\n2:pids:/\n0::/user.slice\n"
    assert list(cgroups._candidates(MIXED, own)) == [
        GroupPlace(Path("/sys/fs/cgroup/memory/inner"), 1),
        GroupPlace(Path("/sys/fs/cgroup/unified/user.slice"), 2),
    ]
    assert list(cgroups._candidates(MIXED, "4:memory:/elsewhere\n")) == []
    alone = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    assert list(cgroups._candidates(alone, "0::/\n")) == [GroupPlace(Path("/sys/fs/cgroup"), 2)]


def delegated(folder: Path, *, controllers: str = "cpu memory", subtree: str = "", inside: int | None = None) -> Path:
    """What systemd hands over, as far as plain files can be that."""
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(subtree)
    (folder / "cgroup.procs").write_text(f"{inside or os.getpid()}\n")
    return folder


def test_the_worker_makes_room_in_a_group_that_was_delegated(tmp_path: Path) -> None:
    group = delegated(tmp_path / "agent.service")
    assert cgroups._delegated(group) == GroupPlace(group, 2)
    assert (group / cgroups.OWN / "cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory"
    assert cgroups._delegated(group / cgroups.OWN) == GroupPlace(group, 2)  # once it is there


@pytest.mark.parametrize("changes", [{"controllers": "cpu pids"}, {"inside": 1}])
def test_a_group_that_is_not_ours_is_left_alone(tmp_path: Path, changes: dict[str, int]) -> None:
    group = delegated(tmp_path / "session.scope", **changes)  # type: ignore[arg-type]
    with pytest.raises(PermissionError):
        cgroups._delegated(group)
    assert not (group / cgroups.OWN).exists()


def test_limits_of_version_2(tmp_path: Path) -> None:
    group = MemoryGroup(GroupPlace(tmp_path, 2), 512 << 20)
    (folder,) = tmp_path.iterdir()
    written = {file.name: file.read_text() for file in folder.iterdir()}
    assert written == {"memory.max": str(512 << 20), "memory.oom.group": "1"}
    assert group.kills() == 0
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 1\n")
    assert group.kills() == 3
    assert group.command(["bwrap", "x"])[3:] == [str(folder / "cgroup.procs"), "bwrap", "x"]


def test_groups_of_workers_that_are_gone_are_removed(tmp_path: Path) -> None:
    own, gone = (tmp_path / f"{cgroups.RUN}{name}-0" for name in (cgroups.identity(os.getpid()), "1-0"))
    own.mkdir()
    gone.mkdir()
    cgroups._remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [own]
