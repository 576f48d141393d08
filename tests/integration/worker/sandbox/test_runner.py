"""Training in a child process: it resumes bit for bit, and whatever goes wrong has its kind."""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.recipes import toy_job
from worker.sandbox import bubblewrap
from worker.sandbox.limits import Limits
from worker.sandbox.runner import Runner
from worker.training.checkpoints import TakenCheckpoint
from worker.training.messages import Checkpoint, Done, Failed, Measured, Message, Ready, Stepped, Stopped

LIMITS = Limits(memory_mb=800, disk_mb=64, processes=64, start_seconds=100, hang_seconds=30)


@pytest.fixture(scope="module", autouse=True)
def needs_bubblewrap() -> None:
    if problem := bubblewrap.bubblewrap_problem():
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)


def train(
    runner: Runner, on_checkpoint: Callable[[TakenCheckpoint], None] = lambda taken: None
) -> tuple[list[Message], list[TakenCheckpoint]]:
    """All that a run says, and the checkpoints it makes."""
    said: list[Message] = []
    taken: list[TakenCheckpoint] = []
    with runner as run:
        for message in run.messages():
            said.append(message)
            if isinstance(message, Ready):
                run.go()
            if isinstance(message, Checkpoint):
                taken.append(run.take(message))
                on_checkpoint(taken[-1])
    return said, taken


def fail(tmp_path: Path, recipe: str, limits: Limits = LIMITS, **config: Any) -> Failed:
    spec = toy_job(tmp_path / "job", recipe, config={"at": 2} | config)
    said, _ = train(Runner(spec, tmp_path / "job", tmp_path / "work", limits=limits))
    assert isinstance(said[-1], Failed)
    return said[-1]


def test_a_job_killed_and_resumed_elsewhere_ends_in_the_same_state(tmp_path: Path) -> None:
    spec = toy_job(tmp_path / "job")
    whole = Runner(spec, tmp_path / "job", tmp_path / "whole", step_interval=0)
    assert whole.sandbox == "bubblewrap"
    said, taken = train(whole)
    assert isinstance(said[0], Measured) and said[0].numerics["threads"] == 1 and isinstance(said[1], Ready)
    steps = [message for message in said if isinstance(message, Stepped)]
    assert [message.step for message in steps] == list(range(1, 21))
    assert isinstance(said[-1], Done)
    assert [(c.index, c.step) for c in taken] == [(1, 4), (2, 8), (3, 12), (4, 16), (5, 20)]

    killed = Runner(spec, tmp_path / "job", tmp_path / "killed")
    said, saved = train(killed, lambda checkpoint: killed.kill() if checkpoint.index == 2 else None)
    # What had left the process before the kill is still taken.
    made = len(saved)
    assert isinstance(said[-1], Failed) and 2 <= made < 5

    resumed = Runner(
        spec, tmp_path / "job", tmp_path / "resumed", first=made + 1, state=saved[-1].path, step_interval=0
    )
    said, rest = train(resumed)
    assert [m.metrics for m in said if isinstance(m, Stepped)] == [m.metrics for m in steps[4 * made :]]
    assert [c.trace_root for c in saved + rest] == [c.trace_root for c in taken]
    assert [c.state_root() for c in saved + rest] == [c.state_root() for c in taken]


@pytest.mark.parametrize(
    ("recipe", "kind", "message"),
    [
        ("Missing", "recipe", "has no class 'Missing'"),
        ("Raises", "exception", "ValueError: no luck at step 2"),
        pytest.param("Exits", "exception", "SystemExit: 0", marks=pytest.mark.long),
        ("NotFinite", "nan", "step 2: loss is nan"),
        pytest.param("NoMetrics", "exception", "step 2 returned a float", marks=pytest.mark.long),
        ("Dies", "exit", "ended with code 7: last words"),
        ("EatsMemory", "memory", "can't allocate memory"),
        ("EatsMemoryBitByBit", "memory", "memory"),
    ],
)
def test_failures_have_a_kind(tmp_path: Path, recipe: str, kind: str, message: str) -> None:
    failed = fail(tmp_path, recipe)
    assert (failed.kind, message in failed.message) == (kind, True), failed
    if recipe == "Raises":
        assert 'recipe.py", line' in failed.traceback


def test_silence_is_a_hang(tmp_path: Path) -> None:
    failed = fail(tmp_path, "Hangs", Limits(memory_mb=800, hang_seconds=2))
    assert failed.kind == "hang"


@pytest.mark.parametrize("which", [0, -1], ids=["the sandbox", "the process in it"])
def test_who_is_killed_from_outside_did_not_run_out_of_memory(tmp_path: Path, which: int) -> None:
    spec = toy_job(tmp_path / "job", steps=100_000, checkpoint_every=50_000)
    with Runner(spec, tmp_path / "job", tmp_path / "work", limits=LIMITS) as run:
        for message in run.messages():
            if isinstance(message, Ready):
                # This process has other children: the chain, a database.
                bubblewrap = next(
                    child for child in psutil.Process().children(recursive=True) if child.name() == "bwrap"
                )
                [bubblewrap, *bubblewrap.children(recursive=True)][which].kill()
    assert isinstance(message, Failed) and message.kind == "killed", message


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "done"}',
        pytest.param('{"type": "ready", "flops": 1, "units": 1, "parameters": 1}', marks=pytest.mark.long),
        '{"type": "measured", "numerics": {"torch": "forged"}}',
        '{"type": "checkpoint", "index": 1, "step": 4, "path": "/etc/passwd", "metrics": {}, "seconds": 1, '
        '"trace_root": "0x' + "00" * 32 + '"}',
        "garbage",
        pytest.param("x" * 100_000, marks=pytest.mark.long, id="long"),
    ],
)
def test_a_lie_ends_the_run(tmp_path: Path, line: str) -> None:
    failed = fail(tmp_path, "Lies", line=line)
    assert failed.kind == "protocol", failed


def test_what_a_recipe_prints_is_log_and_never_message(tmp_path: Path) -> None:
    spec = toy_job(tmp_path / "job", "Chatty", config={"at": 2})
    limits = Limits(memory_mb=800, log_bytes=10_000)
    printed: list[bytes] = []
    runner = Runner(spec, tmp_path / "job", tmp_path / "work", limits=limits, printed=printed.append)
    said, taken = train(runner)
    assert isinstance(said[-1], Done) and len(taken) == 5
    log = (tmp_path / "work" / "log.txt").read_text()
    assert "first line" in log and "bytes dropped" in log and len(log) < 11_000
    assert "last line" in log and '{"type": "done"}' in log
    heard = b"".join(printed).decode()
    assert "first line" in heard and "last line" in heard and len(heard) > len(log)


def test_stop_ends_after_the_step(tmp_path: Path) -> None:
    spec = toy_job(tmp_path / "job", steps=100_000, checkpoint_every=50_000)
    with Runner(spec, tmp_path / "job", tmp_path / "work") as run:
        said = []
        for message in run.messages():
            said.append(message)
            if isinstance(message, Ready):
                run.go()
            if isinstance(message, Stepped):
                run.stop()
    assert isinstance(said[-1], Stopped) and 0 < said[-1].step < 50_000
    assert not list((tmp_path / "work").glob("checkpoint*"))


def test_stop_before_go(tmp_path: Path) -> None:
    spec = toy_job(tmp_path / "job")
    with Runner(spec, tmp_path / "job", tmp_path / "work") as run:
        messages = run.messages()
        assert isinstance(next(messages), Measured) and isinstance(next(messages), Ready)
        run.stop()
        assert next(messages) == Stopped(step=0)


def test_training_waits_for_its_checkpoints_to_be_taken_and_that_is_no_hang(tmp_path: Path) -> None:
    spec = toy_job(tmp_path / "job")
    limits = Limits(memory_mb=800, hang_seconds=10)
    with Runner(spec, tmp_path / "job", tmp_path / "work", limits=limits, ahead=1) as run:
        waiting: list[Checkpoint] = []
        while message := run.next_message(timeout=None if not waiting else 13):
            assert not isinstance(message, Failed), message
            if isinstance(message, Ready):
                run.go()
            if isinstance(message, Checkpoint):
                waiting.append(message)
        assert [checkpoint.index for checkpoint in waiting] == [1, 2]
        run.take(waiting[0])
        following = run.next_message(timeout=100)
        assert isinstance(following, Stepped) and following.step > 8


def test_a_checkpoint_that_found_the_disk_full_can_be_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy_job(tmp_path / "job")
    _, expected = train(Runner(spec, tmp_path / "job", tmp_path / "free"))
    room: list[bool] = [False, True, False]  # the state's file; both; the trace's file
    sync = os.fsync

    def fsync(file: int) -> None:
        if room and not room.pop():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    taken: list[TakenCheckpoint] = []
    monkeypatch.setattr("worker.sandbox.runner.os.fsync", fsync)
    with Runner(spec, tmp_path / "job", tmp_path / "full") as run:
        for message in run.messages():
            if isinstance(message, Ready):
                run.go()
            while isinstance(message, Checkpoint) and len(taken) < message.index:
                with contextlib.suppress(OSError):
                    taken.append(run.take(message))
    assert isinstance(message, Done) and not room
    assert [c.state_root() for c in taken] == [c.state_root() for c in expected]
    assert [c.trace() for c in taken] == [c.trace() for c in expected]


def alive(argument: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if argument in (process.info["cmdline"] or []):
            found.append(process)
    return found


def test_nothing_that_a_recipe_started_survives(tmp_path: Path) -> None:
    sleep = "98765.25"
    spec = toy_job(tmp_path / "job", "LeavesAProcess", config={"at": 2, "sleep": sleep})
    runner = Runner(spec, tmp_path / "job", tmp_path / "work", limits=LIMITS)
    seen = []
    said, _ = train(runner, lambda checkpoint: seen.extend(alive(sleep)))
    assert isinstance(said[-1], Done)
    assert seen and not alive(sleep)


def _until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def test_a_shipped_recipe_without_a_sandbox_imports_nothing_of_the_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy_job(tmp_path / "job", "ImportsSibling")
    (tmp_path / "job" / "sibling.py").write_text("")
    spec = spec.model_copy(update={"files": spec.files | {"sibling.py": spec.files["recipe.py"]}})
    said, taken = train(Runner(spec, tmp_path / "job", tmp_path / "inside"))
    assert isinstance(said[-1], Done) and len(taken) == 5

    monkeypatch.setattr(bubblewrap, "bubblewrap_problem", lambda: "bubblewrap is not installed")
    monkeypatch.setattr(bubblewrap, "SHIPPED", frozenset({spec.files["recipe.py"].sha256}))
    runner = Runner(spec, tmp_path / "job", tmp_path / "outside")
    assert runner.sandbox == "none"
    said, _ = train(runner)
    assert isinstance(said[-1], Failed) and "No module named 'sibling'" in said[-1].message


def test_shipped_recipes_train_without_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Runner(toy_job(tmp_path / "job"), tmp_path / "job", tmp_path / "inside")
    _, expected = train(inside)
    monkeypatch.setattr(bubblewrap, "bubblewrap_problem", lambda: "bubblewrap is not installed")
    monkeypatch.setattr(bubblewrap, "SHIPPED", frozenset({inside.spec.files["recipe.py"].sha256}))
    outside = Runner(inside.spec, tmp_path / "job", tmp_path / "outside")
    assert (inside.sandbox, outside.sandbox) == ("bubblewrap", "none")
    said, taken = train(outside)
    assert isinstance(said[-1], Done)
    assert [c.state_root() for c in taken] == [c.state_root() for c in expected]


def test_it_goes_no_further_than_a_checkpoint_that_was_taken_until_it_is_told(tmp_path: Path) -> None:
    spec = toy_job(tmp_path / "job")
    limits = Limits(memory_mb=800, hang_seconds=3)
    with Runner(spec, tmp_path / "job", tmp_path / "work", limits=limits, ahead=0) as run:
        held: Checkpoint | None = None
        while held is None:
            message = run.next_message(timeout=100)
            assert message is not None and not isinstance(message, Failed)
            if isinstance(message, Ready):
                run.go()
            if isinstance(message, Checkpoint):
                held = message
        assert run.take(held, go_on=False).path.exists()
        assert run.next_message(timeout=5) is None  # and that is no hang
        run.go_on(held.index)
        following = run.next_message(timeout=100)
        assert isinstance(following, Stepped) and following.step > held.step
