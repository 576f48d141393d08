"""Whole lives of jobs: cleared, approved, released, timed out, moved on, and reconciled; on a real chain."""

from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from contracts.api.bodies import JobOut, QuoteIn
from contracts.api.epochs import epoch_root
from contracts.api.problems import Code, Problem
from contracts.chain.reliability import records
from contracts.chain.sending.sender import Sender
from contracts.terms import Phase
from market.approver.memory import Signed
from market.client.download import Unverified, accepted_chain, pull
from market.maintenance import repair
from market.maintenance.reconcile import read_books, reconcile
from market.maintenance.retention import Keep
from market.store import reliability
from market.store.models import (
    ApprovalRow,
    BlobRow,
    ChainEvent,
    CheckpointRow,
    EpochRow,
    LeaseRow,
    MatchRow,
    UnmatchedRow,
)
from tests.support.devnet import TOKEN
from tests.support.market_parts import signed_progress
from tests.support.stepped_market import Lives


def one_lease(market: Lives, **changes: Any) -> JobOut:
    job = market.post_bid(**changes)
    market.post_ask(market.providers[0])
    assert market.clear() is not None
    return job


def differences(market: Lives) -> list[str]:
    found = []
    for check in reconcile(market.chain, market.context.db, market.context.blobs, Keep.of(market.context.settings)):
        found += [f"{check.name}: {difference}" for difference in check.differences]
    with market.context.db.reading() as session:
        assert found or reliability.stored_records(session) == records(read_books(market.chain).ledger)
    return found


# ------------------------------------------------------------------ clearing


def test_an_epoch_opens_what_matches_and_says_why_the_rest_waits(market: Lives) -> None:
    wanted, dear, poor = market.post_bid(), market.post_bid(max_price=1), market.post_bid(stake=60 * TOKEN)
    market.post_ask(market.providers[0])
    epoch = market.clear()
    assert epoch is not None
    lease = market.lease_of(wanted)
    assert (lease.state.phase, lease.provider, lease.price) == ("active", market.providers[0].address, 1_000_000)
    assert "price" in market.api.job(dear.id).reason
    assert "stake" in market.api.job(poor.id).reason
    shown = market.api.epoch(epoch.number)
    assert [(m.bid, m.lease) for m in shown.matches] == [(wanted.id, lease.id)]
    assert {u.bid for u in shown.unmatched} == {dear.id, poor.id}
    assert market.chain.newest_epoch(market.context.matcher) == epoch.number == 1
    orders = [wanted.id, dear.id, poor.id, lease_ask(market)]
    assert shown.header is not None
    assert epoch_root(shown.header, orders) == epoch.order_root == published_root(market)
    assert {one.id for one in market.api.epoch_bids(1)} | {one.id for one in market.api.epoch_asks(1)} == set(orders)
    assert shown.seed == market.chain.block_hash(shown.seed_block or 0)


def lease_ask(market: Lives) -> str:
    with market.context.db.reading() as session:
        return session.exec(select(LeaseRow)).one().ask


def published_root(market: Lives) -> str:
    with market.context.db.reading() as session:
        row = session.exec(select(ChainEvent).where(ChainEvent.name == "EpochPublished")).one()
        return str(row.data["order_set_root"])


def test_an_epoch_with_nothing_new_sends_nothing(market: Lives) -> None:
    one_lease(market)
    before = market.chain.w3.eth.get_transaction_count(market.context.matcher)
    market.post_bid(max_price=1)
    assert market.clear() is None
    assert market.clear() is None
    assert market.chain.w3.eth.get_transaction_count(market.context.matcher) == before


def test_a_provider_has_one_lease_at_a_time(market: Lives) -> None:
    first, second = market.post_bid(), market.post_bid()
    market.post_ask(market.providers[0])
    market.clear()
    assert market.clear() is None
    placed = [job for job in (first, second) if market.api.job(job.id).leases]
    assert len(placed) == 1
    market.post_ask(market.providers[1])
    assert market.clear() is not None
    assert {market.lease_of(job).provider for job in (first, second)} == {p.address for p in market.providers[:2]}


# ------------------------------------------------------------------ to the end


def test_a_job_by_one_approval_at_the_price_of_its_quote(market: Lives) -> None:
    market.post_ask(market.providers[0])
    market.post_bid(max_price=1_200_000)  # wants the machine, too
    asked = {"client": market.client.address, "spec": market.spec, "units": 1_000_000}
    quote = market.api.quote(QuoteIn.model_validate(asked | {"max_price": 2 * TOKEN, "stake": 20 * TOKEN}))
    job = market.post_bid()
    assert market.clear() is not None
    lease = market.lease_of(job)
    assert TOKEN < lease.price == quote.likely_price < 1_200_000
    market.make(lease, 4)
    market.redeem(lease)
    done = market.api.job(job.id)
    assert (done.status, done.accepted, done.paid) == ("done", 4, 4 * lease.price)
    assert market.chain.account(lease.provider).free == 100 * TOKEN + 4 * lease.price
    assert differences(market) == []


def test_released_work_goes_on_elsewhere_from_its_last_checkpoint(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    tip = market.make(lease, 2)
    market.say(lease, "release", 2)
    market.approver.answer_releases()
    market.redeem(lease)
    assert market.state(lease).phase is Phase.CLOSED
    market.post_ask(market.providers[1], price_per_hour=1_800_000_000)
    assert market.clear() is not None
    following = market.lease_of(job)
    assert (following.provider, following.start, following.prev) == (market.providers[1].address, 2, lease.id)
    assert following.state.tip == tip
    market.make(following, 2)
    market.redeem(following)
    done = market.api.job(job.id)
    assert (done.status, [one.paid for one in done.leases]) == ("done", [2 * TOKEN, 1 * TOKEN])
    assert differences(market) == []


def test_a_job_released_before_its_first_checkpoint_is_matched_again(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.say(lease, "release", 0)
    market.approver.answer_releases()
    market.redeem(lease)
    market.post_ask(market.providers[1], price_per_hour=3_700_000_000)
    assert market.clear() is not None
    assert market.lease_of(job).provider == market.providers[1].address  # dearer, but the other gave it back


def test_a_vanished_worker_is_paid_what_was_approved_and_the_job_moves(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.make(lease, 2)  # approved, and never redeemed by its worker
    market.keep()
    assert market.state(lease).phase is Phase.ACTIVE
    market.pass_time(lease.timeout)
    market.keep()
    assert market.state(lease).phase is Phase.CLOSING
    market.approver.redeem_for_vanished()
    market.follow()
    assert market.chain.account(lease.provider).free == (100 - 20 + 2) * TOKEN
    market.pass_time(lease.window)
    market.keep()
    ended = market.api.job(job.id).leases[-1]
    assert (ended.finished, ended.paid, market.chain.account(lease.provider).free) == ("closed", 2 * TOKEN, 102 * TOKEN)
    # Its old ask is still valid, but nobody trusts it until the worker is back and posts a new one.
    assert market.clear() is None
    market.post_ask(market.providers[0], price_per_hour=3_700_000_000)
    assert market.clear() is not None
    assert market.lease_of(job).start == 2
    assert differences(market) == []


def test_the_market_redeems_if_the_approver_is_away(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.make(lease, 1)
    market.pass_time(lease.timeout)
    market.keep()
    market.pass_time(lease.window)
    market.keep()
    ended = market.api.job(job.id).leases[-1]
    assert (ended.finished, ended.paid) == ("closed", 1 * TOKEN)
    assert market.chain.account(lease.provider).free == 101 * TOKEN  # not late: it had done something


def test_silence_costs_one_price(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    market.pass_time(lease.timeout)
    market.keep()
    market.pass_time(lease.window)
    market.keep()
    assert market.api.job(job.id).leases[-1].finished == "closed"
    assert market.chain.account(lease.provider).free == 99 * TOKEN
    assert market.chain.account(market.client.address).free == 101 * TOKEN
    assert differences(market) == []


def test_records_of_what_was_accepted_on_chain_are_welcome_however_late(market: Lives) -> None:
    """The worker could not reach the market, claimed on chain, and was paid after the window."""
    job = one_lease(market)
    lease = market.lease_of(job)
    records = [market.record(lease, 1, lease.state.tip)]
    records.append(market.record(lease, 2, records[0].tip))
    claim = market.chain.claim(market.terms(lease), 2, records[1].tip, [record.root for record in records])
    Sender(market.chain, market.providers[0]).send(claim)
    market.follow()
    market.pass_time(lease.window)
    Sender(market.chain, market.providers[0]).send(market.chain.collect(market.terms(lease)))
    market.follow()
    assert market.api.lease(lease.id).state.accepted == 2
    other = market.record(lease, 1, lease.state.tip, trace_root="0x" + "44" * 32)
    with pytest.raises(Problem) as refused:
        market.hand_in(lease, other)
    assert refused.value.code == Code.PROGRESS_OUT_OF_ORDER
    for record in records:
        assert market.hand_in(lease, record).status == "approved"
    assert [one.checkpoint for one in accepted_chain(market.api, market.api.job(job.id))] == records


# ------------------------------------------------------------------ what an approver refuses


@pytest.mark.mostly_sqlite
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state_root": "0x" + "11" * 32}, "the file's state root is 0x"),
        ({"step": 11}, "checkpoint 1 is at step 10, not 11"),
        ({"root": "0x" + "11" * 32}, "is not that of its parts"),
        ({"tip": "0x" + "11" * 20}, "does not follow"),
    ],
)
def test_the_approver_rejects_whatever_its_market_let_pass(market: Lives, changes: dict[str, Any], says: str) -> None:
    lease = market.lease_of(one_lease(market))
    record = market.record(lease, 1, lease.state.tip, **changes)
    body = signed_progress(lease.id, record, market.chain.domain, market.key(lease.provider))
    with market.context.db.session() as session:  # a market that checks nothing
        market.context.accept(session, "progress", body, bid=lease.job, provider=lease.provider)
    market.approver.approve_reported()
    out = market.api.lease(lease.id)
    assert out.rejection is not None and says in out.rejection.rejection.reason
    assert out.approval is None and market.new_approver()._memory.recall(lease.id) is None


def test_the_approver_never_signs_two_tips_for_one_checkpoint(market: Lives) -> None:
    job = one_lease(market)
    lease = market.lease_of(job)
    tip = market.make(lease, 1)
    with market.context.db.session() as session:  # a market that forgets what it was told
        for model in (ApprovalRow, CheckpointRow):
            for row in session.exec(select(model)):
                session.delete(row)
    again = market.new_approver()
    market.report(lease, 1, lease.state.tip, metrics={"loss": 0.5}, trace_root="0x" + "33" * 32)
    again.approve_reported()
    assert market.api.lease(lease.id).approval is None
    assert again._memory.recall(lease.id) == Signed(1, tip)
    with pytest.raises(ValueError, match="would contradict"):
        again._memory.remember(lease.id, Signed(1, "0x" + "44" * 20))


def test_a_failed_checkpoint_is_tried_three_times(market: Lives) -> None:
    job = one_lease(market)
    for attempt in range(3):
        lease = market.lease_of(job)
        market.say(lease, "failed", lease.start + 1, f"ValueError: attempt {attempt}")
        market.approver.answer_releases()
        market.redeem(lease)
        assert market.state(lease).phase is Phase.CLOSED
        opened = market.clear()
        assert (opened is None) == (attempt == 2)
    failed = market.api.job(job.id)
    assert failed.status == "failed" and "their logs are in its reports" in failed.reason
    assert market.chain.account(market.client.address).free == 100 * TOKEN  # its money is free


# ------------------------------------------------------------------ what a client's pull believes


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


# ------------------------------------------------------------------ reconcile finds each lie


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


def tamper_approval(market: Lives) -> None:
    with market.context.db.session() as session:
        session.exec(select(ApprovalRow).where(ApprovalRow.n == 2)).one().tip = "0x" + "55" * 20


def newest_blob(market: Lives) -> Path:
    job = next(market.api.jobs())
    return market.context.blobs.path(list(market.api.checkpoints(job.id))[-1].checkpoint.state.sha256)


def tamper_blob(market: Lives) -> None:
    path = newest_blob(market)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def lose_blob(market: Lives) -> None:
    newest_blob(market).unlink()


def lose_job_file(market: Lives) -> None:
    job = next(market.api.jobs())
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


def test_epoch_rows_say_what_was_unmatched(market: Lives) -> None:
    market.post_bid(max_price=1)
    one_lease(market)
    with market.context.db.reading() as session:
        assert len(session.exec(select(EpochRow)).all()) == 1
        assert session.exec(select(UnmatchedRow)).one().reason
