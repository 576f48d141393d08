"""Whoever kills whom: signals reach nobody outside, and with a killed worker its runs end."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import ROOT
from tests.support.attack_runs import as_anybody, attack
from worker.sandbox import bubblewrap
from worker.sandbox.cgroups import identity
from worker.sandbox.podman import Podman


@as_anybody
def test_signals_reach_nobody_outside(tmp_path: Path, targets: dict[str, Any]) -> None:
    failed = attack(tmp_path, "Signals", **targets)
    assert failed.kind in ("exit", "killed"), failed  # it killed itself


@as_anybody
def test_it_dies_with_a_killed_worker(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from tests.support.attack_runs import job
from worker.training.messages import Ready
from worker.sandbox.runner import Runner
folder = Path({str(tmp_path)!r})
with Runner(job(folder / "job", "IgnoresTheEnd", {{}}), folder / "job", folder / "dies") as run:
    for message in run.messages():
        if isinstance(message, Ready):
            run.go()
            while len(members := list(run._sandbox.members(run._process))) <= 4:  # it digs itself in at step 2
                time.sleep(0.1)
            print("\\n".join(str(one.pid) for one in members), flush=True)
            print("all", flush=True)
"""
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pids = [int(line) for line in iter(worker.stdout.readline, "all\n")]
    members = [process for process in psutil.process_iter() if process.pid in pids]
    assert len(members) > 4
    worker.kill()
    worker.wait()
    worker.stdout.close()
    _, alive = psutil.wait_procs(members, timeout=60)
    assert alive == []


@pytest.mark.podman
def test_a_killed_workers_container_is_removed_by_the_next_run_and_no_living_ones(tmp_path: Path, podman: None) -> None:
    program = f"""
import sys
from pathlib import Path
from worker.sandbox.podman import Podman
from worker.sandbox.bubblewrap import Program
sandbox = Podman()
folder = Path({str(tmp_path)!r}) / sys.argv[1] / "out"
folder.mkdir(parents=True)
sleeps = [sys.executable, "-S", "-c", "print(flush=True); import time; time.sleep(1000)"]
run = sandbox.start(Program(sleeps, output=folder))
run.stdout.readline()
print(sandbox._name, flush=True)
sys.stdin.read()
sandbox.end(run)
"""
    workers = {
        name: subprocess.Popen([sys.executable, "-c", program, name], cwd=ROOT, text=True, stdin=-1, stdout=-1)
        for name in ("killed", "living")
    }
    names = {one: worker.stdout.readline().strip() for one, worker in workers.items() if worker.stdout}
    assert len(set(names.values())) == 2 and set(names.values()) <= _containers()
    workers["killed"].kill()
    workers["killed"].wait()
    assert set(names.values()) <= _containers()  # unlike bubblewrap's, it lives on

    one = Podman()
    process = one.start(bubblewrap.Program([sys.executable, "-S", "-c", ""]))
    assert process.wait(300) == 0
    one.end(process)
    assert _containers() & set(names.values()) == {names["living"]}
    workers["living"].communicate(timeout=300)
    assert not _containers() & set(names.values())
    assert not list((tmp_path / "living" / "scratch").iterdir())


def _containers() -> set[str]:
    listed = subprocess.run(["podman", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def test_a_process_is_told_from_a_later_one_of_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids come again, most of all where a worker is the first process of a container of its own."""
    own = identity(os.getpid())
    assert own and own.startswith(f"{os.getpid()}-") and own != identity(os.getppid())
    child = subprocess.Popen(["true"])
    child.wait()
    assert identity(child.pid) is None
