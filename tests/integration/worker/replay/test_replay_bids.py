"""An audit is a job: a checkpoint of another's job, trained again for its approver, comes out bit for bit."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import pytest
from eth_account.signers.local import LocalAccount

from contracts.api.access import Signer
from contracts.api.bodies import BidIn, CheckpointRecord, JobOut, JobStatus
from contracts.api.client import MarketClient
from contracts.audits.replays import replay_spec
from contracts.chain.client import connect
from contracts.chain.sending.sender import Sender
from contracts.orders import Bid
from contracts.types import ZERO_TIP, to_hex
from contracts.wallet import encryption_keys, keys
from market.store.models import UploadRow
from market.verify.verify import verify
from tests.support.devnet import Funded
from tests.support.whole_market import PASSWORD, PRICE, TOKEN, Stage, StageOf, wait_for
from worker.agent.agent import Agent
from worker.settings import write_provider_settings

pytestmark = pytest.mark.mostly_sqlite


def deposit(stage: Stage, key: LocalAccount, amount: int) -> None:
    sender, chain = Sender(stage.chain, key), stage.chain
    for call in (chain.faucet(key.address, amount), chain.approve(amount), chain.deposit(key.address, amount)):
        sender.send(call)


@contextlib.contextmanager
def auditing(stage: Stage, key: LocalAccount) -> Iterator[None]:
    """Another provider's agent."""
    keys.save("auditor", key, PASSWORD, scrypt_n=2)
    with patch.multiple(encryption_keys, OPSLIMIT=1 << 15, MEMLIMIT=1 << 24):
        encryption = encryption_keys.load_or_create("auditor", PASSWORD)
    offer = stage.offer(grace_seconds=20.0)
    write_provider_settings("auditor", offer)
    agent = Agent("auditor", offer, connect(stage.settings), key, encryption)
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        agent.stop()
        thread.join(300)
        assert not thread.is_alive()


def post_replay(stage: Stage, market: MarketClient, job: JobOut, index: int, nonce: int, provider: str) -> JobOut:
    """By the job's approver."""
    records = {one.checkpoint.index: one.checkpoint for one in market.checkpoints(job.id)}
    spec = replay_spec(job.spec, index, [provider])
    fields: dict[str, Any] = {
        "client": stage.approver.address,
        "approver": stage.approver.address,
        "job": to_hex(spec.job_hash()),
        "start_tip": records[index - 1].tip if index > 1 else job.bid.start_tip,
        "checkpoints": 1,
        "nonce": nonce,
    }
    bid = Bid.model_validate(job.bid.model_dump() | fields)
    return market.post_bid(BidIn(bid=bid, signature=bid.sign(stage.chain.domain, stage.approver), spec=spec))


def go_on(stage: Stage, earlier: JobOut, checkpoints: int, nonce: int) -> JobOut:
    """A follow-up job of the client's."""
    last = list(stage.market.checkpoints(earlier.id))[-1].checkpoint
    steps = checkpoints * earlier.spec.checkpoint_every
    spec = earlier.spec.model_copy(update={"start_step": last.step, "steps": steps})
    fields = {"job": to_hex(spec.job_hash()), "start_tip": last.tip, "checkpoints": checkpoints, "nonce": nonce}
    bid = earlier.bid.model_copy(update=fields)
    return stage.market.post_bid(BidIn(bid=bid, signature=bid.sign(stage.chain.domain, stage.client), spec=spec))


def ended(stage: Stage, jobs: Sequence[JobOut]) -> bool:
    return all(stage.job(job.id).status == JobStatus.DONE for job in jobs)


def record_of(stage: Stage, job: JobOut, index: int) -> CheckpointRecord:
    return next(one.checkpoint for one in stage.market.checkpoints(job.id) if one.checkpoint.index == index)


def test_a_replay_of_anothers_checkpoint_is_equal(stage_of: StageOf, funded: Funded) -> None:
    stage = stage_of()
    (auditor,) = funded(1, free=100 * TOKEN)
    deposit(stage, stage.approver, 20 * PRICE)
    with stage.approving(), stage.agent():
        first = stage.job(stage.submit(checkpoints=3))
        wait_for("the first job's end", lambda: ended(stage, [first]))
        later = go_on(stage, first, 2, nonce=1)
        wait_for("the later job's end", lambda: ended(stage, [later]))
    blobs = {record_of(stage, job, n).state.sha256 for job, n in ((first, 1), (first, 3), (later, 1))}

    with MarketClient(stage.market.url, signer=Signer(stage.approver, stage.chain.domain)) as market:
        drawn = [(first, 1), (first, 3), (later, 1)]
        replays = [
            post_replay(stage, market, job, index, nonce, auditor.address) for nonce, (job, index) in enumerate(drawn)
        ]
    assert [one.bid.start_tip == ZERO_TIP for one in replays] == [True, False, False]
    assert [one.spec.start_step for one in replays] == [None, 8, 12]
    assert not any(stage.server.context.blobs.size(sha256) is None for sha256 in blobs)
    with stage.approving(), stage.agent(), auditing(stage, auditor):
        wait_for("the replays' end", lambda: ended(stage, replays))

    for (job, index), replay in zip(drawn, replays, strict=True):
        claimed, again = record_of(stage, job, index), record_of(stage, replay, 1)
        (lease,) = stage.leases(replay.id)
        assert (lease.provider, lease.bid.client) == (auditor.address, stage.approver.address)
        assert (again.state_root, again.trace_root, again.step) == (
            claimed.state_root,
            claimed.trace_root,
            claimed.step,
        )
        assert (again.root == claimed.root) is (again.tip == claimed.tip) is False  # which name the job
        # It has sent the bytes itself, and they lie here once.
        assert again.state == claimed.state
        with stage.server.context.db.reading() as session:
            assert session.get(UploadRow, (claimed.state.sha256, auditor.address)) is not None
    epochs = [epoch.number for epoch in stage.market.epochs()]
    found = [verify(stage.market, stage.chain, number, every=True) for number in epochs]
    assert epochs and [lie for checked in found for one in checked for lie in one.lies] == []
