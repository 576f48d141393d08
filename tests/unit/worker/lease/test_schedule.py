"""What is due about a lease's money, at any state of chain and progress."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.terms import MAX_PENDING, Flag, Nums, Phase, StateWord
from worker.lease.schedule import Action, LeaseTiming, Progress, deadline, must_give_up, next_action

NUMS = Nums(start=0, end=10, window=30, timeout=100, price=5, fee=0, ask_price=5)
TIMING = LeaseTiming.of(100)


def state(
    phase: Phase = Phase.ACTIVE,
    accepted: int = 0,
    claimed: int | None = None,
    *,
    settled: int | None = None,
    t: int = 1000,
    flags: int = 0,
) -> StateWord:
    settled, claimed = accepted if settled is None else settled, accepted if claimed is None else claimed
    return StateWord(phase | flags, settled, accepted, claimed, t, 7)


def progress(claimable: int = 0, approved: int = 0, **fields: Any) -> Progress:
    given: dict[str, Any] = {
        "last": False,
        "waited": None,
        "finished": claimable == NUMS.end,
        "releasing": None,
    }
    return Progress(claimable=claimable, approved=approved, **(given | fields))


def due(state: StateWord, progress: Progress, now: float, nums: Nums = NUMS) -> Action:
    return next_action(state, nums, progress, TIMING, now)


def test_the_defaults_follow_from_the_timeout() -> None:
    assert LeaseTiming.of(100) == LeaseTiming(redeem_every=50, patience=25, claim_before=25, margin=10, release_wait=10)
    assert LeaseTiming.of(100_000).margin == 300
    assert LeaseTiming.of(100_000).release_wait == 60


def test_redeeming_less_often_than_every_half_timeout_is_not_to_be_had() -> None:
    assert LeaseTiming.of(100, redeem_every=80).redeem_every == 50
    assert LeaseTiming.of(100, redeem_every=8).redeem_every == 8


def test_an_approval_is_redeemed_at_half_the_timeout() -> None:
    assert due(state(), progress(2, 2), 1049) == Action.WAIT
    assert due(state(), progress(2, 2), 1050) == Action.REDEEM


def test_no_more_is_claimed_than_a_challenge_can_carry() -> None:
    nums = Nums(start=0, end=5_000, window=30, timeout=100, price=5, fee=0, ask_price=5)
    silent = progress(3_000, 10, waited=30.0)
    assert silent.within(state(accepted=10)).claimable == 10 + MAX_PENDING
    assert due(state(accepted=10), silent, 1080, nums) == Action.CLAIM
    full = state(accepted=10, claimed=10 + MAX_PENDING)
    assert due(full, silent, 1029, nums) == Action.WAIT
    assert due(full, silent, 1030, nums) == Action.COLLECT
    passed = state(accepted=10 + MAX_PENDING, settled=10 + MAX_PENDING)
    assert due(passed, silent, 1080, nums) == Action.CLAIM


def test_nothing_is_redeemed_twice() -> None:
    assert due(state(accepted=2), progress(2, 2), 1050) == Action.WAIT


def test_the_last_checkpoint_is_redeemed_at_once() -> None:
    assert due(state(), progress(10, 10), 1001) == Action.REDEEM


def test_an_approval_below_what_is_claimed_waits_for_the_window() -> None:
    assert due(state(accepted=1, claimed=4), progress(4, 3), 1029) == Action.WAIT
    assert due(state(accepted=1, claimed=4), progress(4, 3), 1030) == Action.COLLECT


def test_a_silent_approver_is_passed_by_near_the_deadline_only() -> None:
    waits = progress(2, 0, waited=25)
    assert due(state(), waits, 1074) == Action.WAIT
    assert due(state(), waits, 1075) == Action.CLAIM


def test_an_approver_that_was_silent_for_a_moment_only_gets_its_time() -> None:
    assert due(state(), progress(2, 0, waited=24), 1079) == Action.WAIT


def test_a_checkpoint_made_just_before_the_deadline_is_claimed_at_once() -> None:
    assert due(state(), progress(2, 0, waited=1), 1080) == Action.CLAIM


def test_when_all_is_made_only_patience_counts() -> None:
    assert due(state(), progress(10, 4, waited=24), 1024) == Action.WAIT
    assert due(state(), progress(10, 4, waited=25), 1025) == Action.CLAIM


def test_what_is_claimed_is_not_claimed_again() -> None:
    assert due(state(claimed=2), progress(2, 0, waited=29), 1029) == Action.WAIT


def test_a_passed_window_is_collected() -> None:
    assert due(state(claimed=2), progress(3, 0, waited=30), 1030) == Action.COLLECT
    assert due(state(accepted=2), progress(3, 0), 1030) == Action.WAIT


def test_a_release_waits_for_the_approver_then_ends() -> None:
    assert due(state(accepted=2), progress(2, 2, releasing=9), 1009) == Action.WAIT
    assert due(state(accepted=2), progress(2, 2, releasing=10), 1010) == Action.END


def test_a_release_ends_before_the_deadline_whoever_is_asked() -> None:
    assert due(state(accepted=2), progress(2, 2, releasing=1), 1095) == Action.WAIT
    assert due(state(accepted=2), progress(2, 2, releasing=1), 1096) == Action.END


def test_a_release_redeems_the_last_word_at_once() -> None:
    assert due(state(), progress(2, 2, last=True, releasing=1), 1001) == Action.REDEEM
    # Nothing new is accepted by it: it only closes.
    assert due(state(accepted=2), progress(2, 2, last=True, releasing=1), 1001) == Action.REDEEM


def test_a_release_without_an_approver_claims_and_ends() -> None:
    releasing = progress(3, 1, waited=10, releasing=10)
    assert due(state(), releasing, 1010) == Action.REDEEM
    assert due(state(accepted=1), releasing, 1010) == Action.CLAIM
    assert due(state(accepted=1, claimed=3), releasing, 1010) == Action.END


def test_a_last_word_that_leaves_something_out_is_not_redeemed() -> None:
    """It would close the lease, and lose the rest."""
    assert due(state(), progress(3, 2, last=True, waited=5, releasing=5), 1005) == Action.WAIT
    assert due(state(), progress(3, 2, last=True, waited=10, releasing=10), 1010) == Action.CLAIM


def test_a_release_that_waits_for_nobody_ends_at_once() -> None:
    assert due(state(), progress(releasing=1e9), 1000) == Action.END


def test_closing_redeems_claims_once_and_closes() -> None:
    closing = state(Phase.CLOSING)
    assert due(closing, progress(2, 2), 1001) == Action.REDEEM
    assert due(closing, progress(2, 0, waited=14), 1014) == Action.WAIT
    assert due(closing, progress(2, 0, waited=15), 1015) == Action.CLAIM
    claimed = state(Phase.CLOSING, claimed=2, flags=Flag.CLAIMED_IN_CLOSING)
    assert due(claimed, progress(3, 0, waited=29), 1029) == Action.WAIT
    assert due(claimed, progress(3, 0, waited=30), 1030) == Action.CLOSE


def test_the_last_word_closes_a_closing_lease_before_its_window() -> None:
    closing = state(Phase.CLOSING, accepted=2)
    assert due(closing, progress(2, 2, last=True), 1001) == Action.REDEEM
    assert due(closing, progress(2, 2), 1001) == Action.WAIT


@pytest.mark.parametrize("phase", [Phase.NONE, Phase.CLOSED])
def test_over_is_over(phase: Phase) -> None:
    assert due(state(phase), progress(2, 2), 1001) == Action.OVER


def test_a_challenge_is_resolved_when_it_can_be() -> None:
    assert due(state(Phase.CHALLENGED, claimed=2), progress(2), 1001) == Action.RESOLVE


def test_an_approval_answers_a_challenge_once() -> None:
    disputed = state(Phase.CHALLENGED, accepted=1, claimed=3)
    assert due(disputed, progress(3, approved=1), 1001) == Action.RESOLVE
    assert due(disputed, progress(3, approved=2), 1001) == Action.REDEEM_CHALLENGED
    assert due(disputed, replace(progress(3, approved=2), undisputed=False), 1001) == Action.RESOLVE


def test_a_pending_claim_moves_the_deadline_to_the_longer_of_window_and_timeout() -> None:
    slow = NUMS._replace(window=500)
    assert deadline(state(claimed=2), slow) == 1500
    assert deadline(state(accepted=2), slow) == 1100
    assert deadline(state(claimed=2), NUMS) == 1100


# ------------------------------------------------------------------ the deadline guard


def gives_up(state: StateWord, progress: Progress, now: float, left: float | None) -> bool:
    return must_give_up(state, NUMS, progress, TIMING, now, left)


def test_a_checkpoint_that_would_come_too_late_is_given_up() -> None:
    assert not gives_up(state(), progress(), 1000, 89)
    assert gives_up(state(), progress(), 1000, 91)


def test_an_unknown_pace_gets_all_the_time_there_is() -> None:
    assert not gives_up(state(), progress(), 1090, None)
    assert gives_up(state(), progress(), 1091, None)


def test_nothing_is_given_up_while_something_made_can_move_the_clock() -> None:
    assert not gives_up(state(), progress(1, 0), 1091, 50)
    assert not gives_up(state(), progress(1, 1), 1091, 50)
    assert gives_up(state(claimed=1), progress(1, 0), 1081, 50)


@pytest.mark.parametrize("fields", [{"finished": True}, {"releasing": 1.0}])
def test_what_does_not_train_gives_up_nothing(fields: dict[str, Any]) -> None:
    assert not gives_up(state(), progress(**fields), 1099, 50)


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10), st.booleans(), st.integers(0, 140))
def test_no_lease_is_lost_by_waiting(claimed: int, made: int, approved: int, pending: bool, age: int) -> None:
    """At the deadline less its margin: either something was sent before, or training is given up."""
    accepted = 0 if pending else claimed
    made, approved = max(made, claimed), min(approved, max(made, claimed))
    now = 1000 + 90
    stands = state(accepted=accepted, claimed=claimed)
    worker = progress(made, approved, waited=age if made > approved else None)
    action = due(stands, worker, now)
    quiet = stands.synced(NUMS, now)
    if action == Action.WAIT and quiet.claimed == quiet.accepted and not worker.finished:
        assert gives_up(stands, worker, now + 1, None)


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10), st.integers(0, 300), st.booleans())
def test_redeems_and_claims_are_such_as_the_escrow_takes(
    accepted: int, claimed: int, made: int, late: int, last: bool
) -> None:
    claimed, made = max(accepted, claimed), max(accepted, claimed, made)
    for approved in range(made + 1):
        for releasing in (None, float(late)):
            for phase in (Phase.ACTIVE, Phase.CLOSING):
                stands = state(phase, accepted, claimed)
                worker = progress(made, approved, waited=late, last=last, releasing=releasing)
                action = due(stands, worker, 1000 + late)
                now_claimed = stands.synced(NUMS, 1000 + late)
                if action == Action.REDEEM:
                    assert approved >= now_claimed.claimed
                    assert approved > now_claimed.accepted or last
                if action == Action.CLAIM:
                    assert now_claimed.claimed < made
