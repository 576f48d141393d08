"""One key on two machines: both agents notice and say so, and neither takes the other's work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.api.bodies import JobStatus
from tests.support.whole_market import KEY, PASSWORD, Stage, StageOf, paid, terminate, wait_for

pytestmark = pytest.mark.mostly_sqlite


def copy_of(stage: Stage, to: Path) -> Path:
    """The home of the provider's agent as it stands, without the market's own files."""
    there = stage.home / "provider"
    shutil.copytree(there, to / "provider", ignore=shutil.ignore_patterns("*.partial", "*.lock", "out", "scratch"))
    for name in ("config.toml", "keys", "encryption"):
        source = stage.home / name
        if source.is_dir():
            shutil.copytree(source, to / name)
        elif source.exists():
            shutil.copy2(source, to / name)
    return to


def start(stage: Stage, home: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"GPUMARKET_HOME": str(home), "GPUMARKET_PASSWORD": PASSWORD}
    with open(home / "agent.log", "ab") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("gpumarket")), "provider", "start", "--key", KEY],
            env=environment, stderr=log, stdout=log,
        )  # fmt: skip
    stage.processes.append(process)
    return process


def told(home: Path) -> bool:
    return "another agent works with this key" in (home / "agent.log").read_text()


def waits(home: Path) -> list[str]:
    found: list[str] = json.loads((home / "provider" / KEY / "agent.json").read_text())["waits"]
    return found


def open_asks(stage: Stage) -> list[str]:
    return [ask.id for ask in stage.market.asks(provider=stage.provider.address, status="open")]


def test_both_notice_and_neither_offers_until_one_is_stopped(stage_of: StageOf, tmp_path: Path) -> None:
    stage = stage_of()
    first = stage.agent_process()
    (ask,) = wait_for("an Ask", lambda: open_asks(stage))
    copy = copy_of(stage, tmp_path / "copy")
    second = start(stage, copy)
    for home in (stage.home, copy):
        wait_for(f"the word of {home.name}", lambda home=home: told(home))
    wait_for("the Asks' end", lambda: not open_asks(stage))
    for home in (stage.home, copy):
        (why,) = wait_for("its reason", lambda home=home: waits(home))
        assert "another agent works with this key" in why
    assert terminate(second, 200) == 0 and terminate(first, 200) == 0
    (stage.home / "agent.log").unlink()
    stage.agent_process()  # it goes on alone
    wait_for("an Ask", lambda: open_asks(stage))
    assert ask not in open_asks(stage) and not told(stage.home)


@pytest.mark.long
def test_a_lease_that_the_other_works_on_is_left_alone(stage_of: StageOf, tmp_path: Path) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=8, pause=0.6)
    with stage.approving():
        stage.agent_process()
        wait_for("a checkpoint", lambda: stage.made() >= 1)
        copy = copy_of(stage, tmp_path / "copy")
        second = start(stage, copy)
        wait_for("the copy's leave", lambda: "lease.left" in (copy / "agent.log").read_text())
        wait_for("the first one's word", lambda: told(stage.home))
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
        assert terminate(second, 300) == 0
    assert len(stage.leases(job)) == 1 and paid(stage) == (8, 8)


@pytest.mark.long
def test_a_home_that_was_moved_goes_on(stage_of: StageOf, tmp_path: Path) -> None:
    stage = stage_of()
    first = stage.agent_process()
    wait_for("an Ask", lambda: open_asks(stage))
    first.kill()  # without a word: its Ask stands
    first.wait()
    moved = copy_of(stage, tmp_path / "moved")
    shutil.rmtree(stage.home / "provider")
    start(stage, moved)
    wait_for("another Ask", lambda: len(open_asks(stage)) == 2)
    job = stage.submit(checkpoints=2)
    with stage.approving():
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
    assert not told(moved)
