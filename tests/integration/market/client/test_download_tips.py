"""`gpumarket job pull` on an honest market: what is pulled is verified tip by tip, and compared with the chain."""

from pathlib import Path
from typing import Any

import pytest

from contracts.api.bodies import JobOut
from contracts.api.problems import Problem
from contracts.chain.sending.sender import Sender
from market.client.download import Unverified, accepted_chain, pull
from market.store.models import (
    CheckpointRow,
)
from tests.support.stepped_market import Lives, one_lease, tamper_blob


def pulled(market: Lives, job: JobOut, folder: Path, **lies: Any) -> list[str]:
    told = market.api.job(job.id).model_copy(update=lies)
    return [one.path.name for one in pull(market.reader, market.chain, told, folder, True, lambda _: None)]


def test_pull_verifies_tip_by_tip(market: Lives, tmp_path: Path) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.make(lease, 3)
    market.redeem(lease)
    assert pulled(market, job, tmp_path / "all") == [f"checkpoint-{index:05d}.safetensors" for index in (1, 2, 3)]
    with pytest.raises(Unverified, match="no record of checkpoint 4 follows"):
        pulled(market, job, tmp_path / "more", accepted=4)
    with pytest.raises(Unverified, match="Bid or JobSpec is not that of job"):
        pulled(market, job, tmp_path / "bid", bid=job.bid.model_copy(update={"units": 1}))
    tamper_blob(market)
    with pytest.raises(Problem, match="not what its name says"):
        pulled(market, job, tmp_path / "blob")
    assert sorted(path.name for path in (tmp_path / "blob").iterdir()) == [
        f"checkpoint-{n:05d}.safetensors" for n in (1, 2)
    ]


def test_pull_compares_with_the_chain(market: Lives, tmp_path: Path) -> None:
    """A market that made up a chain of checkpoints of its own, which fits together but was never accepted."""
    job = one_lease(market)
    lease = market.lease_of(job)
    market.make(lease, 2)
    market.redeem(lease)
    first = market.record(lease, 1, lease.state.tip, trace_root="0x" + "66" * 32)
    second = market.record(lease, 2, first.tip)
    with market.context.db.session() as session:
        for record in (first, second):
            row = session.get_one(CheckpointRow, (lease.id, record.index))
            row.record, row.tip = record.model_dump(mode="json"), record.tip
    with pytest.raises(Unverified, match=r"checkpoint [12] has the tip .* on chain"):
        pulled(market, job, tmp_path / "made-up")


@pytest.mark.parametrize("backwards", [False, True])
def test_pull_after_a_lease_that_came_to_nothing(
    market: Lives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    """Its first checkpoint is the same as the next provider's, its second is not; and its records are still there, in
    whichever order.
    """
    job = one_lease(market)
    lease = market.lease_of(job)
    first = market.report(lease, 1, lease.state.tip)
    market.report(lease, 2, first.tip, trace_root="0x" + "66" * 32)
    Sender(market.chain, market.key(lease.provider)).send(market.chain.end(market.terms(lease)))
    market.pass_time(market.rules.window + 5)
    market.keep()
    market.post_ask(market.providers[1])
    market.clear()
    later = market.lease_of(job)
    assert later.id != lease.id
    market.make(later, 3)
    market.redeem(later)
    records = list(market.reader.checkpoints(job.id))
    monkeypatch.setattr(market.reader, "checkpoints", lambda _: records[:: -1 if backwards else 1])
    assert len(pulled(market, job, tmp_path / "all")) == 3
    # A lie beside it, of a third lease, as the last that was accepted: between two records of the same tip.
    approved, lie = sorted((one for one in records if one.checkpoint.index == 2), key=lambda one: one.lease == lease.id)
    same = approved.model_copy(update={"lease": "0x" + "aa" * 32, "status": "rejected"})
    monkeypatch.setattr(
        market.reader,
        "checkpoints",
        lambda _: [one for one in records if one.checkpoint.index == 1] + [same, lie, approved],
    )
    told = market.api.job(job.id).model_copy(update={"accepted": 2})
    assert [one.checkpoint.tip for one in accepted_chain(market.reader, told)][-1] == approved.checkpoint.tip
