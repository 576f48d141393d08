"""Anyone who may read a job replays what is claimed on chain, by `gpumarket audit watch`, and challenges a lie."""

import pytest
from typer.testing import CliRunner

from contracts.audits.levels import CLOSED
from contracts.cli import main
from contracts.job.file import hash_file
from contracts.terms import Phase
from contracts.wallet import keys
from tests.support.devnet import TOKEN, pass_time
from tests.support.lying import claimed, lying
from tests.support.recipes import SLOW
from tests.support.whole_market import FREE, PASSWORD, PRICE, STAKE, Stage, StageOf

pytestmark = pytest.mark.mostly_sqlite


def watch(stage: Stage, *options: str, code: int = 0) -> str:
    command = ["audit", "watch", "--once", "--key", "watcher", "--market", stage.market.url, *options]
    done = CliRunner().invoke(main.app, command)
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    return done.stdout


def test_a_lie_on_chain_is_told_and_challenged(stage_of: StageOf, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = CLOSED.model_copy(update={"recipes": (hash_file(SLOW).sha256,)})
    stage = stage_of(window=900, timeout=1_200, verification=listed)
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    keys.save("watcher", stage.client, PASSWORD, scrypt_n=2)
    job = stage.submit(checkpoints=2)
    assert watch(stage) == ""  # nothing is claimed yet
    with lying(at=2), stage.agent(patience=0):
        lease = claimed(stage, job, 2)

    said = watch(stage, job[:12], code=3).splitlines()
    assert said[0] == f"equal: checkpoint 1 of lease {lease.id}, by {stage.provider.address}"
    assert said[1].startswith(f"differs: checkpoint 2 of lease {lease.id}, by {stage.provider.address}: 1 of the")
    bond, reward = (stage.chain.format_amount(one) for one in (1 + 2 * PRICE, (STAKE - 1) // 5))
    assert said[2].startswith(
        f"a challenge takes a bond of {bond}; if the arbiter says the same: a reward of {reward};"
    )
    assert stage.chain.dispute(lease.id) is None

    said = watch(stage, "--challenge", code=3).splitlines()
    dispute = stage.chain.dispute(lease.id)
    assert dispute is not None and said[-1] == f"challenged: dispute {dispute.id}, bond {bond}"
    assert (dispute.challenger, dispute.bond) == (stage.client.address, 1 + 2 * PRICE)
    assert stage.chain.state(lease.id).phase is Phase.CHALLENGED
    assert watch(stage) == ""  # it is in dispute, and no more to be challenged


@pytest.mark.long
def test_a_claim_whose_window_is_nearly_over_is_left_alone(
    stage_of: StageOf, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = stage_of(window=900, timeout=1_200)
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    keys.save("watcher", stage.client, PASSWORD, scrypt_n=2)
    job = stage.submit(checkpoints=1)
    with stage.agent(patience=0):
        lease = claimed(stage, job, 1)
    pass_time(stage.chain, 840)
    assert watch(stage, "--challenge") == ""
    assert stage.chain.state(lease.id).phase is Phase.ACTIVE
    assert stage.free(stage.client) <= FREE - TOKEN
    assert "left to challenge what is claimed" in capfd.readouterr().err
