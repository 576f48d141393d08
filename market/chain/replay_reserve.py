"""What the market's own approver pays replays from: its account in the escrow, filled up from what the matcher has.

It is filled up before it is down to the reserve, and to twice of that, so that not each replay costs a transaction.
While it can't be, no lease is opened whose checkpoints nobody would replay.
"""

import threading
from dataclasses import dataclass

import structlog
from web3.contract.contract import ContractFunction

from contracts.audits.levels import BEFORE, UNCHECKED
from contracts.errors import UserError
from contracts.types import ZERO_ADDRESS
from market.runtime.context import Context
from market.runtime.loop import repeat

UNAUDITED = BEFORE | {UNCHECKED.hash()}  # what rules commit to under which nothing is replayed

log = structlog.get_logger()


@dataclass(frozen=True)
class TopUp:
    """Amounts of the token's smallest unit."""

    withdraw: int = 0  # of what the matcher has earned, first
    deposit: int = 0  # for the approver
    missing: int = 0  # to the reserve itself, after that


def top_up(reserve: int, free: int, held: int, earned: int) -> TopUp:
    """`free`: the approver's in the escrow; `held`: by the matcher's key; `earned`: the matcher's there. Pure."""
    if free >= reserve + reserve // 2:
        return TopUp()
    deposit = min(2 * reserve - free, held + earned)
    missing = max(0, reserve - free - deposit)
    if 4 * deposit < reserve and free + deposit < reserve:  # drops that change nothing are not worth their gas
        return TopUp(missing=reserve - free)
    return TopUp(max(0, deposit - held), deposit, missing)


def run_replay_reserve(context: Context, stop: threading.Event) -> None:
    """One look every epoch until `stop`, if there is a reserve to keep; a market ends when one of its threads does."""
    if context.settings.replay_reserve:
        repeat(context, "replay_reserve", keep_reserve, stop, context.settings.epoch_seconds)
    else:
        stop.wait()


def keep_reserve(context: Context) -> TopUp:
    """Fills up the approver's account if that is due. Returns what was done; says so loudly if it was not enough."""
    reserve, approver, chain = context.settings.replay_reserve, context.approver, context.chain
    if not reserve:
        return TopUp()
    if approver is None or approver == context.matcher:
        raise UserError(
            f"replay_reserve is {chain.format_amount(reserve)}, and this market recommends "
            f"{'no approver' if approver is None else 'its matcher as approver'}",
            "set recommended_approver in market.toml to an approver of your own, or leave replay_reserve out",
        )
    free, earned = chain.account(approver).free, chain.account(context.matcher).free
    found = top_up(reserve, free, chain.token_balance(context.matcher), earned)
    if found.deposit:
        for what, call in _steps(context, approver, found):
            context.sending.send(call, key=f"replay reserve: {what} {free} {earned} {found.deposit}")
        log.info(
            "replay_reserve.filled", approver=approver, amount=chain.format_amount(found.deposit),
            withdrawn=chain.format_amount(found.withdraw), free=chain.format_amount(free + found.deposit),
        )  # fmt: skip
    context.reserve_short = found.missing > 0
    if found.missing:
        log.error(
            "replay_reserve.short", approver=approver, free=chain.format_amount(free + found.deposit),
            reserve=chain.format_amount(reserve), missing=chain.format_amount(found.missing),
            hint=f"send tokens to the matcher {context.matcher}, or deposit for the approver; until then no lease "
            "under audited rules is opened",
        )  # fmt: skip
    return found


def _steps(context: Context, approver: str, due: TopUp) -> list[tuple[str, ContractFunction]]:
    """In this order, each when that before it is mined."""
    chain, steps = context.chain, list[tuple[str, ContractFunction]]()
    if due.withdraw:
        steps.append(("withdraw", chain.withdraw(context.matcher, due.withdraw)))
    allowance = chain.allowance(context.matcher)
    if allowance < due.deposit:
        if allowance:  # some tokens let none be changed but from or to 0
            steps.append(("take back", chain.approve(0)))
        steps.append(("allow", chain.approve(due.deposit)))
    return [*steps, ("deposit", chain.deposit(approver, due.deposit))]


def is_short(context: Context) -> bool:
    """Whether replays can't be paid now, as any process can tell. Never call it inside a database session."""
    reserve, approver = context.settings.replay_reserve, context.approver
    return bool(reserve and approver and context.account(approver).free < reserve)


def is_paid_from(approver: str | None, verification: str, bid_approver: str, client: str) -> bool:
    """Whether the replays of such a Bid's lease are paid from the reserve: not those that are replays, and of no other
    approver.
    """
    is_ours = approver is not None and bid_approver == approver != ZERO_ADDRESS
    return is_ours and client != approver and verification not in UNAUDITED
