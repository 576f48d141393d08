"""A short run of bad luck, of eight kinds once each; scripts/chaos without options is the long one."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def run(file: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [ROOT / "scripts" / "chaos", *options, "--json", file],
        capture_output=True,
        text=True,
        timeout=1700,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    outcome: dict[str, Any] = json.loads(file.read_text())
    return outcome


def test_jobs_are_done_and_paid_once_whatever_happens(tmp_path: Path) -> None:
    outcome = run(tmp_path / "outcome.json", "--jobs", "2", "--events", "8", "--seed", "3")
    assert outcome["checkpoints_accepted"] == 2 * outcome["checkpoints_of_a_job"]
    assert set(outcome["kinds"].values()) == {1} and outcome["events"] + len(outcome["left_out"]) == 8
    assert outcome["events"] >= 6, outcome["left_out"]  # a small disk can't be mounted everywhere
    assert outcome["chain_restarts"] == 1 and outcome["restarts"] >= 4


def test_a_lie_is_not_paid_whatever_happens(tmp_path: Path) -> None:
    outcome = run(tmp_path / "outcome.json", "--audited", "--jobs", "3", "--events", "8", "--seed", "3")
    assert outcome["checkpoints_accepted"] == 3 * outcome["checkpoints_of_a_job"]
    assert outcome["kinds"]["kill_approver_after_challenge"] == 1
    assert outcome["verdict_false"] >= 1 and outcome["ruled_good"] >= 8
