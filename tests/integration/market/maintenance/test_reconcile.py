"""What `reconcile` finds where database, blobs and chain differ, and what it mends."""

from typing import Any

import pytest
from sqlmodel import select

from market.maintenance import repair
from market.store.models import (
    ApprovalRow,
    BlobRow,
    ChainEvent,
    CheckpointRow,
    EpochRow,
    LeaseRow,
    MatchRow,
    ReplacedClaimRow,
)
from tests.support.stepped_market import Lives, differences, newest_blob, one_lease, tamper_blob


def tamper_paid(market: Lives) -> None:
    with market.context.db.session() as session:
        session.exec(select(LeaseRow)).one().paid += 1


def tamper_event(market: Lives) -> None:
    with market.context.db.session() as session:
        session.delete(session.exec(select(ChainEvent).where(ChainEvent.name == "Approved")).one())


def tamper_lease(market: Lives) -> None:
    with market.context.db.session() as session:
        session.delete(session.exec(select(LeaseRow)).one())


def tamper_match(market: Lives) -> None:
    with market.context.db.session() as session:
        session.exec(select(MatchRow)).one().price += 1


def tamper_claim(market: Lives) -> None:
    with market.context.db.session() as session:
        row = session.exec(select(CheckpointRow).where(CheckpointRow.n == 1)).one()
        row.signature = row.signature[:-2] + ("00" if not row.signature.endswith("00") else "01")


def tamper_replaced_claim(market: Lives) -> None:
    lease = market.lease_of(next(market.api.jobs()))
    assert lease.approval is not None
    for number in range(2):
        market.report(lease, 3, lease.approval.approval.tip, trace_root=f"0x{number:064x}")
    assert differences(market) == []
    with market.context.db.session() as session:
        row = session.exec(select(ReplacedClaimRow)).one()
        row.signature = row.signature[:-2] + ("00" if not row.signature.endswith("00") else "01")


def tamper_approval(market: Lives) -> None:
    with market.context.db.session() as session:
        session.exec(select(ApprovalRow).where(ApprovalRow.n == 2)).one().tip = "0x" + "55" * 20


def lose_blob(market: Lives) -> None:
    newest_blob(market).unlink()


def lose_job_file(market: Lives) -> None:
    job = market.api.job(next(market.api.jobs()).id)
    market.context.blobs.path(job.spec.files["recipe.py"].sha256).unlink()


@pytest.mark.mostly_sqlite
@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (tamper_paid, "(paid, fees, refunded, penalty)"),
        (tamper_event, "is missing in the database"),
        (tamper_lease, "is missing in the database"),
        (tamper_match, "match of bid"),
        (tamper_claim, "claim 1 of lease"),
        (tamper_replaced_claim, "replaced claim 3 of lease"),
        (tamper_approval, "approval 2 of lease"),
        (tamper_blob, "bytes that hash to"),
        (lose_blob, "is missing"),
        (lose_job_file, "recipe.py of job"),
    ],
)
def test_reconcile_names_what_differs(market: Lives, tamper: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market.maintenance.reconcile.SECONDS_BETWEEN", 0)
    monkeypatch.setattr("market.maintenance.reconcile.LOOKS", 2)
    job = one_lease(market)
    lease = market.lease_of(job)
    market.make(lease, 2)
    market.redeem(lease)
    assert differences(market) == []
    tamper(market)
    found = differences(market)
    assert found and any(says in difference for difference in found), found


def lose_message(market: Lives) -> None:
    with market.context.db.session() as session:
        session.delete(session.exec(select(ApprovalRow).where(ApprovalRow.n == 1)).one())


def lose_blob_row(market: Lives) -> None:
    with market.context.db.session() as session:
        session.delete(session.exec(select(BlobRow)).first())


def make_up_blob_row(market: Lives) -> None:
    with market.context.db.session() as session:
        session.add(BlobRow(sha256="0x" + "77" * 32, size=7))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_reconcile_mends_what_is_safe(
    market: Lives, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("market.maintenance.reconcile.SECONDS_BETWEEN", 0)
    monkeypatch.setattr("market.maintenance.reconcile.LOOKS", 2)
    monkeypatch.setattr("market.maintenance.repair.SECONDS_BETWEEN", 0)
    context = market.context
    job = one_lease(market)
    lease = market.lease_of(job)
    market.make(lease, 2)
    market.redeem(lease)
    for tamper in (
        tamper_paid, tamper_event, tamper_match, tamper_claim, tamper_approval, lose_message, lose_blob_row,
        make_up_blob_row,
    ):  # fmt: skip
        tamper(market)
    would = [str(one) for one in repair.find_repairs(market.chain, context.db, context.blobs)]
    assert len(would) == 8, would
    assert sorted(repair.fix(market.chain, context.db, context.blobs)) == sorted(would)
    assert differences(market) == []
    tamper_blob(market)
    with context.db.session() as session:
        session.add(EpochRow(number=1_000, order_root="0x" + "11" * 32))  # nobody knows where that came from
    left = differences(market)
    assert list(repair.fix(market.chain, context.db, context.blobs)) == []
    assert differences(market) == left and len(left) == 2
