"""The approver's word, as the market passes it on: only what it really signed, for what we really made, counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from contracts.api.bodies import ApprovalIn, RejectionIn
from contracts.chain.clock import ChainClock
from contracts.orders import Approval, Rejection, new_account
from contracts.terms import Phase, StateWord
from tests.support.worker_leases import (
    APPROVER,
    DOMAIN,
    add_checkpoints,
    lease_out,
    lease_tools,
    make_bid,
    make_folder,
    make_spec,
    sign,
)
from worker.lease.approvals import Approvals
from worker.lease.folder import LeaseFolder
from worker.lease.schedule import Action, LeaseTiming
from worker.lease.settlement import Settlement

SPEC = make_spec()
OTHER_TIP = "0x" + "99" * 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LeaseFolder:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    found = make_folder(SPEC)
    add_checkpoints(found, SPEC, 3)
    return found


def take(folder: LeaseFolder, **said: Any) -> LeaseFolder:
    market: Any = None
    approvals = Approvals(folder, lease_tools(), market, 1.0)
    approvals.take(lease_out(SPEC, make_bid(SPEC), folder.file.terms, **said))
    return folder


def approval(folder: LeaseFolder, n: int, signer: Any = APPROVER, **fields: Any) -> ApprovalIn:
    given = {"lease": folder.lease, "n": n, "tip": folder.tip(n) if n <= 3 else OTHER_TIP, "last": False}
    message = Approval.model_validate(given | fields)
    return ApprovalIn(approval=message, signature=sign(signer, message))


def test_a_genuine_approval_is_kept(folder: LeaseFolder) -> None:
    said = approval(folder, 2)
    assert take(folder, approval=said).file.approval == said
    assert folder.file.approved == 2


def test_an_older_approval_does_not_take_its_place(folder: LeaseFolder) -> None:
    take(folder, approval=approval(folder, 2))
    assert take(folder, approval=approval(folder, 1, last=True)).file.approved == 2


def test_the_last_word_on_the_same_checkpoint_does(folder: LeaseFolder) -> None:
    take(folder, approval=approval(folder, 2))
    file = take(folder, approval=approval(folder, 2, last=True)).file
    assert file.approval is not None and file.approval.approval.last


@pytest.mark.parametrize(
    "forge",
    [
        lambda folder: approval(folder, 2, signer=new_account()),
        lambda folder: approval(folder, 2, lease="0x" + "12" * 32),
        lambda folder: approval(folder, 2, tip=OTHER_TIP),
        lambda folder: approval(folder, 4),
    ],
)
def test_a_forged_or_foreign_approval_is_not(folder: LeaseFolder, forge: Callable[..., ApprovalIn]) -> None:
    assert take(folder, approval=forge(folder)).file.approval is None


def test_one_of_another_checkpoint_of_ours_is_known_as_that(folder: LeaseFolder) -> None:
    market: Any = None
    approvals = Approvals(folder, lease_tools(), market, 1.0)

    def take_from_market(said: ApprovalIn) -> ApprovalIn | None:
        approvals.take(lease_out(SPEC, make_bid(SPEC), folder.file.terms, approval=said))
        return approvals.other

    assert take_from_market(approval(folder, 2, tip=OTHER_TIP, signer=new_account())) is None
    for other in (approval(folder, 2, tip=OTHER_TIP), approval(folder, 4)):
        assert take_from_market(other) == other
    assert take_from_market(approval(folder, 3)) is None
    assert folder.file.approved == 3


def rejection(folder: LeaseFolder, n: int, signer: Any = APPROVER, tip: str | None = None) -> RejectionIn:
    message = Rejection(lease=folder.lease, n=n, tip=tip or folder.tip(n), reason="no")
    return RejectionIn(rejection=message, signature=sign(signer, message))


def test_a_rejection_counts_if_it_is_the_approvers_and_of_what_we_made(folder: LeaseFolder) -> None:
    assert take(folder, rejection=rejection(folder, 2, signer=new_account())).file.rejected is None
    assert take(folder, rejection=rejection(folder, 2, tip=OTHER_TIP)).file.rejected is None
    assert take(folder, rejection=rejection(folder, 2)).file.rejected == 2


# ------------------------------------------------------------------ what settlement makes of it


class Chain:
    """A chain that is there, or not."""

    def __init__(self, state: StateWord | Exception) -> None:
        self.answer, self.domain = state, DOMAIN

    def now(self) -> int:
        return 1_010

    def state(self, lease: str) -> StateWord:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def settlement(folder: LeaseFolder, state: StateWord | Exception) -> Settlement:
    chain: Any = Chain(state)
    return Settlement(folder, lease_tools(chain=chain, clock=ChainClock(chain)), LeaseTiming.of(100))


def test_what_was_rejected_can_not_be_claimed(folder: LeaseFolder) -> None:
    take(folder, approval=approval(folder, 1), rejection=rejection(folder, 2))
    state = StateWord(Phase.ACTIVE, 0, 0, 0, 1_000, 7)
    progress = settlement(folder, state).progress()
    assert (progress.claimable, progress.approved, progress.waited) == (1, 1, None)


def test_the_chains_state_is_remembered(folder: LeaseFolder) -> None:
    turn = settlement(folder, StateWord(Phase.ACTIVE, 2, 2, 2, 1_000, 7)).turn()
    assert turn is not None and turn.action == Action.WAIT
    assert (folder.file.accepted, folder.file.settled) == (2, 2)


def test_a_chain_that_is_away_is_no_reason_to_do_anything(folder: LeaseFolder) -> None:
    away = settlement(folder, requests.ConnectionError("refused"))
    before = folder.file
    assert away.turn() is None and away.turn() is None
    assert folder.file == before
