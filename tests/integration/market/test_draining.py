"""Two escrows side by side: a lease on the old one ends and is paid while the market of the new one takes orders."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from contracts.api.access import Signer
from contracts.api.bodies import JobStatus
from contracts.api.client import MarketClient
from contracts.api.problems import Problem
from contracts.chain.client import Chain, connect
from contracts.chain.devnet.deployment import deploy
from contracts.chain.devnet.devnet import BOUNDS, accounts
from contracts.chain.sending.sender import Sender
from contracts.cli import main
from contracts.orders import Rules
from contracts.wallet import keys
from market.auction.clearing import Clearing
from market.runtime.settings import MarketSettings
from market.server import Server, open_context, works
from tests.support.devnet import TOKEN
from tests.support.market_parts import RECIPE, make_ask, make_bid, make_spec, signed_ask, signed_bid
from tests.support.whole_market import PASSWORD, PRICE, STAKE, Stage, StageOf, paid, stage_of, wait_for

__all__ = ["stage_of"]
pytestmark = pytest.mark.mostly_sqlite


def second_escrow(chain: Chain, rules: Rules) -> Chain:
    made = deploy(chain.w3, accounts()[0], BOUNDS)
    rules = rules.model_copy(update={"arbiter": made.arbiter})
    places = {"escrow": made.escrow, "token": made.token, "epoch_log": made.epoch_log, "arbiter": made.arbiter}
    return connect(chain.settings.model_copy(update={**places, "deploy_block": made.block, "rules": {"test": rules}}))


@contextmanager
def another_market(chain: Chain, folder: Path, stage: Stage) -> Iterator[Server]:
    """Of the same operator's key, on another escrow."""
    settings = MarketSettings(
        database_url=f"sqlite:///{folder / 'new.sqlite3'}", blob_dir=folder / "new", port=0, epoch_seconds=0.25,
        poll_seconds=0.2,
    )  # fmt: skip
    context = open_context(settings, chain.settings, Sender(chain, stage.matcher))
    server = Server(context, works())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for("the new market", context.caught_up.is_set)
    try:
        yield server
    finally:
        server.halt()
        thread.join(300)


def status(stage: Stage) -> Any:
    done = CliRunner().invoke(main.app, ["market", "status", "-o", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_market_drains_while_its_successor_takes_orders(
    stage_of: StageOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(timeout=360)
    monkeypatch.setenv("GPUMARKET_MARKET_DATABASE_URL", stage.database_url)
    keys.save("market", stage.matcher, PASSWORD, scrypt_n=2)
    job = stage.submit(checkpoints=4, pause=0.5)
    new = second_escrow(stage.chain, stage.rules)
    with another_market(new, tmp_path, stage) as successor, stage.approving(), stage.agent():
        lease = wait_for("its lease", lambda: stage.leases(job))[0]
        stage.stop_market()
        monkeypatch.setenv("GPUMARKET_MARKET_DRAINING", "true")
        monkeypatch.setenv("GPUMARKET_MARKET_SUCCESSOR", successor.url)
        stage.start_market()
        info = stage.market.info()
        assert info.draining and info.successor == successor.url and not stage.leases(job)[0].finished
        told = status(stage)
        assert told["leases"] == {"active": 1, "closing": 0, "challenged": 0} and not told["drained"]
        assert (int(told["stakes"]), told["successor"]) == (STAKE, successor.url)
        assert 0 < int(told["locked"]) <= 4 * PRICE and told["until"] is not None

        # Nobody gets in any more, and is told where to go.
        for call in (lambda: stage.submit(checkpoints=2, nonce=1), lambda: post_ask(stage)):
            with pytest.raises(Problem, match=f"takes no new orders.*{successor.url} takes its place") as refused:
                call()
            assert (refused.value.code, refused.value.status) == ("market_draining", 410)
            assert refused.value.extra["successor"] == successor.url

        # The new one opens a lease on its own escrow meanwhile.
        client, provider = stage.client, stage.provider
        with MarketClient(successor.url, signer=Signer(client, new.domain)) as api:
            taken = trade(new, api, successor, client, provider, tmp_path)
            wait_for("the new lease", lambda: api.job(taken).status is JobStatus.RUNNING)
            assert not api.info().draining and api.info().successor is None

        wait_for("the old lease's end", lambda: stage.job(job).status is JobStatus.DONE)
    assert [one.id for one in stage.leases(job)] == [lease.id] and paid(stage) == (4, 4)
    told = status(stage)
    assert told["drained"] and told["until"] is None and set(told["leases"].values()) == {0}
    assert (told["locked"], told["stakes"]) == ("0", "0")
    assert int(told["free"]) + int(told["burnt"]) == stage.chain.token_balance(stage.chain.escrow.address)


def post_ask(stage: Stage) -> None:
    ask = make_ask(stage.provider, stage.market.info().matcher, stage.rules)
    stage.market.post_ask(signed_ask(ask, stage.chain.domain, stage.provider))


def trade(chain: Chain, api: MarketClient, market: Server, client: Any, provider: Any, folder: Path) -> str:
    """A Bid and an Ask that fit, of people with a deposit on the new escrow. The job's id."""
    giver, rules = Sender(chain, accounts()[-1]), chain.settings.rule_set("test")
    for owner in (client, provider):
        giver.send(chain.faucet(giver.address, 100 * TOKEN))
        giver.send(chain.approve(100 * TOKEN))
        giver.send(chain.deposit(owner.address, 100 * TOKEN))
    matcher = market.context.matcher
    wait_for("the deposits", lambda: market.context.head.number >= chain.w3.eth.block_number)
    (folder / "new.py").write_bytes(RECIPE)
    api.put_blob(folder / "new.py")
    spec = make_spec()
    job = api.post_bid(signed_bid(make_bid(client, matcher, rules, spec), chain.domain, client, spec))
    api.post_ask(signed_ask(make_ask(provider, matcher, rules), chain.domain, provider))
    return job.id


def test_what_waits_is_told_that_it_waits_in_vain(stage_of: StageOf, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = stage_of()
    with monkeypatch.context() as patch:
        patch.setattr(Clearing, "epoch", lambda *_, **__: None)
        job = stage.submit()
        post_ask(stage)  # they fit
        stage.stop_market()
    with monkeypatch.context() as patch:
        patch.setenv("GPUMARKET_MARKET_DRAINING", "1")
        stage.start_market()
        told = wait_for("a reason", lambda: "opens no more leases" in stage.job(job).reason and stage.job(job))
        assert told.status is JobStatus.PENDING and "submit it at" not in told.reason and not stage.leases(job)
        with pytest.raises(Problem, match="it closes when those that live are over"):
            stage.submit(nonce=1)
        stage.stop_market()
    stage.start_market()  # its operator changes its mind
    wait_for("a lease", lambda: stage.leases(job))
