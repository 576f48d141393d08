"""Commands on a machine whose clock is wrong, while the market's and the chain's are right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.settings import write_config
from contracts.wallet import keys
from tests.support.recipes import SLOW
from tests.support.served_market import Stage, stage
from worker.training.environment import environment_id

__all__ = ["stage"]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SHIFTED = """
import datetime, sys, time
shift, real = float(sys.argv[1]), time.time
time.time = lambda: real() + shift
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)
datetime.datetime = Shifted
sys.argv = ["gpumarket", *sys.argv[2:]]
from contracts.cli.main import main
main()
"""
JOB = f"""
name: slow
recipe: recipe.py:Slow
environment: {environment_id()}
files: [recipe.py]
seed: 7
steps: 8
checkpoint_every: 4
units: 1000
max_price: "1"
stake: "20"
rules: unchecked
"""


@pytest.mark.parametrize(("shift", "told"), [(7200, "2 h ahead of"), (-7200, "2 h behind")])
def test_job_submit_names_the_clocks(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int, told: str
) -> None:
    home, job = tmp_path / "home", tmp_path / "job"
    job.mkdir()
    (job / "recipe.py").write_bytes(SLOW.read_bytes())
    (job / "job.yaml").write_text(JOB)
    monkeypatch.setenv("GPUMARKET_HOME", str(home))
    keys.save("me", stage.client, "open sesame", scrypt_n=2)
    write_config(home / "config.toml", stage.chain.settings, "For a test.")
    environment = os.environ | {"GPUMARKET_PASSWORD": "open sesame", "GPUMARKET_MARKET_URL": stage.api.url}

    def submit(seconds: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", SHIFTED, str(seconds), "job", "submit", str(job), "--key", "me", "--yes"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = submit(shift)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{told} the market's clock, " in done.stderr
    # How old the newest block is, depends on how fast the test is.
    assert re.search(rf"[12] h( \d+ min)? {told[4:]} the chain's newest block", done.stderr)
    assert "timedatectl" in done.stderr and "Traceback" not in done.stderr
    assert list(stage.api.jobs()) == []
    done = submit(0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(stage.api.jobs())) == 1
