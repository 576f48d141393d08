"""`gpumarket recipe`, from an example to a trained model; and the measured throughput of this machine."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.errors import UserError
from contracts.job.file import read_job
from worker import recipes
from worker.cli.recipe import app
from worker.machine.hardware import measure_throughput, probe


def gpumarket_recipe(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def shorten(folder: Path) -> None:
    """Few steps: these tests are about the way, not the model."""
    job = folder / "job.yaml"
    text = job.read_text()
    for field, value in (("steps", 6), ("checkpoint_every", 2)):
        lines = [f"{field}: {value}" if line.startswith(f"{field}:") else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    job.write_text(text)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name != "digits" else ()) for name in recipes.NAMES]
)
def test_from_an_example_to_a_trained_model(name: str, tmp_path: Path) -> None:
    assert name in gpumarket_recipe("list")
    folder = tmp_path / "job"
    gpumarket_recipe("new", name, folder)
    shipped = read_job(folder)[0]
    shorten(folder)
    before = (folder / "job.yaml").read_text()
    found = json.loads(gpumarket_recipe("measure", folder, "--seconds", 1, "-o", "json"))
    job, spec = read_job(folder)
    assert job.units == found["units"] and shipped.units and shipped.measured_on
    assert job.measured_on is not None and job.measured_on.model_dump() == found["measured_on"]
    # Never less than the floating-point operations. What ships is for its own, longer checkpoints; both are rounded up.
    assert job.units >= found["flops_units"]
    assert 0.99 * found["flops_units"] <= shipped.units * 2 / shipped.checkpoint_every + 1 < 10 * found["flops_units"]
    # And what that machine could have done in the time.
    in_time = job.measured_on.seconds * job.measured_on.units_per_hour / 3600
    assert job.units >= 0.99 * in_time
    assert [line for line in (folder / "job.yaml").read_text().splitlines() if "units" not in line] == [
        line for line in before.splitlines() if "units" not in line
    ]

    gpumarket_recipe("run", folder, "--json", tmp_path / "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert whole["job"] == "0x" + spec.job_hash().hex()
    assert whole["units"] == found["flops_units"]
    assert sorted(map(int, whole["metrics"])) == list(range(1, 7))
    assert whole["state_root"] == whole["checkpoints"][-1]["state_root"]

    gpumarket_recipe("run", folder, "--steps", 4, "--json", tmp_path / "part.json", "--out", tmp_path / "out")
    part = json.loads((tmp_path / "part.json").read_text())
    assert [c["tip"] for c in part["checkpoints"]] == [c["tip"] for c in whole["checkpoints"][:2]]
    assert (tmp_path / "out" / part["checkpoints"][-1]["file"]).is_file()


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no example recipe 'digit'"):
        gpumarket_recipe("new", "digit", tmp_path / "job")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        gpumarket_recipe("new", "digits", tmp_path / "full")
    gpumarket_recipe("new", "digits", tmp_path / "job")
    with pytest.raises(UserError, match="--steps 150: checkpoint_every 100 does not divide"):
        gpumarket_recipe("run", tmp_path / "job", "--steps", 150)
    with pytest.raises(UserError, match="--steps 700 is more than the job's 600"):
        gpumarket_recipe("run", tmp_path / "job", "--steps", 700)


def test_the_machine_is_described_and_measured() -> None:
    machine = probe()
    assert machine.processors and machine.memory_mb > 0 and len(machine.hash()) == 32
    throughput = measure_throughput(seconds=1)
    assert 0 < throughput.slowest <= throughput.units_per_hour <= throughput.fastest
    assert throughput.spread >= 0
