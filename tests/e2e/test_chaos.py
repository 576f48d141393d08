"""A short run of bad luck, of eight kinds once each; scripts/chaos without options is the long one."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def test_jobs_are_done_and_paid_once_whatever_happens(tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    done = subprocess.run(
        [ROOT / "scripts" / "chaos", "--jobs", "2", "--events", "8", "--seed", "3", "--json", file],
        capture_output=True,
        text=True,
        timeout=1700,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    outcome = json.loads(file.read_text())
    assert outcome["checkpoints_accepted"] == 2 * outcome["checkpoints_of_a_job"]
    assert set(outcome["kinds"].values()) == {1} and outcome["events"] + len(outcome["left_out"]) == 8
    assert outcome["events"] >= 6, outcome["left_out"]  # a small disk can't be mounted everywhere
    assert outcome["chain_restarts"] == 1 and outcome["restarts"] >= 4
