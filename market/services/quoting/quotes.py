"""Quotes: what a job would cost with the asks that are open now, and the Bid to sign for it. Nothing is stored."""

from collections.abc import Sequence

from contracts.amounts import MAX_AMOUNT
from contracts.api.info import RuleSet
from contracts.api.problems import Code, Problem
from contracts.api.quotes import AuditQuote, QuoteIn, QuoteOut
from contracts.audits.deterrence import default_stake, deters, replay_cost
from contracts.audits.levels import UNCHECKED
from contracts.audits.verification import PPM
from contracts.job.spec import JobSpec
from contracts.orders import Bid
from contracts.types import ZERO_ADDRESS, to_hex
from market.chain.replay_reserve import is_paid_from, is_short
from market.matching import AskOffer
from market.runtime.context import Context
from market.services import admission
from market.services.accounts import next_nonce
from market.services.quoting.audit_terms import audit_warnings
from market.services.quoting.nearest import nearest_machine
from market.services.quoting.offers import unknown_names
from market.services.quoting.pricing import STAKE_PRICES, Offers, Pricing, invalid, pricing

MAX_REPLAYS = 1 / 8  # of all checkpoints: what a client or its approver may well replay


def quote(offers: Offers, body: QuoteIn) -> QuoteOut:
    context = offers.context
    admission.check_takes_orders(context)
    priced = pricing(offers, body)
    _check_terms(context, body, priced)
    account = context.account(body.client)
    bid = _bid(context, body, priced, next_nonce(context, body.client, account))
    match = priced.match
    likely = None if match is None else match.price + bid.fee
    lasts = None if match is None else priced.duration(match.ask)
    highest_cost = bid.max_price * bid.checkpoints
    missing = max(0, highest_cost - account.free)
    return QuoteOut(
        job=bid.job,
        checkpoints=bid.checkpoints,
        matching_asks=len({ask.provider for ask in priced.matching}),  # an Ask is made anew before the old one ends
        lowest_limit=priced.lowest_limit,
        likely_price=likely,
        likely_ask=None if match is None else match.ask.id,
        seconds_per_checkpoint=lasts and lasts.seconds,
        seconds_basis=lasts and lasts.basis,
        likely_per_hour=None if lasts is None or likely is None else lasts.per_hour(likely),
        likely_cost=None if likely is None else likely * bid.checkpoints,
        highest_cost=highest_cost,
        free=account.free,
        missing=missing,
        audit=_audit(priced.rules, bid),
        bid=bid,
        typed_data=bid.typed_data(context.chain.domain),
        warnings=[
            *_waits(context, body.spec, priced),
            *_warnings(context, bid, priced, missing),
            *audit_warnings(context, priced.rules, bid, lasts and lasts.seconds),
        ],
    )


def _check_terms(context: Context, body: QuoteIn, priced: Pricing) -> None:
    """Raises Problem for what no Bid could say, or no provider take."""
    if body.spec.deadline_time is not None and body.spec.deadline_time <= context.now():
        raise invalid(f"deadline: {body.spec.deadline} has passed")
    if body.max_price is None and not priced.fitting:
        raise invalid("max_price: no open ask fits the job now, so there is no price to go by; give a max_price")
    offer, checkpoints = priced.bid, body.spec.checkpoints
    if offer.limit == 0:
        raise invalid(
            f"max_price: {body.max_price} has the fee of {offer.fee} in it, and leaves nothing for a provider"
        )
    arbiter_fee = priced.rules.rules.arbiter_fee
    if offer.stake < max(1, arbiter_fee):
        raise invalid(f"stake: {offer.stake} does not cover the arbiter's fee of {arbiter_fee}")
    max_price, too_much = offer.limit + offer.fee, f"is more than the escrow can count, {MAX_AMOUNT}"
    if max_price * checkpoints > MAX_AMOUNT:
        raise invalid(f"max_price: {max_price} for each of {checkpoints} checkpoints {too_much}")
    if offer.stake > MAX_AMOUNT:
        raise invalid(f"stake: {offer.stake} {too_much}")


def _bid(context: Context, body: QuoteIn, priced: Pricing, nonce: int | None) -> Bid:
    now, deadline, offer = context.now(), body.spec.deadline_time, priced.bid
    if nonce is None:
        raise Problem(
            409,
            Code.ORDER_REPLAYED,
            f"all nonces of {body.client}'s page are used",
            "Raise the account's page in the escrow; that cancels its orders that were never opened.",
        )
    approver = body.approver or context.approver
    return Bid(
        client=body.client,
        matcher=context.matcher,
        approver=approver or ZERO_ADDRESS,
        job=to_hex(body.spec.job_hash()),
        rules=priced.rules.hash,
        checkpoints=body.spec.checkpoints,
        units=body.units,
        max_price=offer.limit + offer.fee,
        fee=offer.fee,
        stake=offer.stake,
        start_tip=body.start_tip,
        valid_until=min(now + body.valid_for, deadline or now + body.valid_for),
        nonce=nonce,
    )


def _waits(context: Context, spec: JobSpec, priced: Pricing) -> list[str]:
    """Why the job would wait for a machine."""
    if not priced.fitting:
        late = f", to be done by {spec.deadline}," if spec.deadline else ""
        waits = f"no open ask fits the job{late} now; it will wait for one: {priced.reason}"
        asks = [one.offer for one in priced.seen.asks.values()]
        return [waits, *unknown_names(priced.seen.asks.values(), spec), *_nearest(context, priced, asks)]
    if not priced.matching:
        needed, amount = priced.lowest_limit, context.chain.format_amount
        enough = f"; the least max_price for one with this stake is {amount(needed)}" if needed else ""
        fits = f"machines fit the job, but none at this max_price and stake{enough}"
        return [fits, *_nearest(context, priced, priced.fitting)]
    return [f"for now it would wait: {priced.reason}"] if priced.reason else []


def _nearest(context: Context, priced: Pricing, asks: Sequence[AskOffer]) -> list[str]:
    told = nearest_machine(context, priced.bid, asks)
    return [told] if told else []


def _warnings(context: Context, bid: Bid, priced: Pricing, missing: int) -> list[str]:
    found, rules, amount = [], priced.rules.rules, context.chain.format_amount
    if told := _undeterring(context, bid, priced.rules):
        found.append(told)
    share = _replays_needed(bid, rules.arbiter_fee)
    if priced.rules.level == "unchecked" and share > MAX_REPLAYS:
        found.append(
            f"a stake of {amount(bid.stake)} deters cheating only if more than {share:.0%} of the "
            f"checkpoints are replayed; {STAKE_PRICES} prices more than the arbiter's fee of "
            f"{amount(rules.arbiter_fee)} is usual"
        )
    if bid.approver == ZERO_ADDRESS:
        found.append(
            "no approver: you must approve checkpoints yourself, or the provider waits a window for each payment"
        )
    verification = priced.rules.rules.verification
    if is_short(context) and is_paid_from(context.approver, verification, bid.effective_approver, bid.client):
        found.append(
            "for now it would wait: the market's approver has nothing to pay replays with, so no lease under audited "
            "rules is opened before its operator fills that up"
        )
    if missing:
        found.append(f"deposit {amount(missing)} more before you post the Bid")
    return found


def _audit(rules: RuleSet, bid: Bid) -> AuditQuote:
    verification = rules.verification or UNCHECKED
    is_audited = verification.level != "unchecked"
    return AuditQuote(
        level=verification.level,
        share_ppm=verification.share_ppm,
        approve_every=verification.approve_every,
        replay_cost=replay_cost(verification, bid.checkpoints, bid.max_price),
        deterring_stake=default_stake(verification, bid.max_price, rules.rules.arbiter_fee) if is_audited else None,
    )


def _undeterring(context: Context, bid: Bid, rules: RuleSet) -> str | None:
    """Where somebody looks, but a lie would pay all the same."""
    verification, fee, amount = rules.verification, rules.rules.arbiter_fee, context.chain.format_amount
    if verification is None or verification.level == "unchecked":
        return None
    if deters(verification, bid.stake, bid.max_price, fee):
        return None
    enough, share = default_stake(verification, bid.max_price, fee), 100 * verification.share_ppm / PPM
    return (
        f"a stake of {amount(bid.stake)} does not deter: of the checkpoints {share:g} % are "
        f"replayed, so lying pays at this max_price; {amount(enough)} is enough"
    )


def _replays_needed(bid: Bid, arbiter_fee: int) -> float:
    """Share of checkpoints that must be replayed for cheating not to pay: docs/protocol.md section 5."""
    price = bid.max_price - bid.fee
    return price / (price + 0.8 * max(0, bid.stake - arbiter_fee))
