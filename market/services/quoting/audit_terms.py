"""Whether a job can be audited under its rules: in time, for the arbiter's fee, and for less gas than it is worth."""

from fractions import Fraction

from contracts.api.info import RuleSet
from contracts.api.problems import Code, Problem
from contracts.audits.clocks import AuditTimes, clock_problems
from contracts.chain.errors import NODE_AWAY
from contracts.job.spec import JobSpec
from contracts.orders import Bid
from contracts.types import SECONDS_PER_HOUR
from market.runtime.context import Context

REPLAY_GAS = 85_000  # opened with the epoch's other leases, and redeemed in a batch; docs/gas.md has what was measured
GAS_SHARE = Fraction(1, 10)  # of a checkpoint's price, above which it is told
_WEI = 10**18


def check_time_to_audit(context: Context, rules: RuleSet, bid: Bid, spec: JobSpec) -> None:
    """Raises Problem for a Bid whose checkpoints can't be audited in time.

    How long one takes is known of a Bid that says how fast its machine must be; of others only what the market itself
    takes counts here, and the quote warns by its estimate. Who approves its own job needs no audit: so do replays.
    """
    if rules.level == "unchecked" or bid.client == bid.effective_approver:
        return
    speed = spec.resources.units_per_hour
    seconds = bid.units * SECONDS_PER_HOUR / speed if speed else 0.0
    if problems := _problems(context, rules, seconds, price=0):
        raise Problem(
            422,
            Code.ORDER_TERMS_INVALID,
            f"under the rules '{rules.name}' ({rules.level}) the job can't be audited in time: {'; '.join(problems)}",
            "Take rules with longer times, make checkpoints smaller, or ask for a faster machine "
            "(resources.units_per_hour).",
        )


def audit_warnings(context: Context, rules: RuleSet, bid: Bid, seconds: float | None) -> list[str]:
    """`seconds` that a checkpoint takes, where that is known."""
    if rules.level == "unchecked" or bid.client == bid.effective_approver:
        return []
    found = _problems(context, rules, seconds or 0.0, bid.max_price - bid.fee)
    gas = _gas_warning(context, bid.max_price)
    return [f"audits: {problem}" for problem in found] + ([gas] if gas else [])


def _problems(context: Context, rules: RuleSet, seconds: float, price: int) -> list[str]:
    settings = context.settings
    times = AuditTimes(
        epoch=settings.epoch_seconds,
        opening=settings.audit_opening_seconds,
        replay=seconds,
        transfer=settings.audit_transfer_seconds,
        checkpoint=seconds,
    )
    return clock_problems(rules.rules, rules.most_unjudged, times, price, context.chain.format_amount)


def _gas_warning(context: Context, price: int) -> str | None:
    """Where the operator has said what the chain's coin is worth."""
    rate = context.settings.gas_token_price
    if rate is None:
        return None
    chain = context.chain
    try:
        wei = int(chain.w3.eth.gas_price)
    except NODE_AWAY:
        return None
    cost = Fraction(rate) * 10**chain.decimals * REPLAY_GAS * wei / _WEI
    if cost <= GAS_SHARE * price:
        return None
    told = chain.format_amount(-(-cost.numerator // cost.denominator))
    return (
        f"gas: a replay takes about {REPLAY_GAS:,} gas, now {told}, "
        f"which is {float(cost / price):.0%} of max_price; make checkpoints larger (docs/gas.md says how large)"
    )
