"""The worker agent on a real chain, with a real market: every way a lease can go, and who has the money then."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from contracts.api.bodies import JobStatus, RejectionIn
from contracts.chain.lookup import MarketLied
from contracts.errors import UserError
from contracts.orders import Rejection
from contracts.terms import Phase
from tests.support.devnet import pass_time
from tests.support.whole_market import KEY, StageOf, paid, terminate, wait_for
from worker.agent.agent import Agent
from worker.cli.local_run import train_locally
from worker.lease.folder import LeaseFolder
from worker.sandbox.output import OutputFolder

pytestmark = pytest.mark.mostly_sqlite


def test_a_lease_from_open_to_complete(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=3)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (3, 3)
    wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
    folder = stage.folder()
    assert (folder.file.goal, folder.file.made, folder.file.settled) == ("over", 3, 3)
    assert len(list(folder.work_folder.glob("*.trace"))) == 3
    # One transaction paid for all of it: approvals are redeemed once per half timeout, and at the end.
    (lease,) = stage.leases(job)
    assert lease.finished == "completed"


def test_a_job_that_is_killed_goes_on_from_its_newest_checkpoint(stage_of: StageOf, tmp_path: Path) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=6, pause=0.2)
    with stage.approving():
        process = stage.agent_process()
        wait_for("a checkpoint", lambda: stage.made() >= 1)
        (recipe,) = recipes_of(process.pid)
        recipe.kill()  # only what runs in the sandbox, as a kernel short of memory would
        wait_for("the end of that", lambda: "training.killed" in stage.log())
        first = stage.folder().file.made
        wait_for("a checkpoint of the next", lambda: stage.made() > first)
        process.kill()
        process.wait()
        before = stage.folder().file
        assert 2 <= before.made < 6
        again = stage.agent_process()
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
        assert terminate(again, 300) == 0
    assert paid(stage) == (6, 6)
    assert len(stage.leases(job)) == 1
    assert re.findall(r"training\.starts +after=(\d+)", stage.log()) == ["0", str(first), str(before.made)]
    spec = stage.job(job).spec
    record = train_locally(spec, stage.home / "job", tmp_path / "whole")
    tips = [one.checkpoint.tip for one in stage.market.checkpoints(job)]
    assert tips == [one["tip"] for one in record.checkpoints]


def recipes_of(agent: int) -> list[psutil.Process]:
    """The processes of an agent that run a recipe, without the sandbox around them."""
    children = psutil.Process(agent).children(recursive=True)
    return [one for one in children if one.name().startswith("python") and "worker.training.harness" in one.cmdline()]


def test_a_stopped_provider_hands_over_and_another_goes_on(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=10, pause=0.4)
    with stage.approving():
        process = stage.agent_process(finish_seconds=5)
        wait_for("a checkpoint", lambda: stage.made() >= 1)
        assert terminate(process, 300) == 0
        folder = stage.folder()
        assert folder.file.goal == "over", stage.log()
        done = folder.file.made
        assert 1 <= done < 10
        assert paid(stage) == (done, done)  # the stake and the rest of the client's money are free again
        assert stage.chain.account(stage.provider.address).page == 1  # no new lease on the old Ask
        (lease,) = wait_for("the market", lambda: [one for one in stage.leases(job) if one.finished])
        assert lease.finished == "closed"

        with stage.agent(once=True) as agent:
            agent.join(400)
            assert not agent.is_alive()
    assert paid(stage) == (10, 10)
    wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)


def test_a_silent_approver_is_passed_by_on_chain(stage_of: StageOf) -> None:
    stage = stage_of(window=3)
    job = stage.submit(checkpoints=2)
    with stage.agent(once=True, patience=0.5) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (2, 2)
    wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
    assert stage.folder().file.approval is None


def test_stopping_without_an_approver_claims_and_ends(stage_of: StageOf) -> None:
    stage = stage_of(window=40)
    stage.submit(checkpoints=5, pause=0.2)
    process = stage.agent_process(finish_seconds=2, release_wait=1)
    wait_for("a checkpoint", lambda: stage.made() >= 1)
    assert terminate(process, 300) == 0
    folder = stage.folder()
    state = stage.chain.state(folder.lease)
    assert (state.phase, state.claimed) == (Phase.CLOSING, folder.file.made)
    # After its window anyone closes it; here the market's keeper, or the provider at its next start.
    pass_time(stage.chain, 40)
    wait_for("the window", lambda: stage.chain.state(folder.lease).phase == Phase.CLOSED)
    assert paid(stage) == (folder.file.made, folder.file.made)


def test_a_failing_recipe_is_reported_and_costs_nobody_more_than_what_was_made(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=3, fail_at=6)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (1, 1)
    reports = list(stage.market.reports(job))
    assert [(one.report.kind, one.report.n) for one in reports[:1]] == [("failed", 2)]
    assert "no luck at step 6" in reports[0].text


def test_a_bid_that_understates_its_work_is_refused(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=3, units=1)
    with stage.approving(), stage.agent(once=True, units_per_hour=3600) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (0, 0)
    (report, *_) = stage.market.reports(job)
    assert report.report.kind == "failed" and "its Bid says 1" in report.text


def test_steps_of_more_than_the_signed_work_are_given_back_and_not_matched_again(stage_of: StageOf) -> None:
    """A step is signed with a quarter of a second, and takes four; of six checkpoints one may be made before."""
    stage = stage_of()
    job = stage.submit(checkpoints=6, pause=4)  # on a busy machine it counts as less
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    made = stage.folder().file.made
    assert made < 3 and paid(stage) == (made, made)
    assert (stage.folder().file.penalty, stage.folder().file.stops) == (0, "units")
    report = next(one for one in stage.market.reports(job) if one.report.kind != "log")
    assert report.report.kind == "units"
    assert re.match(r"its steps take 1\d\.\d times the work that was signed \(2 times is allowed\)", report.text)
    with stage.agent():  # another Ask of the same provider
        waits = wait_for("the next epoch", lambda: (now := stage.job(job)).reason.startswith("1 prov") and now)
    assert re.match(r"1 provider gave it back: its steps take 1\d\.\d times .*gpumarket job reprice", waits.reason)
    assert (waits.status, waits.failures, len(waits.leases)) == (JobStatus.PENDING, 0, 1)
    assert waits.leases[0].stops == "units"


def test_a_checkpoint_that_would_come_too_late_is_given_up_at_no_cost(stage_of: StageOf) -> None:
    stage = stage_of(timeout=45)
    job = stage.submit(checkpoints=2, pause=10)
    with stage.approving(), stage.agent(once=True, margin=15) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (0, 0)
    assert stage.folder().file.penalty == 0
    reports = list(stage.market.reports(job))
    assert {one.report.kind for one in reports} == {"release"}  # no fault of the recipe
    assert "would come after the deadline" in reports[0].text


@pytest.mark.long
def test_a_recipe_that_hangs_is_given_up_for_that(stage_of: StageOf) -> None:
    stage = stage_of(timeout=30)
    job = stage.submit(checkpoints=2, hang_at=6)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (1, 1)
    assert stage.folder().file.penalty == 0
    reports = list(stage.market.reports(job))
    assert reports[0].report.kind == "failed"
    assert "hang: the recipe has been silent" in reports[0].text


def test_a_rejected_checkpoint_is_not_claimed(stage_of: StageOf) -> None:
    stage = stage_of(window=2)
    job = stage.submit(checkpoints=8, pause=0.1)
    with stage.agent(once=True, release_wait=2) as agent:
        first = wait_for("a report", lambda: list(stage.market.checkpoints(job)))[0]
        rejection = Rejection(lease=first.lease, n=1, tip=first.checkpoint.tip, reason="too good to be true")
        signature = rejection.sign(stage.chain.domain, stage.approver)
        stage.market.post_rejection(RejectionIn(rejection=rejection, signature=signature))
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (0, 0)
    assert stage.folder().file.rejected == 1
    assert "too good to be true" in next(iter(stage.market.reports(job))).text


def test_training_goes_on_while_the_market_is_away(stage_of: StageOf) -> None:
    stage = stage_of()
    job = stage.submit(checkpoints=6, pause=0.15)
    with stage.approving(), stage.agent(once=True) as agent:
        wait_for("a checkpoint", lambda: stage.made() >= 1)
        stage.stop_market()
        made = stage.made()
        wait_for("two more", lambda: stage.made() >= made + 2)
        stage.start_market()
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (6, 6)
    wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)


def test_a_full_disk_is_waited_for(stage_of: StageOf, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of()
    stage.submit(checkpoints=2)
    refused: list[str] = []

    def when_there_is_room(what: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def act_or_refuse(*arguments: Any) -> Any:
            if what not in refused:
                refused.append(what)
                raise OSError(errno.ENOSPC, "No space left on device")
            return act(*arguments)

        return act_or_refuse

    monkeypatch.setattr(OutputFolder, "take", when_there_is_room("state", OutputFolder.take))
    monkeypatch.setattr(LeaseFolder, "add_checkpoint", when_there_is_room("record", LeaseFolder.add_checkpoint))
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert refused == ["state", "record"]
    assert paid(stage) == (2, 2)


def test_a_market_that_lies_gets_no_training(stage_of: StageOf, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of(window=2)
    stage.submit(checkpoints=2)

    def lie(*_: object) -> None:
        raise MarketLied("the job on chain is 0x01, but the market gives 0x02")

    monkeypatch.setattr("worker.lease.discovery.verify_lease", lie)
    with stage.agent(once=True, release_wait=2) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (0, 0)
    assert stage.folder().file.reason.startswith("the market lied")
    assert not list(stage.folder().work_folder.glob("log.txt"))


def test_one_agent_a_key(stage_of: StageOf) -> None:
    stage = stage_of()
    with stage.agent():
        wait_for("the Ask", lambda: list(stage.market.asks()))
        second = Agent(KEY, stage.offer(), stage.chain, stage.provider, stage.encryption)
        with pytest.raises(UserError, match="running for"):
            second.run()
