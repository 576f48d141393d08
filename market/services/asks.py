"""Asks: admission and listing."""

from collections.abc import Sequence

from sqlalchemy import func
from sqlmodel import Session, col, select

from contracts.api.bodies import AskIn, AskOut, AskResources, OrderStatus, Page, ReceiptOut
from contracts.api.info import RuleSet
from contracts.api.problems import Code, Problem
from contracts.orders import Ask
from contracts.terms import AccountWord
from market.runtime.context import Context
from market.services import admission
from market.services.leases import readable
from market.services.receipts import sign_receipt
from market.store.models import AskRow
from market.store.paging import BATCH, SCAN, Filling, Keyset

_BY_RECEPTION = Keyset(col(AskRow.received), col(AskRow.id))


def admit_ask(context: Context, body: AskIn) -> tuple[AskOut, bool]:
    """Store an Ask that could be matched. The same again gives the stored one; the flag says if it is new."""
    ask = body.ask
    id = ask.digest(context.chain.domain)
    with context.db.reading() as session:
        stored = session.get(AskRow, id)
    if stored is None:
        body = _check(context, body)
        with context.db.session() as session:
            stored = session.get(AskRow, id)
            if stored is None:
                _check_open_asks(context, session, ask)
                row = context.accept(session, "ask", body, receipt=sign_receipt(context, session, id))
    return readable(_outs(context, [stored or row])[0], f"Ask {id}"), stored is None


def _check(context: Context, body: AskIn) -> AskIn:
    """The body with its signature as the escrow takes it."""
    ask = body.ask
    admission.check_storable(body.resources, "resources")
    admission.check_market(context, ask)
    admission.check_positive(ask, "price_per_hour", "units_per_hour", "max_stake", "max_active", "max_checkpoints")
    offered = admission.check_rules(context, ask)
    rules = offered.rules
    _check_level(context, ask, body.resources, offered)
    if ask.max_stake < rules.arbiter_fee:
        raise admission.terms_invalid(
            f"maxStake {ask.max_stake} is below the arbiter's fee {rules.arbiter_fee}, which every stake must cover"
        )
    if ask.valid_from > ask.valid_until:
        raise admission.terms_invalid(f"validFrom {ask.valid_from} is after validUntil {ask.valid_until}")
    admission.check_not_expired(context, ask)
    if body.resources.hash() != ask.resources:
        raise Problem(
            422,
            Code.RESOURCES_MISMATCH,
            f"the Ask signs resources with the hash {ask.resources}, but those given have {body.resources.hash()}",
            "Send the resources that were hashed for the signature, unchanged.",
        )
    body = admission.check_order_signature(context, ask, body)
    account = context.account(ask.provider)
    admission.check_page(ask, account)
    if account.active == 0 and account.free < ask.max_stake:
        missing = ask.max_stake - account.free
        raise Problem(
            422,
            Code.STAKE_SHORT,
            f"the Ask offers a stake of up to {ask.max_stake}, but {ask.provider} has {account.free} free",
            admission.deposit_hint(ask.provider, missing, context.chain.decimals) + ", or sign a smaller maxStake.",
            free=str(account.free),
            needed=str(ask.max_stake),
            missing=str(missing),
        )
    return body


def _check_level(context: Context, ask: Ask, resources: AskResources, offered: RuleSet) -> None:
    """Who sells under these rules must want them; under audited ones tell who can replay its work, and be somebody who
    can't take a signed Claim back.
    """
    if objection := resources.wants.objection_to_rules(offered.level, offered.most_unjudged):
        raise admission.terms_invalid(
            f"the Ask signs the rules '{offered.name}', and its own wants refuse them: {objection}",
            "Sign another of the market's rule-sets, or want more.",
        )
    if offered.level == "unchecked":
        return
    if resources.numerics is None:
        raise admission.terms_invalid(
            f"the Ask's resources tell no numerics class, and the rules '{offered.name}' are audited "
            f"({offered.level}): only a machine of the same class can replay what this one trains",
            "`gpumarket provider register` measures it; without one, sell under rules of the level 'unchecked'.",
        )
    if context.signatures.has_code(ask.provider):
        raise admission.terms_invalid(
            f"{ask.provider} is a contract, and the rules '{offered.name}' are audited ({offered.level}): a contract "
            "could disown the Claims that it has signed",
            "Sell with a plain key, which has no code at its address; or under rules of the level 'unchecked'.",
        )


def _check_open_asks(context: Context, session: Session, ask: Ask) -> None:
    in_force = select(func.count()).where(
        AskRow.provider == ask.provider, AskRow.page == ask.page, AskRow.valid_until >= context.now()
    )
    most = context.settings.max_open_asks
    if session.exec(in_force).one() >= most:
        raise Problem(
            422,
            Code.QUOTA_EXCEEDED,
            f"{ask.provider} has {most} Asks in force, and this market takes no more of one account",
            "Wait until some are past their validUntil, or raise the page on chain, which cancels all of them.",
            max_open_asks=most,
        )


def get_ask(context: Context, id: str) -> AskOut:
    with context.db.reading() as session:
        row = session.get(AskRow, id)
    if row is None:
        raise Problem(404, Code.NOT_FOUND, f"there is no Ask {id} at this market", "An Ask's id is its digest.")
    return readable(_outs(context, [row])[0], f"Ask {id}")


def list_asks(
    context: Context, provider: str | None, status: OrderStatus | None, after: str | None, limit: int
) -> Page[AskOut]:
    query = select(AskRow)
    if provider is not None:
        query = query.where(AskRow.provider == provider)
    if status is OrderStatus.EXPIRED:
        query = query.where(AskRow.valid_until < context.now())
    elif status is not None:
        query = query.where(AskRow.valid_until >= context.now())
    # Rows first and then their accounts: the chain is not asked inside a session.
    filling: Filling[AskOut] = Filling(limit)
    batch = min(limit, BATCH)
    for _ in range(0, SCAN, batch):
        with context.db.reading() as session:
            rows = session.exec(_BY_RECEPTION.after(query, after, batch + 1)).all()
        for row, out in zip(rows[:batch], _outs(context, rows[:batch]), strict=True):
            if not filling.takes(out if out is not None and status in (None, out.status) else None):
                return filling.page(after)
            after = _BY_RECEPTION.cursor(row)
        if len(rows) <= batch:
            return filling.page(None)
    return filling.page(after)


def _outs(context: Context, rows: Sequence[AskRow]) -> list[AskOut | None]:
    accounts = context.accounts(row.provider for row in rows)

    def out(row: AskRow) -> AskOut:
        account = accounts[row.provider]
        ask = Ask.model_validate(row.ask)
        return AskOut(
            id=row.id,
            ask=ask,
            signature=row.signature,
            resources=AskResources.model_validate(row.resources),
            status=ask_status(ask, account, context.now()),
            active=account.active,
            received=row.received,
            receipt=None if row.receipt is None else ReceiptOut.model_validate(row.receipt),
        )

    return context.unreadable.each(rows, out)


def ask_status(ask: Ask, account: AccountWord, now: int) -> OrderStatus:
    if ask.valid_until < now:
        return OrderStatus.EXPIRED
    if ask.page != account.page:
        return OrderStatus.CANCELLED
    if account.active == 0 and account.free < ask.max_stake:
        return OrderStatus.UNFUNDED
    return OrderStatus.OPEN
