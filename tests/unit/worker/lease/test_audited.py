"""A lease under audited rules: what the agent waits for, and what it then does without an approver's word."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.api.auditing.notes import AuditNoteOut, CommitmentContent, SecretContent, signed_note
from contracts.api.bodies import ApprovalIn
from contracts.audits.levels import CLOSED, UNCHECKED
from contracts.chain.clock import ChainClock
from contracts.chain.errors import EscrowError
from contracts.orders import Approval, new_account
from contracts.terms import Phase, StateWord
from tests.support.worker_leases import (
    APPROVER,
    DOMAIN,
    RULES,
    add_checkpoints,
    job_key,
    lease_tools,
    make_bid,
    make_folder,
    make_spec,
)
from worker.lease.approvals import Approvals
from worker.lease.folder import Job, LeaseFolder
from worker.lease.printed import Printed
from worker.lease.reporting import Reporter
from worker.lease.schedule import Action, LeaseTiming, next_action
from worker.lease.settlement import Settlement, word_due

SPEC = make_spec(steps=40)  # ten checkpoints
AUDITED = CLOSED.model_copy(update={"approve_every": 3})
TIMING = LeaseTiming.of(RULES.checkpoint_timeout)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LeaseFolder:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    made = make_folder(SPEC)
    made.update(job=Job(bid=make_bid(SPEC), spec=SPEC, rules=RULES, verification=AUDITED))
    return made


def committed(folder: LeaseFolder, signer: Any = APPROVER, lease: str | None = None) -> AuditNoteOut:
    content = CommitmentContent(commitment="0x" + "77" * 32)
    note = signed_note(lease or folder.lease, content, 1_000, DOMAIN, signer)
    return AuditNoteOut(
        id=1, lease=note.note.lease, job="0x" + "11" * 32, received="2026-01-01T00:00:00Z", **vars(note)
    )  # type: ignore[arg-type]


def approve(folder: LeaseFolder, n: int) -> None:
    approval = Approval(lease=folder.lease, n=n, tip=folder.tip(n), last=False)
    folder.update(approval=ApprovalIn(approval=approval, signature=approval.sign(DOMAIN, APPROVER)))


def settlement(folder: LeaseFolder, **tools: Any) -> Settlement:
    return Settlement(folder, lease_tools(**tools), TIMING)


# ------------------------------------------------------------------ the commitment


def test_nothing_is_reported_or_claimed_before_the_approver_is_committed(folder: LeaseFolder, tmp_path: Path) -> None:
    posted: list[int] = []
    market: Any = SimpleNamespace(
        put_blob=lambda path, ref=None: None, post_progress=lambda body: posted.append(body.claim.n)
    )
    key = job_key(folder, SPEC)
    folder.update(job=Job(bid=make_bid(SPEC), spec=SPEC, rules=RULES, verification=AUDITED))
    reporter = Reporter(folder, lease_tools(), market, key, Printed(folder.printed, lambda: None))
    add_checkpoints(folder, SPEC, 2)
    reporter._report_all()
    assert posted == [] and settlement(folder).progress().claimable == 0
    assert folder.file.waits == "waits for the approver's commitment"
    folder.update(commitment=committed(folder))
    reporter._report_all()
    assert posted == [1, 2] and settlement(folder).progress().claimable == 2
    assert folder.file.waits == ""


def test_a_commitment_counts_if_the_approver_signed_it_for_this_lease(folder: LeaseFolder) -> None:
    others = committed(folder, new_account())
    elsewhere = committed(folder, lease="0x" + "99" * 32)
    note = signed_note(folder.lease, SecretContent(secret="0x" + "77" * 32), 1_000, DOMAIN, APPROVER)
    secret = others.model_copy(update=vars(note))
    shown: list[AuditNoteOut] = []
    market: Any = SimpleNamespace(audit_notes=lambda lease: shown)
    listening = Approvals(folder, lease_tools(), market, 1.0)
    for wrong in ([], [others], [elsewhere], [secret], [others, elsewhere, secret]):
        shown = wrong
        listening._take_commitment()
        assert folder.file.commitment is None
    shown = [others, committed(folder)]
    listening._take_commitment()
    assert folder.file.commitment == shown[1]


def test_unchecked_rules_need_none(folder: LeaseFolder) -> None:
    folder.update(job=Job(bid=make_bid(SPEC), spec=SPEC, rules=RULES, verification=UNCHECKED))
    add_checkpoints(folder, SPEC, 5)
    assert folder.file.audits is None and not folder.file.full and folder.file.waits == ""
    assert settlement(folder).progress().claimable == 5
    assert word_due(folder.file, 5) == 1


# ------------------------------------------------------------------ batches


def test_a_word_is_due_when_a_batch_is_whole_or_the_lease_is_at_its_end(folder: LeaseFolder) -> None:
    folder.update(commitment=committed(folder))
    due = []
    for _ in range(10):
        add_checkpoints(folder, SPEC, 1)
        due.append(word_due(folder.file, folder.file.made))
    assert due == [None, None, 3, 3, 3, 3, 3, 3, 3, 3]
    approve(folder, 3)
    assert word_due(folder.file, 10) == 6
    approve(folder, 6)
    assert word_due(folder.file, 10) == 9
    approve(folder, 9)
    assert word_due(folder.file, 10) == 10  # a short batch: the lease is finished
    approve(folder, 10)
    assert word_due(folder.file, 10) is None


def test_a_short_batch_is_due_once_the_lease_is_released(folder: LeaseFolder) -> None:
    folder.update(commitment=committed(folder))
    add_checkpoints(folder, SPEC, 2)
    assert word_due(folder.file, 2) is None
    folder.release("stop", since=0)
    assert word_due(folder.file, 2) == 2


def test_training_is_full_with_as_many_as_a_batch_unjudged(folder: LeaseFolder) -> None:
    folder.update(commitment=committed(folder))
    add_checkpoints(folder, SPEC, 2)
    assert not folder.file.full
    add_checkpoints(folder, SPEC, 1)
    assert folder.file.full and folder.file.waits == "waits for the approver: 3 checkpoints are not judged"
    folder.update(accepted=1)  # by a window on chain
    assert not folder.file.full
    add_checkpoints(folder, SPEC, 1)
    assert folder.file.full
    approve(folder, 3)
    assert not folder.file.full


def test_silence_is_claimed_on_chain_once_a_batch_is_full_and_not_before(folder: LeaseFolder) -> None:
    folder.update(commitment=committed(folder))
    state, late = StateWord(Phase.ACTIVE, 0, 0, 0, 1_000, 7), 1_000 + RULES.checkpoint_timeout - 22
    add_checkpoints(folder, SPEC, 2)
    money = settlement(folder)
    for path in folder.work_folder.glob("*.json"):
        _age(path, 1_000)
    assert next_action(state, folder.file.nums, money.progress(), money.timing, late) is Action.WAIT
    # The chain's clock itself waits for nobody.
    assert next_action(state, folder.file.nums, money.progress(), money.timing, late + 5) is Action.CLAIM
    add_checkpoints(folder, SPEC, 1)
    assert next_action(state, folder.file.nums, money.progress(), money.timing, 1_001) is Action.WAIT
    for path in folder.work_folder.glob("*.json"):
        _age(path, 1_000)
    assert next_action(state, folder.file.nums, money.progress(), money.timing, 1_001) is Action.CLAIM


def test_the_approver_has_a_window_to_replay_before_its_silence_counts(folder: LeaseFolder) -> None:
    folder.update(nums=folder.file.nums._replace(window=80))
    money = settlement(folder)
    assert (money.timing.patience, money.timing.release_wait) == (80, 80)
    folder.update(job=None)
    assert money.timing == TIMING


def _age(path: Path, seconds: float) -> None:
    before = path.stat().st_mtime - seconds
    os.utime(path, (before, before))


# ------------------------------------------------------------------ disputes


def test_an_approval_that_did_not_help_in_one_dispute_is_tried_in_the_next(folder: LeaseFolder) -> None:
    folder.update(commitment=committed(folder))
    add_checkpoints(folder, SPEC, 2)
    approve(folder, 2)
    tried: list[int] = []

    def refused(*call: Any, key: str) -> Any:
        tried.append(1)
        raise EscrowError("Escrow_NotThatOne", {})

    disputes = ["0x01"]
    disputed = StateWord(Phase.CHALLENGED, 0, 0, 3, 1_000, 7)
    chain: Any = SimpleNamespace(
        domain=DOMAIN, now=lambda: 1_010, state=lambda lease: disputed,
        intent=lambda what, lease, state: f"{what} {disputes[0]}",
        redeem_challenged=lambda *given: None, resolve=lambda *given: None,
    )  # fmt: skip
    money = settlement(folder, chain=chain, clock=ChainClock(chain), sender=SimpleNamespace(send=refused))
    assert _turned(money) is Action.REDEEM_CHALLENGED
    assert _turned(money) is Action.RESOLVE
    disputes[0] = "0x02"  # resolved, and challenged again in the same second
    assert _turned(money) is Action.REDEEM_CHALLENGED
    assert len(tried) == 3


def _turned(money: Settlement) -> Action:
    money._not_before = 0.0
    turn = money.turn()
    assert turn is not None
    return turn.action
