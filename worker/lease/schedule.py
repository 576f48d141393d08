"""What to do next about a lease's money and its clock. Pure: the chain's state, progress and the time come in."""

from dataclasses import dataclass, replace
from enum import StrEnum

from contracts.terms import MAX_PENDING, Flag, Nums, Phase, StateWord


class Action(StrEnum):
    WAIT = "wait"
    REDEEM = "redeem"  # the newest approval
    CLAIM = "claim"  # on chain, all that is made
    COLLECT = "collect"  # what a passed window has accepted
    END = "end"
    CLOSE = "close"
    REDEEM_CHALLENGED = "redeem_challenged"  # the newest approval, while a checkpoint is disputed
    RESOLVE = "resolve"  # a challenge, if the arbiter has ruled or stayed silent for too long
    OVER = "over"


@dataclass(frozen=True)
class LeaseTiming:
    """Seconds; `of` derives them from a lease's timeout where the provider set none."""

    redeem_every: float  # an approval is redeemed when the chain's clock is this old
    patience: float  # how long the approver may be silent about a checkpoint
    claim_before: float  # deadline: then what it was silent about is claimed on chain
    margin: float  # to the deadline, for a transaction to get in
    release_wait: float  # for Approval(last), before the slow path

    @classmethod
    def of(
        cls,
        timeout: int,
        *,
        redeem_every: float | None = None,
        patience: float | None = None,
        margin: float | None = None,
        release_wait: float | None = None,
    ) -> "LeaseTiming":
        quarter = timeout / 4
        return cls(
            redeem_every=timeout / 2 if redeem_every is None else min(redeem_every, timeout / 2),
            patience=quarter if patience is None else patience,
            claim_before=quarter,
            margin=min(timeout / 10, 300) if margin is None else margin,
            release_wait=min(timeout / 10, 60) if release_wait is None else release_wait,
        )

    def audited(self, window: int) -> "LeaseTiming":
        """The approver may have a batch replayed before it says a word: audited rules give it the window for that."""
        return replace(self, patience=max(self.patience, window), release_wait=max(self.release_wait, window))


@dataclass(frozen=True)
class Progress:
    """Where the worker stands. Indices are absolute, times seconds that have passed."""

    claimable: int  # newest checkpoint made, or the one before the first that the approver rejected
    approved: int  # newest Approval's index; 0 if there is none
    last: bool  # that Approval lets the lease be closed
    waited: float | None  # for a word on the oldest checkpoint beyond the approved; None: none is due
    finished: bool  # all checkpoints are made
    releasing: float | None  # since it was decided to stop early; None: it was not
    full: bool = False  # training waits, until some of what is made is judged
    undisputed: bool = True  # that Approval may help in a dispute: it has not been tried in vain

    def within(self, synced: StateWord) -> "Progress":
        """The same, but claimable only as far as the escrow lets a claim go beyond what is accepted."""
        return replace(self, claimable=min(self.claimable, synced.accepted + MAX_PENDING))


def deadline(state: StateWord, nums: Nums) -> int:
    """From when on anyone may end an Active lease, and and silence costs the provider a part of its stake."""
    pending = state.claimed > state.accepted
    return state.t + (max(nums.window, nums.timeout) if pending else nums.timeout)


def next_action(stored: StateWord, nums: Nums, progress: Progress, timing: LeaseTiming, now: float) -> Action:
    """What to send now; `now` is the chain's time. It is right again after that was done, or could not be done."""
    state = stored.synced(nums, now)
    progress = progress.within(state)
    match state.phase:
        case Phase.NONE | Phase.CLOSED:
            return Action.OVER
        case Phase.CHALLENGED:
            helps = progress.approved > state.accepted and progress.undisputed
            return Action.REDEEM_CHALLENGED if helps else Action.RESOLVE
        case Phase.CLOSING:
            return _closing(state, nums, progress, timing, now)
    if state.accepted > state.settled and state.accepted >= progress.approved:
        return Action.COLLECT
    if progress.releasing is not None:
        return _releasing(state, nums, progress, timing, now)
    return _active(state, nums, progress, timing, now)


def _redeemable(state: StateWord, progress: Progress) -> bool:
    return progress.approved > state.accepted and progress.approved >= state.claimed


def _closable(state: StateWord, progress: Progress) -> bool:
    return progress.last and progress.approved >= max(state.accepted, state.claimed)


def _active(state: StateWord, nums: Nums, progress: Progress, timing: LeaseTiming, now: float) -> Action:
    if _redeemable(state, progress) and (progress.approved == nums.end or now >= state.t + timing.redeem_every):
        return Action.REDEEM
    if _unanswered(state, progress):
        left = deadline(state, nums) - now
        near = left <= timing.claim_before or progress.finished or progress.full
        # A checkpoint that was made shortly before the deadline can't wait for the approver at all.
        if left <= 2 * timing.margin or (near and _silent(progress, timing)):
            return Action.CLAIM
    return Action.WAIT


def _releasing(state: StateWord, nums: Nums, progress: Progress, timing: LeaseTiming, now: float) -> Action:
    """What the approver signs, for a while; then a claim of what it left open, and `end`."""
    assert progress.releasing is not None
    unanswered = _unanswered(state, progress)
    if _closable(state, progress) and not unanswered:
        return Action.REDEEM
    redeemable = _redeemable(state, progress)
    if redeemable and progress.approved == nums.end:
        return Action.REDEEM
    # Late is late, whoever ends the lease: the approver is not waited for beyond half of the margin.
    in_time = now <= deadline(state, nums) - timing.margin / 2
    if progress.releasing < timing.release_wait and in_time:
        return Action.WAIT
    if redeemable and not (unanswered and progress.last):  # that would close, and lose what is unanswered
        return Action.REDEEM
    return Action.CLAIM if unanswered else Action.END


def _closing(state: StateWord, nums: Nums, progress: Progress, timing: LeaseTiming, now: float) -> Action:
    unanswered = _unanswered(state, progress)
    if _closable(state, progress) and not unanswered:
        return Action.REDEEM
    if _redeemable(state, progress) and not (unanswered and progress.last):
        return Action.REDEEM
    if now >= state.t + nums.window:
        return Action.CLOSE
    # Half a window for the approver, half for the transaction.
    soon = _silent(progress, timing) or now >= state.t + nums.window / 2
    if unanswered and soon and not state.flags & Flag.CLAIMED_IN_CLOSING:
        return Action.CLAIM
    return Action.WAIT


def _unanswered(state: StateWord, progress: Progress) -> bool:
    """Whether there are checkpoints that are neither approved nor claimed."""
    return progress.claimable > max(state.claimed, progress.approved)


def _silent(progress: Progress, timing: LeaseTiming) -> bool:
    return progress.waited is not None and progress.waited >= timing.patience


def must_give_up(
    state: StateWord, nums: Nums, progress: Progress, timing: LeaseTiming, now: float, seconds_left: float | None
) -> bool:
    """Whether the next checkpoint would come too late: better to end now, at no cost.

    `seconds_left` is the estimated time to it, None if nothing is known yet. While anything that is made is not
    on chain yet, redeeming or claiming it moves the deadline: then there is no hurry.
    """
    if state.phase != Phase.ACTIVE or progress.finished or progress.releasing is not None:
        return False
    current = state.synced(nums, now)
    if max(progress.approved, progress.claimable) > current.claimed:
        return False
    return now + (seconds_left or 0.0) > deadline(current, nums) - timing.margin
