"""What a recipe can say and leave: lies, silence and strange files end its run and are not taken."""

import fcntl
import json
from pathlib import Path

import pytest

from tests.support.attack_runs import SECRET, attack
from worker.sandbox.limits import Limits
from worker.sandbox.runner import Runner


@pytest.mark.parametrize(
    "what",
    ["symlink", "fifo", "trace", "long trace"]
    + [pytest.param(what, marks=pytest.mark.long) for what in ("folder", "socket", "hard link", "device", "sparse")],
)
def test_a_checkpoint_that_is_something_else_is_not_taken(tmp_path: Path, what: str) -> None:
    secret = tmp_path / "key"
    secret.write_text(SECRET)
    failed = attack(tmp_path, "SwapsCheckpoint", what=what, target=str(secret), at=4)
    assert failed.kind in ("protocol", "exit", "disk", "exception"), failed
    assert not list((tmp_path / "work").glob("checkpoint*"))
    assert secret.read_text() == SECRET


def test_who_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    def shrink(run: Runner) -> None:
        """The pipe to the recipe; 64 KiB take it minutes to fill. The recipe itself is not allowed to."""
        assert run._process is not None and run._process.stdin is not None
        fcntl.fcntl(run._process.stdin, fcntl.F_SETPIPE_SZ, 4096)

    failed = attack(tmp_path, "Deaf", steps=4 * 200, before=shrink)
    assert (failed.kind, failed.message) == ("protocol", "the training process does not listen")


@pytest.mark.long
def test_a_pipe_that_is_closed_is_silence(tmp_path: Path) -> None:
    limits = Limits(memory_mb=800, hang_seconds=2)
    assert attack(tmp_path, "Lies", limits=limits, lines=[], close=True).kind == "hang"


def test_what_follows_the_last_word_is_not_heard(tmp_path: Path) -> None:
    last = {"type": "failed", "kind": "nan", "message": "\x1b[31mred"}
    failed = attack(tmp_path, "Lies", lines=[json.dumps(last).encode().hex(), b'{"type": "done"}'.hex()])
    assert (failed.kind, failed.message) == ("nan", "\N{REPLACEMENT CHARACTER}[31mred")
