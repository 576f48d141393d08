"""Takes the exits that anyone may take, for the leases of this market: no money waits for a party that went away."""

import threading

import structlog
from sqlmodel import Session, col, or_, select
from web3.contract.contract import ContractFunction

from contracts.chain.errors import EscrowError
from contracts.errors import first_sentence
from contracts.orders import Approval, Rules
from contracts.terms import Phase, StateWord, Terms
from market.chain.indexer import view_of
from market.runtime.context import Context
from market.runtime.loop import repeat
from market.store.models import ApprovalRow, BidRow, LeaseRow
from market.store.queries.events import used_rules
from market.store.queries.leases import terms_of
from market.store.unreadable import BROKEN

log = structlog.get_logger()


def run_keeper(context: Context, stop: threading.Event) -> None:
    """One round every epoch until `stop`."""
    repeat(context, "keeper", keep_leases, stop, context.settings.epoch_seconds)


def keep_leases(context: Context) -> None:
    """Look at each live lease of this market on chain, and take the exit that is due."""
    # Those of other markets on the escrow are theirs to pay gas for. A Bid that is held here may have been opened by a
    # former key; one that is not, by a database that was lost.
    ours = or_(col(LeaseRow.bid).in_(select(BidRow.id)), col(LeaseRow.fee_to) == context.matcher)
    with context.db.reading() as session:
        rows = session.exec(select(LeaseRow).where(col(LeaseRow.finished).is_(None), ours)).all()
    for row in rows:
        with structlog.contextvars.bound_contextvars(lease=row.id, job=row.bid):
            state = context.chain.state(row.id)
            try:
                _keep_one(context, row, state, context.now())
            except EscrowError as error:  # somebody else was quicker, or the clock is not there yet
                log.info("keeper.not_now", problem=error.message)
            except BROKEN as error:  # of this lease only: the others' money must not wait
                log.warning("keeper.skipped", problem=first_sentence(error))


def _keep_one(context: Context, row: LeaseRow, state: StateWord, now: int) -> None:
    terms = terms_of(row)
    accepted = state.synced(terms.nums, now).accepted
    pending = state.claimed > accepted
    if state.phase is Phase.ACTIVE:
        if accepted == row.end:
            _send(context, "collect", context.chain.collect(terms), row, state)
        elif not pending and now >= state.t + row.timeout:
            _send(context, "end", context.chain.end(terms), row, state)
    elif state.phase is Phase.CLOSING:
        # The approver redeems for a vanished worker at once; this is for when it did not.
        if now >= state.t + row.window // 2:
            state = _redeem_newest(context, row, terms, state)
        if state.phase is Phase.CLOSING and now >= state.t + row.window:
            _send(context, "close", context.chain.close(terms), row, state)
    elif state.phase is Phase.CHALLENGED:
        rules = _rules_of(context, row)
        if rules is None:
            return  # neither this database nor the chain says what the market offered once
        _answer(context, row, terms, rules, state)
        resolve = context.chain.resolve(terms, rules)
        try:
            context.chain.dry_run(resolve, context.matcher)
        except EscrowError:
            return  # no verdict yet, and the arbiter still has time
        _send(context, "resolve", resolve, row, state)


def _rules_of(context: Context, row: LeaseRow) -> Rules | None:
    """The rules of a lease: those that this market has offered, or else as they were used on chain."""
    try:
        return context.rule_set(row.rules).rules
    except KeyError:
        with context.db.reading() as session:
            return used_rules(session, row.rules)


def _answer(context: Context, row: LeaseRow, terms: Terms, rules: Rules, state: StateWord) -> None:
    """What was approved is paid also while a checkpoint is disputed; if it is the disputed one, that is over."""
    with context.db.reading() as session:
        newest = _newest_approval(session, row.id)
        view = view_of(session, row.id)
    if newest is None or view is None or newest.n <= state.accepted:
        return
    approval = Approval(lease=row.id, n=newest.n, tip=newest.tip, last=newest.last)
    call = context.chain.redeem_challenged(terms, rules, approval, newest.signature, view.pending)
    try:
        context.chain.dry_run(call, context.matcher)
    except EscrowError as error:  # it is of another chain of checkpoints than what is claimed
        log.info("keeper.approval_does_not_help", problem=error.message)
        return
    _send(context, "redeem_challenged", call, row, state)


def _redeem_newest(context: Context, row: LeaseRow, terms: Terms, state: StateWord) -> StateWord:
    """Pay the provider what was approved, before its lease goes. Returns the state after it."""
    with context.db.reading() as session:
        newest = _newest_approval(session, row.id)
    if newest is None or newest.n <= state.accepted or newest.n < state.claimed:
        return state
    approval = Approval(lease=row.id, n=newest.n, tip=newest.tip, last=newest.last)
    _send(context, "redeem", context.chain.redeem(terms, approval, newest.signature), row, state)
    return context.chain.state(row.id)


def _newest_approval(session: Session, lease: str) -> ApprovalRow | None:
    return session.exec(
        select(ApprovalRow).where(ApprovalRow.lease == lease).order_by(col(ApprovalRow.n).desc())
    ).first()


def _send(context: Context, what: str, call: ContractFunction, row: LeaseRow, state: StateWord) -> None:
    context.sending.send(call, key=context.chain.intent(what, row.id, state))
    log.info("keeper.took_exit", call=what)
