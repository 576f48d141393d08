"""Quotes: what a job would cost with the asks that are open now, and the Bid to sign for it. Nothing is stored."""

from collections.abc import Sequence

from sqlmodel import select

from contracts.amounts import MAX_AMOUNT, format_amount
from contracts.api.bodies import AskResources, OrderStatus, QuoteIn, QuoteOut, RuleSet
from contracts.api.problems import Code, Problem
from contracts.orders import Ask, Bid
from contracts.types import SECONDS_PER_HOUR, ZERO_ADDRESS, to_hex
from market.context import Context
from market.matching import AskOffer, BidOffer
from market.matching.classes import fits, lowest_limit, round_stake
from market.models import AskRow
from market.services.accounts import next_nonce
from market.services.asks import ask_status
from market.standing import ask_offer, needs_of, tick

ROOM = (5, 4)  # above the dearest fitting ask: prices move while a job waits
STAKE_PRICES = 10
MAX_REPLAYS = 1 / 8  # of all checkpoints: what a client or its approver may well replay


def quote(context: Context, body: QuoteIn) -> QuoteOut:
    rules = _rules(context, body.rules)
    if body.units == 0:
        raise _invalid("units: 0 work units per checkpoint; measure them with `gpumarket recipe measure`")
    account = context.account(body.client)
    asks = _fitting(context, body, rules)
    price_of = {ask.id: lowest_limit(ask, body.units, tick(context)) for ask in asks}
    prices = sorted(price_of.values())
    bid = _bid(context, body, rules, prices, next_nonce(context, body.client, account))
    if bid.max_price <= bid.fee:
        raise _invalid(f"max_price: {bid.max_price} has the fee of {bid.fee} in it, and leaves nothing for a provider")
    if bid.stake < max(1, rules.rules.arbiter_fee):
        raise _invalid(f"stake: {bid.stake} does not cover the arbiter's fee of {rules.rules.arbiter_fee}")
    matching = [
        ask for ask in asks if round_stake(ask.max_stake) >= bid.stake and price_of[ask.id] + bid.fee <= bid.max_price
    ]
    cheapest = min(matching, key=lambda ask: price_of[ask.id], default=None)
    lowest = price_of[cheapest.id] if cheapest else None
    highest_cost = bid.max_price * bid.checkpoints
    if highest_cost > MAX_AMOUNT:
        raise _invalid(
            f"max_price: {bid.max_price} for each of {bid.checkpoints} checkpoints is more than the escrow can count, "
            f"{MAX_AMOUNT}"
        )
    missing = max(0, highest_cost - account.free)
    return QuoteOut(
        job=bid.job,
        checkpoints=bid.checkpoints,
        matching_asks=len({ask.provider for ask in matching}),  # an Ask is made anew before the old one ends
        lowest_price=lowest,
        seconds_per_checkpoint=body.units * SECONDS_PER_HOUR / cheapest.units_per_hour if cheapest else None,
        likely_cost=None if lowest is None else (lowest + bid.fee) * bid.checkpoints,
        highest_cost=highest_cost,
        free=account.free,
        missing=missing,
        bid=bid,
        typed_data=bid.typed_data(context.chain.domain),
        warnings=_warnings(context, bid, rules, body.spec.deadline, asks, matching, missing),
    )


def _rules(context: Context, name: str | None) -> RuleSet:
    if name is None:
        return next(iter(context.rules.values()))
    if name not in context.rules:
        raise Problem(
            422,
            Code.RULES_UNKNOWN,
            f"this market offers no rules named {name!r}",
            f"There are: {', '.join(context.rules)}",
        )
    return context.rules[name]


def _fitting(context: Context, body: QuoteIn, rules: RuleSet) -> list[AskOffer]:
    """Open asks of machines that could do the job in time and want it, whatever their price and stake."""
    now = context.now()
    spec = body.spec
    job = BidOffer(
        id="",
        client=body.client,
        needs=needs_of(spec, rules.hash),
        units=body.units,
        limit=0,
        fee=0,
        stake=0,
        rest=spec.checkpoints,
        recipe=spec.files[spec.recipe_path].sha256,
        timeout=rules.rules.checkpoint_timeout,
        left=None if spec.deadline_time is None else spec.deadline_time - now,
    )
    with context.db.reading() as session:
        rows = session.exec(select(AskRow).where(AskRow.rules == rules.hash, AskRow.valid_until >= now)).all()
    found = []
    for row in rows:
        ask = Ask.model_validate(row.ask)
        offer = ask_offer(row.id, ask, AskResources.model_validate(row.resources))
        if fits(job, offer):
            found.append((ask, offer))
    accounts = context.accounts(ask.provider for ask, _ in found)
    return [offer for ask, offer in found if ask_status(ask, accounts[ask.provider], now) is OrderStatus.OPEN]


def _bid(context: Context, body: QuoteIn, rules: RuleSet, prices: Sequence[int], nonce: int | None) -> Bid:
    max_price, fee = body.max_price, context.settings.fee
    now, deadline = context.now(), body.spec.deadline_time
    if deadline is not None and deadline <= now:
        raise _invalid(f"deadline: {body.spec.deadline} has passed")
    if max_price is None:
        if not prices:
            raise _invalid(
                "max_price: no open ask fits the job now, so there is no price to go by; give a max_price",
            )
        max_price = -(-prices[-1] * ROOM[0] // ROOM[1]) + fee
    stake = body.stake if body.stake is not None else STAKE_PRICES * max_price + rules.rules.arbiter_fee
    if nonce is None:
        raise Problem(
            409,
            Code.ORDER_REPLAYED,
            f"all nonces of {body.client}'s page are used",
            "Raise the account's page in the escrow; that cancels its orders that were never opened.",
        )
    approver = body.approver or context.settings.recommended_approver or context.chain.settings.approver
    return Bid(
        client=body.client,
        matcher=context.matcher,
        approver=approver or ZERO_ADDRESS,
        job=to_hex(body.spec.job_hash()),
        rules=rules.hash,
        checkpoints=body.spec.checkpoints,
        units=body.units,
        max_price=max_price,
        fee=fee,
        stake=stake,
        start_tip=body.start_tip,
        valid_until=min(now + body.valid_for, deadline or now + body.valid_for),
        nonce=nonce,
    )


def _warnings(
    context: Context,
    bid: Bid,
    rules: RuleSet,
    deadline: str | None,
    fitting: list[AskOffer],
    matching: list[AskOffer],
    missing: int,
) -> list[str]:
    found = []
    if not fitting:
        late = f", to be done by {deadline}," if deadline else ""
        found.append(f"no open ask fits the job{late} now; it will wait for one")
    elif not matching:
        found.append("machines fit the job, but none at this max_price and stake")
    share = _replays_needed(bid, rules)
    if share > MAX_REPLAYS:
        found.append(
            f"a stake of {_tokens(context, bid.stake)} deters cheating only if more than {share:.0%} of the "
            f"checkpoints are replayed; {STAKE_PRICES} prices more than the arbiter's fee of "
            f"{_tokens(context, rules.rules.arbiter_fee)} is usual"
        )
    if bid.approver == ZERO_ADDRESS:
        found.append(
            "no approver: you must approve checkpoints yourself, or the provider waits a window for each payment"
        )
    if missing:
        found.append(f"deposit {_tokens(context, missing)} more before you post the Bid")
    return found


def _tokens(context: Context, amount: int) -> str:
    return f"{format_amount(amount, context.chain.decimals)} {context.chain.symbol}"


def _replays_needed(bid: Bid, rules: RuleSet) -> float:
    """Share of checkpoints that must be replayed for cheating not to pay: docs/protocol.md section 5."""
    price = bid.max_price - bid.fee
    return price / (price + 0.8 * max(0, bid.stake - rules.rules.arbiter_fee))


def _invalid(detail: str) -> Problem:
    return Problem(422, Code.VALIDATION_FAILED, detail)
