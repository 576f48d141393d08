"""Market, approver, agent and commands at a node that limits what it is asked; and at one that gives no logs."""

import json
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from contracts.api.bodies import JobStatus
from contracts.chain.follower import Follower, Step
from contracts.cli import main
from contracts.wallet import keys
from tests.support.devnet import rpc
from tests.support.limited_node import LimitedNode, limited_node
from tests.support.whole_market import KEY, PASSWORD, Stage, StageOf, paid, stage_of, wait_for
from worker.agent import agent as agent_module

__all__ = ["limited_node", "stage_of"]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def stage(stage_of: StageOf, limited_node: LimitedNode, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Whoever connects to the node from now on is limited."""
    made = stage_of()
    made.settings = made.settings.model_copy(update={"rpc_url": limited_node.url})
    monkeypatch.setenv("GPUMARKET_RPC_URL", limited_node.url)
    monkeypatch.setenv("GPUMARKET_MARKET_URL", made.market.url)
    monkeypatch.setenv("GPUMARKET_PASSWORD", PASSWORD)
    return made


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main.app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.long
def test_a_job_by_way_of_a_limited_node(stage: Stage, limited_node: LimitedNode, status: int, tmp_path: Path) -> None:
    limited_node.allow_blocks(100, status, {"code": -32600, "message": "up to a 100 block range"})
    stage.stop_market()
    rpc(stage.chain, "anvil_mine", "0x190")
    stage.start_market()
    job = stage.submit(checkpoints=2)
    with stage.approving(), stage.agent(once=True) as agent:
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (2, 2)
    wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
    rpc(stage.chain, "anvil_mine", "0x190")
    (row,) = json.loads(run("provider", "earnings", "--key", KEY, "-o", "json"))["rows"]
    assert (row["checkpoints"], row["paid"]) == (2, str(2_000_000))
    keys.save("me", stage.client, PASSWORD, scrypt_n=2)
    (pulled,) = json.loads(run("job", "pull", job, str(tmp_path / "got"), "--key", "me", "-o", "json"))
    assert pulled["checkpoint"] == 2
    assert max(limited_node.ranges()) > 100  # it was tried, and refused
    run("provider", "selftest", "--key", KEY, "--measure-seconds", "0", "-o", "json")


ODD_LOGS = [
    {"result": None},
    pytest.param({"error": "block range too wide"}, marks=pytest.mark.long),
    pytest.param({"result": [None]}, marks=pytest.mark.long),
]


@pytest.mark.parametrize("said", ODD_LOGS)
def test_a_market_outlives_odd_answers(stage: Stage, limited_node: LimitedNode, said: dict[str, object]) -> None:
    """Whatever its node answers, it tells, asks again, and goes on when there are answers."""
    stage.stop_market()
    stage.start_market()
    for method in ("eth_getLogs", "eth_getBlockByNumber"):
        with capture_logs() as logs:
            limited_node.spoil(method, said)
            rpc(stage.chain, "evm_mine")
            wait_for("word of it", lambda: [line for line in logs if line["event"] == "indexer.chain_silent"])
            limited_node.rule = lambda asked: None
            assert stage.server.dead is None
            follows_again(stage)  # before its next trouble: one goes on until the next look
            assert not [line for line in logs if line["event"] in ("market.thread_failed", "indexer.failed")]


def follows_again(stage: Stage) -> None:
    head = int(stage.chain.w3.eth.block_number)
    wait_for("that it follows again", lambda: stage.server.context.head.number >= head)
    assert stage.server.dead is None


def test_a_market_outlives_what_nobody_thought_of(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Follower, until: int | None = None) -> list[Step]:
        raise ValueError("what a library makes of an answer")

    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(Follower, "poll", broken)
        wait_for("word of it", lambda: [line for line in logs if line["event"] == "indexer.failed"])
    follows_again(stage)


def test_a_job_by_way_of_a_node_that_answers_oddly(stage: Stage, limited_node: LimitedNode) -> None:
    """Market, agent and approver, each asked by nothing but such a node: of each kind of question a few go wrong."""
    stage.stop_market()
    stage.start_market()
    job = stage.submit(checkpoints=2)
    methods = ("eth_getLogs", "eth_getBlockByNumber", "eth_call", "eth_blockNumber", "eth_getTransactionReceipt")
    with stage.approving(), stage.agent(once=True) as agent:
        for said in ({"result": None}, {"result": "0x"}, {"error": "busy"}, {"result": 5}):
            for method in methods:
                limited_node.spoil(method, said, times=3)
                time.sleep(0.4)
        limited_node.rule = lambda asked: None
        agent.join(400)
        assert not agent.is_alive()
    assert paid(stage) == (2, 2)
    wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
    assert stage.server.dead is None


@pytest.mark.long
def test_no_ask_while_leases_cannot_be_looked_for(
    stage: Stage, limited_node: LimitedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "BLIND_SECONDS", 0.5)
    limited_node.allow_blocks(0, 400, "no logs here")
    job = stage.submit(checkpoints=2)
    with capture_logs() as logs, stage.approving(), stage.agent() as agent:
        trouble = wait_for("word of it", lambda: [line for line in logs if line["event"] == "chain.trouble"])
        wait_for("some rounds", lambda: len(limited_node.ranges()) > 30)
        assert "there is no Ask" in trouble[0]["problem"]
        assert "HTTP status 400 (Bad Request): no logs here" in trouble[0]["problem"]
        assert list(stage.market.asks()) == []
        limited_node.rule = lambda asked: None
        wait_for("the job's end", lambda: stage.job(job).status == JobStatus.DONE)
        # And one that stands is taken back.
        wait_for("an Ask", lambda: list(stage.market.asks(status="open")))
        page = stage.chain.account(stage.provider.address).page
        limited_node.allow_blocks(0, 400, "no logs here")
        wait_for("its end", lambda: stage.chain.account(stage.provider.address).page > page)
        assert agent.is_alive()
    told = [line["problem"] for line in logs if "there is no Ask" in str(line.get("problem"))]
    assert told == 2 * [trouble[0]["problem"]]  # once each time, though another block may be the one that is refused


def test_selftest_tries_the_node(stage: Stage, limited_node: LimitedNode) -> None:
    rpc(stage.chain, "anvil_mine", "0x190")
    stage.offer()
    shown = run("provider", "selftest", "--key", KEY, "--measure-seconds", "0", "-o", "json")
    node = {check["name"]: check for check in json.loads(shown)["checks"]}["node"]
    assert node["verdict"] == "ok" and "100 questions" in node["found"]
    limited_node.allow_blocks(100, 400, "too wide")
    shown = run("provider", "selftest", "--key", KEY, "--measure-seconds", "0", "-o", "json")
    node = {check["name"]: check for check in json.loads(shown)["checks"]}["node"]
    assert node["verdict"] == "warn" and "docs/operations.md" in node["mend"]
    limited_node.allow_blocks(0, 403, "no logs for you")
    result = CliRunner().invoke(main.app, ["provider", "selftest", "--key", KEY, "--measure-seconds", "0"])
    assert result.exit_code == 1
    assert "no logs for you" in result.stdout and "a single block" in result.stdout
