"""The worker agent when the chain takes blocks back, and while it waits for what it can't."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts.chain.client import Chain
from contracts.chain.lookup import lease_events
from contracts.chain.sending.lane import close_lanes
from tests.support.devnet import rpc
from tests.support.whole_market import Stage, StageOf, paid, wait_for
from worker.lease.trainer import Training

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def take_back(stage: Stage) -> None:
    """Everything from the block in which the lease was opened on, and what would send it again."""
    stage.stop_market()
    close_lanes()
    depth = stage.chain.w3.eth.block_number - stage.folder().file.opened_block + 2  # a block may come meanwhile
    rpc(stage.chain, "anvil_reorg", depth, [])


def noted_trainings(monkeypatch: pytest.MonkeyPatch, at_start: Callable[[], None] = lambda: None) -> list[Training]:
    """A list that each training is added to, when it starts."""
    found: list[Training] = []
    train = Training._train

    def noted(self: Training, job: Any) -> Any:
        found.append(self)
        at_start()
        return train(self, job)

    monkeypatch.setattr(Training, "_train", noted)
    return found


def test_a_lease_that_vanishes_is_worked_for_again_when_it_returns(
    stage_of: StageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = noted_trainings(monkeypatch)
    stage = stage_of()
    stage.submit(checkpoints=20, pause=0.3)
    with capture_logs() as logs, stage.approving(), stage.agent(once=True, margin=2) as agent:
        wait_for("a checkpoint", lambda: stage.made() >= 1)
        take_back(stage)
        wait_for("its absence", lambda: any(line["event"] == "lease.vanished" for line in logs))
        lease = stage.folder().lease
        wait_for("the end of the step that was on its way", lambda: not trainings[-1].is_alive())
        made = stage.made()
        time.sleep(2)
        assert (stage.made(), stage.folder().file.goal) == (made, "training")
        assert made < 20
        stage.start_market()
        wait_for("its return", lambda: any(line["event"] == "lease.came_back" for line in logs))
        agent.join(400)
        assert not agent.is_alive()
    assert stage.folder().lease == lease
    assert paid(stage) == (20, 20)


def test_work_starts_when_its_lease_is_final_and_ends_when_its_pay_is(
    chain: Chain, stage_of: StageOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    finality = {"confirmations_base": 5, "confirmations_max": 5}
    chain.settings = chain.settings.model_copy(update=finality)
    stage = stage_of()
    stage.submit(checkpoints=2)
    started: list[int] = []
    noted_trainings(monkeypatch, lambda: started.append(stage.chain.w3.eth.block_number))
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    ended = stage.chain.w3.eth.block_number
    file = stage.folder().file
    assert started[0] - file.opened_block >= 5
    paid_at = lease_events(stage.chain, stage.folder().lease, file.opened_block)[-1].at.block
    assert ended - paid_at >= 5
    assert (file.goal, file.vanished, paid(stage)) == ("over", False, (2, 2))
