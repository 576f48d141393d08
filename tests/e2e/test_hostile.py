"""What strangers do to a market, each attack against one of its own: `scripts/bench hostile`."""

import json
import subprocess
import sys

import pytest


@pytest.mark.long
def test_no_stranger_stops_or_fills_a_market() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bench", "hostile", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = {line["name"]: line["value"] for line in map(json.loads, done.stdout.splitlines())}
    assert figures["memory_growth_mb"] <= 150, figures
    assert figures["healthz_max_s"] < 10, figures  # it has answered all the time; how fast is for the benchmark
