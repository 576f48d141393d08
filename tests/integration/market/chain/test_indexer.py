"""The market follows what happens to leases, through reorganisations too."""

import time
from typing import Any

from sqlmodel import select
from structlog.testing import capture_logs

from contracts.api.problems import Code
from contracts.chain.sending.lane import close_lanes
from contracts.terms import Phase
from market.store.models import ChainEvent, EpochRow, LeaseRow, MatchRow
from tests.support.devnet import pass_time, rpc
from tests.support.market_parts import (
    make_record,
    signed_approval,
    signed_progress,
)
from tests.support.served_market import Stage


def lease_matches_chain(stage: Stage, lease: str) -> None:
    """What the market stores of a live lease is what the escrow has; folding all again changes nothing."""
    with stage.context.db.reading() as session:
        row = session.get_one(LeaseRow, lease)
    state = stage.chain.state(lease)
    assert (row.settled, row.accepted, row.claimed, row.t, row.tip) == (
        state.settled, state.accepted, state.claimed, state.t, state.tip_hex,
    )  # fmt: skip
    assert row.status & 7 == state.phase


def everything(stage: Stage) -> list[dict[str, Any]]:
    with stage.context.db.reading() as session:
        return [row.model_dump() for row in session.exec(select(LeaseRow).order_by(LeaseRow.id))]  # type: ignore[arg-type]


def test_the_life_of_a_job(stage: Stage) -> None:
    """Two checkpoints approved and paid, a release, a second lease of another Ask to the end."""
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    assert stage.api.job(job.id).status == "running"
    assert (lease.start, lease.end, lease.price, lease.job) == (0, 4, 1_000_000, job.id)
    assert lease.rules == stage.rules
    lease_matches_chain(stage, lease.id)

    tip, records = lease.state.tip, []
    for n in (1, 2):
        record = make_record(job.bid.job, n, tip)
        stage.api.post_progress(signed_progress(lease.id, record, stage.domain, stage.provider))
        tip = record.tip
        records.append(record)
    assert len(list(stage.api.pending_progress(stage.client.address))) == 2
    approval = signed_approval(lease.id, 2, tip, stage.domain, stage.client, last=True)
    assert stage.api.post_approval(approval).approval == approval
    terms = stage.terms(lease.id)
    stage.send(stage.provider, stage.chain.redeem(terms, approval.approval, approval.signature))

    out = stage.api.job(job.id)
    assert (out.status, out.accepted, out.paid, out.metrics) == ("pending", 2, 2_000_000, {"loss": 0.5})
    (first,) = out.leases
    assert (first.finished, first.paid, first.refunded) == ("closed", 2_000_000, 2_000_000)
    assert list(stage.api.leases(live=True)) == []

    second = stage.open(out, stage.api.post_ask(stage.ask(max_checkpoints=9)), prev=terms)
    assert (second.start, second.end, second.prev, second.state.tip) == (2, 4, lease.id, tip)
    for n in (3, 4):
        record = make_record(job.bid.job, n, tip)
        stage.api.post_progress(signed_progress(second.id, record, stage.domain, stage.provider))
        tip = record.tip
    approval = signed_approval(second.id, 4, tip, stage.domain, stage.client)
    stage.api.post_approval(approval)
    stage.send(stage.provider, stage.chain.redeem(stage.terms(second.id), approval.approval, approval.signature))
    out = stage.api.job(job.id)
    assert (out.status, out.accepted, out.paid) == ("done", 4, 4_000_000)
    assert [one.finished for one in out.leases] == ["closed", "completed"]


def test_the_slow_path_and_a_silent_provider(stage: Stage) -> None:
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    terms = stage.terms(lease.id)
    record = make_record(job.bid.job, 1, lease.state.tip)
    stage.send(stage.provider, stage.chain.claim(terms, 1, record.tip, [record.root]))
    lease_matches_chain(stage, lease.id)
    assert stage.api.lease(lease.id).state.claimed == 1

    pass_time(stage.chain, terms.nums.window)
    stage.followed()
    assert stage.api.lease(lease.id).state.accepted == 1  # before anyone has told the escrow
    pass_time(stage.chain, terms.nums.timeout)
    stage.send(stage.client, stage.chain.end(terms))
    lease_matches_chain(stage, lease.id)
    out = stage.api.job(job.id)
    assert (out.status, out.leases[0].state.flags) == ("closing", ["by_client", "late"])
    pass_time(stage.chain, terms.nums.window)
    stage.send(stage.client, stage.chain.close(terms))
    out = stage.api.job(job.id)
    assert (out.status, out.accepted, out.paid) == ("cancelled", 1, 1_000_000)
    with stage.context.db.reading() as session:
        row = session.get_one(LeaseRow, lease.id)
    assert (row.finished, row.continuable, row.penalty, row.refunded) == ("closed", False, 1_000_000, 3_000_000)
    assert stage.chain.state(lease.id).phase is Phase.NONE


def test_the_client_gives_up_a_closed_job(stage: Stage) -> None:
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    approval = signed_approval(lease.id, 0, lease.state.tip, stage.domain, stage.client, last=True)
    terms = stage.terms(lease.id)
    stage.send(stage.provider, stage.chain.redeem(terms, approval.approval, approval.signature))
    assert stage.api.job(job.id).status == "pending"
    stage.send(stage.client, stage.chain.end(terms))
    assert stage.api.job(job.id).status == "cancelled"


def test_a_reorganisation_takes_a_lease_back(stage: Stage) -> None:
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    with stage.context.db.session() as session:
        session.add(EpochRow(number=1, order_root="0x" + "11" * 32))
        session.flush()
        session.add(MatchRow(epoch=1, bid=job.id, ask="0x" + "22" * 32, price=1, lease=lease.id))
    assert stage.api.job(job.id).status == "running"
    close_lanes()  # what is lost is not to be sent again
    rpc(stage.chain, "anvil_reorg", 1, [])
    stage.followed()
    stage.refuses(lambda: stage.api.lease(lease.id), 404, Code.NOT_FOUND)
    out = stage.api.job(job.id)
    assert (out.status, out.leases) == ("pending", [])
    assert stage.api.epoch(1).matches[0].lease is None
    with stage.context.db.reading() as session:
        assert session.exec(select(ChainEvent).where(ChainEvent.lease == lease.id)).all() == []


def test_a_reorganisation_in_the_middle_of_a_lease(stage: Stage) -> None:
    job = stage.api.post_bid(stage.bid())
    lease = stage.open(job, stage.api.post_ask(stage.ask()))
    record = make_record(job.bid.job, 1, lease.state.tip)
    stage.send(stage.provider, stage.chain.claim(stage.terms(lease.id), 1, record.tip, [record.root]))
    close_lanes()  # what is lost is not to be sent again
    rpc(stage.chain, "anvil_reorg", 1, [])
    stage.followed()
    assert stage.api.lease(lease.id).state == lease.state
    lease_matches_chain(stage, lease.id)


def test_a_continuation_that_is_taken_back(stage: Stage) -> None:
    """The lease before it waits again, as the chain has it."""
    job = stage.api.post_bid(stage.bid())
    ask = stage.api.post_ask(stage.ask())
    lease = stage.open(job, ask)
    terms = stage.terms(lease.id)
    approval = signed_approval(lease.id, 0, lease.state.tip, stage.domain, stage.client, last=True)
    stage.send(stage.provider, stage.chain.redeem(terms, approval.approval, approval.signature))
    before = everything(stage)
    stage.open(job, ask, prev=terms)
    assert not next(row for row in everything(stage) if row["id"] == lease.id)["continuable"]
    close_lanes()  # what is lost is not to be sent again
    rpc(stage.chain, "anvil_reorg", 1, [])
    stage.followed()
    assert everything(stage) == before


def test_a_match_learns_its_lease_from_the_chain(stage: Stage) -> None:
    job, ask = stage.api.post_bid(stage.bid()), stage.api.post_ask(stage.ask())
    with stage.context.db.session() as session:
        session.add(EpochRow(number=1, order_root="0x" + "11" * 32))
        session.flush()
        session.add(MatchRow(epoch=1, bid=job.id, ask=ask.id, price=1_000_000))
    stage.sender.send(stage.chain.publish_epoch(1, "0x" + "11" * 32))
    lease = stage.open(job, ask)
    assert stage.api.epoch(1).matches[0].lease == lease.id


def test_a_clock_that_is_behind_the_chains_is_told_once(stage: Stage) -> None:
    with capture_logs() as logs:
        pass_time(stage.chain, 7200)
        stage.followed()
        rpc(stage.chain, "evm_mine")
        stage.followed()
        deadline = time.monotonic() + 300
        while not any(line["event"] == "clock.trouble" for line in logs):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert sum(line["event"] == "clock.trouble" for line in logs) == 1
