"""Whether a rule-set's clocks leave time to audit what is claimed under it. Pure; checked when an order comes in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from contracts.orders import Rules

START_SECONDS = 180  # that an auditor may take from being matched to its first step, and to hand in
RULING_REPLAYS = 3  # that an arbiter makes of the questioned stretch


@dataclass(frozen=True)
class AuditTimes:
    """What an audit takes, in seconds."""

    epoch: float  # from one clearing of the market to the next
    opening: float  # until a lease that was matched is seen by its provider
    replay: float  # the slowest that the rules permit, of one checkpoint
    transfer: float  # of the job's files and of the state before
    checkpoint: float  # to train one

    @property
    def answer(self) -> float:
        """Until a drawn checkpoint has been replayed twice, one after the other."""
        return 2 * (self.epoch + self.opening + self.replay + self.transfer)


def clock_problems(
    rules: Rules, approve_every: int, times: AuditTimes, replay_price: int, amount: Callable[[int], str] = str
) -> list[str]:
    """What an audited lease under these rules has no time or no money for, each a sentence with its values; [] if it
    can be audited. `replay_price` in token units, as the arbiter's fee; `amount`: how such are told.
    """
    return list(_problems(rules, approve_every, times, replay_price, amount))


def _problems(
    rules: Rules, approve_every: int, times: AuditTimes, replay_price: int, amount: Callable[[int], str]
) -> Iterator[str]:
    parts = (
        f"2 x (epoch {times.epoch:g} + opening {times.opening:g} + replay {times.replay:g} "
        f"+ transfer {times.transfer:g})"
    )
    if rules.window < times.answer:
        yield (
            f"window is {rules.window} s, and two replays may take {times.answer:g} s: {parts}; "
            "offer rules with a longer window, or smaller checkpoints"
        )
    batch = approve_every * times.checkpoint + times.answer
    if rules.checkpoint_timeout < batch:
        yield (
            f"checkpointTimeout is {rules.checkpoint_timeout} s, and approvals may take {batch:g} s: {approve_every} "
            f"checkpoints of {times.checkpoint:g} s, and {parts}; offer rules with a longer one, or smaller checkpoints"
        )
    ruling = RULING_REPLAYS * times.replay
    if rules.arbiter_timeout < ruling:
        yield (
            f"arbiterTimeout is {rules.arbiter_timeout} s, and {RULING_REPLAYS} replays may take {ruling:g} s "
            f"({times.replay:g} s each); a silent arbiter would pay the liar: offer rules with a longer one"
        )
    cost = RULING_REPLAYS * replay_price
    if rules.arbiter_fee < cost:
        yield (
            f"arbiterFee is {amount(rules.arbiter_fee)}, and {RULING_REPLAYS} replays may cost {amount(cost)}, "
            f"{amount(replay_price)} each by max_price: no arbiter rules at a loss; lower max_price, or offer rules "
            "with a higher fee"
        )


def replay_patience(said: float, epoch: float, likely: float = 0.0) -> float:
    """How long, in seconds, a drawn auditor is waited for: it has to be matched, to start and to train one checkpoint
    that took `said` by its maker's word, and takes `likely` by the auditor's; and it may be half as fast.
    """
    return START_SECONDS + 2 * epoch + 2 * max(said, likely)


def last_moment(*, pending_since: float | None, window: int, due: float, patience: float) -> float:
    """Until when a drawn checkpoint may stay open (UTC seconds). What is pending on chain is paid when its window has
    passed, and a challenge takes a moment; what is not, may be looked at for `due` seconds or two replays.
    """
    if pending_since is not None:
        return pending_since + window - max(window / 10, min(30, window / 2))
    return due + 2 * patience
