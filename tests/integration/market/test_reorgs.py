"""The market through reorganisations: whatever the chain takes back, the database is what a new one would be."""

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from contracts.api.bodies import JobOut, LeaseOut
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.errors import EscrowError
from contracts.chain.follower import HistoryLost
from contracts.chain.sending.lane import close_lanes
from contracts.errors import UserError
from contracts.finality import KEPT_BLOCKS
from market.maintenance import reindex
from market.store.models import ApprovalRow, CheckpointRow, LeaseRow, MatchRow
from tests.support.devnet import TOKEN, Funded, rpc
from tests.support.stepped_market import Lives, lives

STEPS = 30


@pytest.fixture
def market(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path, database_url: str) -> Iterator[Lives]:
    people = funded(2) + funded(3, free=1_000 * TOKEN)
    with lives(chain, tmp_path, people, devnet.settings.rules["unchecked"], database_url) as made:
        yield made


def reorganise(market: Lives, depth: int) -> None:
    """Takes the newest blocks back, and all that was in them."""
    close_lanes()  # else what is lost would be sent again at a moment of its own
    rpc(market.chain, "anvil_reorg", depth, [])
    market.follow()


def wrong(market: Lives) -> list[str]:
    """What differs from a database that is made anew, as of the newest block that this one knows."""
    with reindex.scratch() as new:
        context = market.context
        reindex.build(new, market.chain, context.journal, context.blobs, until=reindex.height(context.db))
        return list(map(str, reindex.compare(context.db, new)))


class RandomLives:
    """Anybody does anything that the chain lets him do."""

    def __init__(self, market: Lives, dice: random.Random) -> None:
        self.market, self.dice = market, dice
        self.start = market.chain.w3.eth.block_number
        self.jobs: list[JobOut] = []
        self.depths: list[int] = []

    def act(self) -> None:
        doing = [
            self.bid, self.ask, self.ask, self.market.clear, self.market.clear, self.checkpoint, self.checkpoint,
            self.redeem, self.give_back, self.vanish, self.empty_blocks, self.reorganise,
        ]  # fmt: skip
        with suppress(UserError):  # not possible now: a balance is too low, a lease has gone, somebody was quicker
            self.dice.choice(doing)()
        self.market.follow()

    def lease(self) -> LeaseOut:
        return self.market.api.lease(self.dice.choice([one.id for one in self.market.api.leases(live=True)] or ["0x"]))

    def bid(self) -> None:
        self.jobs.append(self.market.post_bid())

    def ask(self) -> None:
        rate = self.dice.randint(1_800_000_000, 3_600_000_000)
        self.market.post_ask(self.dice.choice(self.market.providers), price_per_hour=rate)

    def checkpoint(self) -> None:
        self.market.make(self.lease(), 1)

    def redeem(self) -> None:
        lease = self.lease()
        if lease.approval:
            self.market.redeem(lease)

    def give_back(self) -> None:
        lease = self.lease()
        self.market.say(lease, self.dice.choice(["release", "failed"]), lease.state.accepted + 1)
        self.market.approver.answer_releases()
        if self.market.api.lease(lease.id).approval:
            self.market.redeem(lease)

    def vanish(self) -> None:
        self.market.pass_time(self.dice.choice([1, 4, 20]))
        self.market.keep()

    def empty_blocks(self) -> None:
        rpc(self.market.chain, "anvil_mine", hex(self.dice.randint(1, 8)))

    def reorganise(self) -> None:
        deepest = self.market.chain.w3.eth.block_number - self.start
        if deepest:
            depth = self.dice.randint(1, self.dice.choice([min(3, deepest), deepest]))
            self.depths.append(depth)
            reorganise(self.market, depth)


def test_random_lives_with_random_reorganisations(market: Lives) -> None:
    lived = RandomLives(market, random.Random(20))
    for _ in range(STEPS):
        lived.act()
    assert wrong(market) == [], lived.depths
    reorganise(market, (market.chain.w3.eth.block_number - lived.start) // 2)
    assert wrong(market) == [], lived.depths


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_more_random_lives(market: Lives, seed: int) -> None:
    lived = RandomLives(market, random.Random(seed))
    for step in range(4 * STEPS):
        lived.act()
        if step % STEPS == 0:
            assert wrong(market) == [], (seed, step, lived.depths)
    assert wrong(market) == [], (seed, lived.depths)


def opened(market: Lives) -> tuple[JobOut, LeaseOut]:
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    return job, market.lease_of(job)


def rows(market: Lives, model: Any) -> list[dict[str, Any]]:
    with market.context.db.reading() as session:
        return [row.model_dump() for row in session.exec(select(model))]


@pytest.mark.parametrize("blocks", [0, 40])
def test_a_lease_that_comes_again_has_lost_nothing(market: Lives, blocks: int) -> None:
    """Claims, approvals and checkpoints are kept while it is away; the same orders give the same lease."""
    start = market.chain.w3.eth.block_number
    job, lease = opened(market)
    market.make(lease, 2)
    said = [rows(market, model) for model in (CheckpointRow, ApprovalRow)]
    rpc(market.chain, "anvil_mine", hex(blocks))
    reorganise(market, market.chain.w3.eth.block_number - start)
    away = market.api.job(job.id)
    assert (away.status, away.leases) == ("pending", [])
    assert [row["lease"] for row in rows(market, MatchRow)] == [None]
    assert wrong(market) == []
    market.clear()
    assert market.lease_of(job).id == lease.id
    assert [rows(market, model) for model in (CheckpointRow, ApprovalRow)] == said
    market.redeem(market.lease_of(job))
    assert market.api.job(job.id).paid == 2 * TOKEN
    assert wrong(market) == []


def test_a_payment_that_is_taken_back(market: Lives) -> None:
    job, lease = opened(market)
    market.make(lease, 4)
    market.redeem(lease)
    assert market.api.job(job.id).status == "done"
    reorganise(market, 1)
    assert (market.api.job(job.id).status, market.api.job(job.id).paid) == ("running", 0)
    with suppress(EscrowError):  # the provider's sender may have sent it again by itself
        market.redeem(lease)
    market.follow()
    assert (market.api.job(job.id).status, market.api.job(job.id).paid) == ("done", 4 * TOKEN)
    assert wrong(market) == []


def test_a_job_that_was_given_up_is_taken_up_again(market: Lives) -> None:
    """Three leases failed; the third one's end is taken back, and with it the verdict."""
    job, lease = opened(market)
    market.make(lease, 1)
    for turn in range(3):
        lease = market.lease_of(job)
        market.say(lease, "failed", 2)
        market.approver.answer_releases()
        market.redeem(lease)
        assert market.api.job(job.id).status == ("failed" if turn == 2 else "pending")
        market.clear()
    with market.context.db.reading() as session:
        first = session.exec(select(LeaseRow).where(LeaseRow.start == 0)).one()
    reorganise(market, market.chain.w3.eth.block_number - first.opened_block)
    assert market.api.job(job.id).status == "running"  # nothing of it is accepted now: none failed at checkpoint 1
    assert wrong(market) == []


def test_deeper_than_what_is_kept(market: Lives, caplog: pytest.LogCaptureFixture) -> None:
    job, _ = opened(market)
    rpc(market.chain, "anvil_mine", hex(KEPT_BLOCKS))
    market.follow()
    close_lanes()
    rpc(market.chain, "anvil_reorg", KEPT_BLOCKS + 1, [])
    with pytest.raises(HistoryLost, match="another chain than the one followed so far") as stopped:
        market.follow()
    assert "gpumarket market reindex" in (stopped.value.hint or "")
    with reindex.scratch() as new, reindex.as_only_market(market.context.db) as leadership:
        reindex.build(new, market.chain, market.context.journal, market.context.blobs)
        reindex.replace(market.context.db, new, leadership)
    market.follow()
    assert market.api.job(job.id).status == "pending"
    assert wrong(market) == []


def test_what_is_final_and_what_waits_for_it(market: Lives) -> None:
    """Here a lease of 4 checkpoints at 1 token with a stake of 20 wants 1 block, and one more for each 10 tokens."""
    finality = {"confirmations_base": 1, "confirmations_per": 10 * TOKEN, "confirmations_max": 20}
    market.chain.settings = market.chain.settings.model_copy(update=finality)
    assert market.api.info().finality.confirmations(24 * TOKEN) == 4
    job, lease = opened(market)
    for final in (False, True):
        assert (market.lease_of(job).final, market.api.job(job.id).final) == (final, final)
        rpc(market.chain, "anvil_mine", hex(4))
        market.follow()
    market.say(lease, "release", 0)
    market.approver.answer_releases()
    market.redeem(lease)
    market.post_ask(market.providers[0], price_per_hour=1_800_000_000)
    assert market.clear() is None
    waits = market.api.job(job.id)
    assert (waits.status, waits.final) == ("pending", False) and "not deep enough" in waits.reason
    rpc(market.chain, "anvil_mine", hex(4))
    market.follow()
    assert market.api.job(job.id).final
    assert market.clear() is not None
