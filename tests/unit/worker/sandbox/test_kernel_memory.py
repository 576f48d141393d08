"""What a sandbox's processes hold of the kernel's memory, as it is counted while they go on."""

import psutil
import pytest

from worker.sandbox import kernel_memory
from worker.sandbox.kernel_memory import IN_FLIGHT, check_handles, open_handles
from worker.training.failures import Failure

ME = [psutil.Process()]


def look(monkeypatch: pytest.MonkeyPatch, before: int, after: int) -> None:
    """`before` and `after` the handles are looked at, so many sockets more are in use than processes hold."""
    held = len(open_handles(ME, 0, 10_000).sockets)
    in_use = iter((held + before, held + after))
    monkeypatch.setattr(kernel_memory, "_sockets_in_use", lambda pid: next(in_use))
    check_handles(open_handles(ME, 0, 10_000), ME, 10_000)


@pytest.mark.parametrize(("before", "after"), [(0, 500), (500, 0), (IN_FLIGHT, 500), (IN_FLIGHT, IN_FLIGHT)])
def test_sockets_that_come_or_go_meanwhile_are_nobodys_fault(
    monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    look(monkeypatch, before, after)


def test_sockets_that_nobody_holds_all_along(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failure, match="65 sockets are held by no process, 64 may be"):
        look(monkeypatch, IN_FLIGHT + 1, 500)
