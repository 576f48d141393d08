"""A claimed checkpoint of a real market is trained again by who may read it: equal, or told where it differs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from typer.testing import CliRunner

from contracts.api.bodies import BidIn, CheckpointStatus, JobStatus
from contracts.cli import main
from contracts.commitment import trace_root
from contracts.types import to_hex
from contracts.wallet import keys
from market.store.models import CheckpointRow
from tests.support.recipes import JUDGED
from tests.support.whole_market import PASSWORD, Stage, StageOf, wait_for
from worker.sandbox.runner import Runner
from worker.training.environment import CPU_LIBRARIES
from worker.training.messages import HarnessConfig

pytestmark = pytest.mark.mostly_sqlite


def trained(stage: Stage, job: str) -> None:
    """All of a job, by an agent of this process and with an approver."""
    with stage.approving(), stage.agent():
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)


def replay(job: str, checkpoint: int, *options: str, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(main.app, ["replay", job, str(checkpoint), "-o", "json", *options])
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def with_key_of_client(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.save("client", stage.client, PASSWORD, scrypt_n=2)
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    monkeypatch.setenv("GPUMARKET_MARKET_URL", stage.market.url)


def checks(found: dict[str, Any]) -> dict[str, Any]:
    return {check["name"]: check["holds"] for check in found["checks"]}


def test_an_honest_checkpoint_is_equal_and_a_lie_is_told(
    stage_of: StageOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of()
    with_key_of_client(stage, monkeypatch)
    honest = stage.submit(checkpoints=2)
    trained(stage, honest)
    records = [one.checkpoint for one in stage.market.checkpoints(honest)]

    found = replay(honest, 2, "--trace", str(tmp_path / "trace"), "--keep", str(tmp_path / "kept"))
    record = records[1]
    assert (found["verdict"], found["first_step"], found["last_step"]) == ("equal", 5, 8)
    assert found["before"] == records[0].tip
    for name in ("state_root", "trace_root", "root", "tip", "numerics", "metrics"):
        assert found["replayed"][name] == found["claimed"][name] == getattr(record, name), name
    digests = (tmp_path / "trace").read_bytes()
    assert to_hex(trace_root(digests[at : at + 32] for at in range(0, len(digests), 32))) == record.trace_root
    assert json.loads((tmp_path / "kept" / "replay.json").read_text()) == found
    assert (tmp_path / "kept" / "work" / "checkpoint-00002.safetensors").is_file()
    assert list((tmp_path / "replays").glob("*")) == []

    whole = replay(honest, 1, "--mode", "validate")
    assert (whole["verdict"], whole["replayed"]) == ("consistent", None)
    assert checks(whole) == dict.fromkeys(
        ("job", "signature", "step", "root", "chain", "tips", "state_root", "state"), True
    ) | {"trace": None}

    with monkeypatch.context() as liar:
        config = Runner._config

        def other_seed(runner: Runner) -> HarnessConfig:
            return config(runner).model_copy(update={"seed": 8})

        liar.setattr(Runner, "_config", other_seed)
        lie = stage.submit(checkpoints=1, nonce=1)
        trained(stage, lie)
    # Its maker has kept the digests, so that it is told from which step on it differs.
    found = replay(lie, 1, "--key", "rig", code=3)
    assert found["verdict"] == "differs" and found["why"].startswith("step 1 is the first that differs; ")
    told = found["difference"]
    assert (told["step"], told["tensors_unlike"], told["tensors"][0]["name"]) == (1, 6, "model/bias")
    assert told["metrics"]["loss"]["claimed"] != told["metrics"]["loss"]["replayed"]
    assert checks(found)["trace"] is True and checks(found)["state_root"] is False
    # Its hashes are consistent all the same: no hash tells what was trained.
    assert replay(lie, 1, "--mode", "validate")["verdict"] == "consistent"

    with monkeypatch.context() as other:
        other.setitem(CPU_LIBRARIES, "ATEN_CPU_CAPABILITY", "default")
        found = replay(honest, 1, code=5)
    assert found["verdict"] == "not_here" and "cpu_capability 'DEFAULT' here, " in found["why"]

    # Reported to the market as another than the chain has: the chain's is looked for.
    with stage.server.context.db.session() as session:
        row = session.exec(select(CheckpointRow).where(CheckpointRow.bid == honest, CheckpointRow.n == 2)).one()
        true, other = dict(row.record), "0x" + "77" * 20
        row.record, row.tip = {**true, "tip": other}, other
    done = CliRunner().invoke(main.app, ["replay", honest, "2"])
    assert done.exit_code == 1
    assert f"the chain has the tip {record.tip} of checkpoint 2, and the market no record of it" in done.stderr
    found = replay(honest, 2, "--tip", "0x7777", code=3)
    assert found["verdict"] == "inconsistent" and checks(found)["chain"] is None
    shown = list(stage.market.checkpoints(honest))[1]
    assert (shown.status, record.tip in shown.reason) == (CheckpointStatus.REPORTED, True)
    with stage.server.context.db.session() as session:
        row = session.exec(select(CheckpointRow).where(CheckpointRow.bid == honest, CheckpointRow.n == 2)).one()
        row.record, row.tip = true, record.tip

    for blob in (stage.home / "blobs").rglob(records[0].state.sha256.removeprefix("0x")):
        blob.unlink()
    found = replay(honest, 2, code=4)
    assert found["verdict"] == "withheld" and found["why"].startswith("the state of checkpoint 1, to go on from, ")
    assert replay(honest, 1, "--mode", "validate", code=4)["verdict"] == "withheld"


def test_what_is_not_there_is_an_error(stage_of: StageOf, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of()
    with_key_of_client(stage, monkeypatch)
    job = stage.submit(checkpoints=2)
    for arguments, told in (
        ([job, "3"], f"job {job} has no checkpoint 3"),
        ([job, "1"], f"nobody has claimed checkpoint 1 of job {job} yet"),
        (["0x" + "77" * 32, "1"], "77"),
    ):
        done = CliRunner().invoke(main.app, ["replay", *arguments])
        assert (done.exit_code, told in done.stderr) == (1, True), (done.exit_code, done.output)
    assert CliRunner().invoke(main.app, ["replay", job, "0"]).exit_code == 2


@pytest.mark.long
def test_a_stretch_after_another_provider_with_evaluation_and_early_stop(
    stage_of: StageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lease a checkpoint: each goes on from the state that the market has of the one before."""
    stage = stage_of()
    with_key_of_client(stage, monkeypatch)
    job = stage.submit(checkpoints=3, source=JUDGED, recipe="Judged", judged=[3.0, 2.0, 1.0])
    with stage.approving(), stage.agent(max_checkpoints=1):
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
    assert len(stage.leases(job)) == 3
    for index in (1, 2, 3):
        found = replay(job, index)
        assert found["verdict"] == "equal"
        assert any(name.startswith("eval_") for name in found["replayed"]["metrics"])


@pytest.mark.long
def test_a_recipe_that_fails_when_it_is_honestly_run(stage_of: StageOf, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of()
    with_key_of_client(stage, monkeypatch)
    with monkeypatch.context() as liar:
        config = Runner._config

        def unharmed(runner: Runner) -> HarnessConfig:
            return config(runner).model_copy(update={"config": {"pause": 0}})

        liar.setattr(Runner, "_config", unharmed)
        job = stage.submit(checkpoints=1, fail_at=3)
        trained(stage, job)
    found = replay(job, 1, code=6)
    assert found["verdict"] == "failed" and found["why"] == "ValueError: no luck at step 3 (exception)"


@pytest.mark.long
def test_a_replay_that_is_interrupted_leaves_nothing(
    stage_of: StageOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of()
    with_key_of_client(stage, monkeypatch)
    job = stage.submit(checkpoints=1, pause=2.0)
    with stage.agent():
        wait_for("the claim", lambda: list(stage.market.checkpoints(job)))
    command = [str(Path(sys.executable).with_name("gpumarket")), "replay", job, "1", "-o", "json"]
    process = subprocess.Popen(command, env=os.environ | {"GPUMARKET_HOME": str(tmp_path)}, stdout=subprocess.PIPE)
    wait_for("its sandbox", lambda: list((tmp_path / "replays").glob("*/*/out")))
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    assert (process.returncode, said) == (130, b"")
    assert list((tmp_path / "replays").glob("*")) == []
    assert next(stage.market.checkpoints(job)).status is CheckpointStatus.REPORTED


@pytest.mark.long
def test_a_job_that_goes_on_from_another_one(stage_of: StageOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first stretch begins with the state of the earlier job's last checkpoint."""
    stage = stage_of()
    with_key_of_client(stage, monkeypatch)
    earlier = stage.job(stage.submit(checkpoints=1))
    trained(stage, earlier.id)
    (last,) = [one.checkpoint for one in stage.market.checkpoints(earlier.id)]
    spec = earlier.spec.model_copy(update={"start_step": last.step})
    changes = {"job": to_hex(spec.job_hash()), "start_tip": last.tip, "nonce": 1}
    bid = earlier.bid.model_copy(update=changes)
    signature = bid.sign(stage.chain.domain, stage.client)
    later = stage.market.post_bid(BidIn(bid=bid, signature=signature, spec=spec)).id
    trained(stage, later)
    found = replay(later, 1)
    assert (found["verdict"], found["first_step"], found["before"]) == ("equal", last.step + 1, last.tip)
