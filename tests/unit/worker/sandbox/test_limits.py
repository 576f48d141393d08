"""What a run uses is counted, and named where it is too much."""

import os
from pathlib import Path

import pytest

from contracts.types import MB
from worker.sandbox.limits import Limits, check_usage, descendants, folder_usage
from worker.training.failures import Failure


def test_usage_over_a_limit_is_a_failure(tmp_path: Path) -> None:
    check_usage(descendants(os.getpid()), tmp_path, Limits(memory_mb=1 << 20, processes=10_000))
    for kind, limits in {
        "memory": Limits(memory_mb=1),
        "processes": Limits(memory_mb=1 << 20, processes=0),
    }.items():
        with pytest.raises(Failure) as caught:
            check_usage(descendants(os.getpid()), tmp_path, limits)
        assert caught.value.kind == kind


def test_disk_use_counts_every_folder_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(100_000))
    (tmp_path / "everything").symlink_to("/usr")
    files, used = folder_usage(tmp_path, Limits())
    assert files == 4 and 100_000 <= used < 150_000


@pytest.mark.parametrize("limits", [Limits(disk_mb=1), Limits(files=10)])
def test_counting_ends_where_it_is_too_much(tmp_path: Path, limits: Limits) -> None:
    for number in range(300):
        (tmp_path / str(number)).write_bytes(bytes(8192))
    files, used = folder_usage(tmp_path, limits)
    assert files < 300
    assert files > limits.files or used > limits.disk_mb * MB
