"""What the market asks of Asks and Bids alike. Each check raises a Problem that names the value and the way out."""

from typing import TypeVar

from pydantic import BaseModel

from contracts.amounts import format_amount
from contracts.api.bodies import AskIn, BidIn
from contracts.api.info import RuleSet
from contracts.api.problems import Code, Problem
from contracts.orders import NONCE_BITS, Ask, Bid, owner_of
from contracts.terms import AccountWord
from contracts.text import check_texts
from contracts.types import ZERO_ADDRESS
from market.runtime.context import Context
from market.services.signatures import check_signed

Order = Ask | Bid
B = TypeVar("B", AskIn, BidIn)


def terms_invalid(detail: str, hint: str | None = None, **values: str | int) -> Problem:
    return Problem(422, Code.ORDER_TERMS_INVALID, detail, hint, **values)


def kind_of(order: Order) -> str:
    return type(order).__name__


def check_positive(order: Order, *fields: str) -> None:
    for field in fields:
        if getattr(order, field) == 0:
            name = type(order).model_fields[field].alias or field
            raise terms_invalid(f"{name} of the {kind_of(order)} is 0; it must be at least 1")


def check_storable(value: BaseModel, where: str) -> None:
    """Not among the bodies' own checks: those hold for what was stored before this was asked, too."""
    try:
        check_texts(value.model_dump(mode="json"), where)
    except ValueError as error:
        raise Problem(422, Code.VALIDATION_FAILED, str(error), "Send it without.") from error


def check_takes_orders(context: Context) -> None:
    """Raises a Problem in a market that drains."""
    settings = context.settings
    if settings.draining:
        raise Problem(
            410,
            Code.MARKET_DRAINING,
            f"this market takes no new orders and opens no leases: {_elsewhere(settings.successor)}",
            "Go there; it may have another escrow: look at its /v1/info before you sign."
            if settings.successor
            else "Use another market. What lives here goes on to its end.",
            **({"successor": settings.successor} if settings.successor else {}),
        )


def _elsewhere(successor: str | None) -> str:
    return f"{successor} takes its place" if successor else "it closes when those that live are over"


def check_market(context: Context, order: Order) -> None:
    check_takes_orders(context)
    if order.matcher not in (ZERO_ADDRESS, context.matcher):
        raise Problem(
            422,
            Code.ORDER_NOT_FOR_THIS_MARKET,
            f"the {kind_of(order)} names the matcher {order.matcher}, but this market is {context.matcher}",
            f"Sign it with matcher {context.matcher} (see /v1/info), or post it to the market that it names.",
        )


def check_rules(context: Context, order: Order) -> RuleSet:
    """The rule-set that the order signs: one that is on offer now."""
    for offered in context.rules.values():
        if offered.hash == order.rules:
            return offered
    names = ", ".join(f"{known.name} ({known.hash})" for known in context.rules.values())
    raise Problem(
        422,
        Code.RULES_UNKNOWN,
        f"this market offers no rules with the hash {order.rules}",
        f"Sign one of its rule-sets: {names}",
    )


def check_not_expired(context: Context, order: Order) -> None:
    now = context.now()
    if order.valid_until < now:
        raise Problem(
            422,
            Code.ORDER_EXPIRED,
            f"the {kind_of(order)} was valid until {order.valid_until}, and it is {now} now (UTC seconds)",
            "Sign a new one with a later validUntil, and check this machine's clock.",
        )


def check_order_signature(context: Context, order: Order, body: B) -> B:
    """The body with the order's signature as the escrow takes it."""
    owner = owner_of(order)
    otherwise = f"the signature is not that of {owner} over this {kind_of(order)}"
    return check_signed(context, body, order, owner, otherwise, code=Code.ORDER_SIGNATURE_INVALID)


def check_page(order: Order, account: AccountWord) -> None:
    if order.page != account.page:
        why = "was cancelled" if order.page < account.page else "is not in force yet"
        raise Problem(
            422,
            Code.ORDER_CANCELLED,
            f"the {kind_of(order)} {why}: it names page {order.page}, and {owner_of(order)} is at page {account.page}",
            f"Sign a new one for page {account.page}.",
            page=account.page,
        )


def check_nonce(bid: Bid, account: AccountWord) -> None:
    """After check_page."""
    if bid.bit >= NONCE_BITS:
        raise terms_invalid(f"nonce {bid.nonce} has bit {bid.bit}; the highest is {NONCE_BITS - 1}")
    if account.used >> bid.bit & 1:
        raise replayed(bid, "is used up on chain")


def replayed(bid: Bid, why: str) -> Problem:
    return Problem(
        409,
        Code.ORDER_REPLAYED,
        f"nonce {bid.nonce} of {bid.client} {why}",
        f"Sign a new Bid with `next_nonce` of /v1/accounts/{bid.client}.",
        nonce=bid.nonce,
    )


def deposit_hint(owner: str, missing: int, decimals: int) -> str:
    return f"With the key of {owner}: gpumarket wallet deposit {format_amount(missing, decimals)}"
