"""What `gpumarket job pull` believes: only what the chain has accepted, whatever a market serves."""

from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from contracts import commitment
from contracts.api.bodies import CheckpointRecord, JobOut
from contracts.api.problems import Code, Problem
from contracts.chain.sending.sender import Sender
from contracts.orders import new_account
from contracts.types import from_hex, to_hex
from market.client.download import Pulled, Unverified, pull
from market.store.models import CheckpointRow
from tests.support.stepped_market import Lives

pytestmark = pytest.mark.mostly_sqlite


@pytest.fixture
def job(market: Lives) -> JobOut:
    """With two accepted checkpoints, in a lease that lives."""
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    lease = market.lease_of(job)
    market.make(lease, 2)
    market.redeem(lease)
    return market.api.job(job.id)


def pulled(market: Lives, job: JobOut, everything: bool = True) -> list[Pulled]:
    return pull(
        market.api_of(market.client),
        market.chain,
        market.api.job(job.id),
        market.folder / "got",
        everything,
        lambda _: None,
    )


def kept(market: Lives) -> list[Path]:
    return list((market.folder / "got").glob("**/*"))


def change(market: Lives, job: JobOut, n: int, **fields: Any) -> None:
    """Rewrite a record in the market's database, with root and tip that fit."""
    with market.context.db.session() as session:
        rows = session.exec(select(CheckpointRow).where(CheckpointRow.bid == job.id).order_by("n")).all()
        row = rows[n - 1]
        record = CheckpointRecord.model_validate(row.record | fields)
        before = from_hex(rows[n - 2].tip) if n > 1 else commitment.start_tip(from_hex(job.bid.job))
        root = commitment.checkpoint_root(
            from_hex(job.bid.job), n, record.step, from_hex(record.state_root), from_hex(record.trace_root),
            commitment.numerics_class(record.numerics),
        )  # fmt: skip
        tip = to_hex(commitment.next_tip(before, root))
        row.record = record.model_copy(update={"root": to_hex(root), "tip": tip}).model_dump(mode="json")
        row.tip = tip
        session.add(row)


def test_what_was_accepted(market: Lives, job: JobOut) -> None:
    assert [one.index for one in pulled(market, job)] == [1, 2]
    assert [one.index for one in pulled(market, job, everything=False)] == [2]


def test_a_forged_newest_record(market: Lives, job: JobOut) -> None:
    """Root, tip and blob all fit each other; but nobody accepted them."""
    (first, _) = market.api.checkpoints(job.id)
    change(market, job, 2, **first.checkpoint.model_dump(mode="json", include={"state", "state_root"}))
    with pytest.raises(Unverified, match=r"has the tip 0x.* on chain"):
        pulled(market, job)
    assert kept(market) == []


def test_a_forged_earlier_record(market: Lives, job: JobOut) -> None:
    change(market, job, 1, trace_root="0x" + "11" * 32)
    with pytest.raises(Unverified, match="no record of checkpoint 2 follows"):
        pulled(market, job)
    assert kept(market) == []


def test_more_than_was_accepted(market: Lives, job: JobOut) -> None:
    lease = market.lease_of(job)
    assert lease.approval is not None
    market.report(lease, 3, lease.approval.approval.tip)
    boasting = market.api.job(job.id).model_copy(update={"accepted": 3})
    with pytest.raises(Unverified, match=r"the chain has accepted [02]$"):
        pull(market.reader, market.chain, boasting, market.folder / "got", False, lambda _: None)


def test_no_lease_to_vouch_for_it(market: Lives, job: JobOut) -> None:
    alone = market.api.job(job.id).model_copy(update={"leases": []})
    with pytest.raises(Unverified, match=r"the chain has accepted [02]$"):
        pull(market.reader, market.chain, alone, market.folder / "got", False, lambda _: None)


def test_another_bid(market: Lives, job: JobOut) -> None:
    other = job.bid.model_copy(update={"client": new_account().address})
    with pytest.raises(Unverified, match="not that of job"):
        pull(
            market.api_of(market.client),
            market.chain,
            job.model_copy(update={"bid": other}),
            market.folder,
            False,
            lambda _: None,
        )


def test_a_blob_that_was_changed(market: Lives, job: JobOut) -> None:
    (_, newest) = market.api.checkpoints(job.id)
    path = market.context.blobs.path(newest.checkpoint.state.sha256)
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Problem, match="is not what its name says") as caught:
        pulled(market, job, everything=False)
    assert caught.value.code == Code.BLOB_MISMATCH
    assert kept(market) == []


def test_accepted_by_the_window(market: Lives) -> None:
    """The slow path: claims on chain, no Approval. Accepted when the window has passed, and not before."""
    job = market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    lease = market.lease_of(job)
    first = market.report(lease, 1, lease.state.tip)
    second = market.report(lease, 2, first.tip)
    claim = market.chain.claim(market.terms(lease), 2, second.tip, [first.root, second.root])
    Sender(market.chain, market.key(lease.provider)).send(claim)
    market.follow()
    boasting = market.api.job(job.id).model_copy(update={"accepted": 2})
    with pytest.raises(Unverified, match=r"the chain has accepted 0$"):
        pull(market.reader, market.chain, boasting, market.folder / "got", False, lambda _: None)
    market.pass_time(market.rules.window)
    assert [(one.index, one.tip) for one in pulled(market, job)] == [(1, first.tip), (2, second.tip)]
    change(market, job, 2, trace_root="0x" + "11" * 32)
    with pytest.raises(Unverified, match=r"has the tip 0x.* on chain"):
        pulled(market, job)


def test_forged_records_between_two_approvals(market: Lives, job: JobOut) -> None:
    """The chain has tips of checkpoints 2 and 4; a market can't pass its own 3 off as the newest."""
    lease = market.lease_of(job)
    market.make(lease, 2)
    market.redeem(lease)
    change(market, job, 3, trace_root="0x" + "11" * 32)
    for accepted in (3, 4):
        lie = market.api.job(job.id).model_copy(update={"accepted": accepted})
        with pytest.raises(Unverified):
            pull(market.reader, market.chain, lie, market.folder / "got", False, lambda _: None)
    assert kept(market) == []
