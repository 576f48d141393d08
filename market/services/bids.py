"""Bids: admission. Afterwards a Bid is a job."""

from sqlmodel import select

from contracts.amounts import format_amount
from contracts.api.bodies import BidIn, JobOut
from contracts.api.problems import Code, Problem
from contracts.orders import Bid, Rules
from contracts.types import ZERO_ADDRESS, to_hex
from market.context import Context
from market.models import BidRow
from market.services import admission
from market.services.jobs import get_job


def admit_bid(context: Context, body: BidIn) -> tuple[JobOut, bool]:
    """Store a Bid that could be matched. The same again gives the stored job; the flag says if it is new."""
    bid = body.bid
    id = bid.digest(context.chain.domain)
    with context.db.reading() as session:
        is_new = session.get(BidRow, id) is None
    if is_new:
        _check(context, body)
        row = BidRow(
            id=id,
            client=bid.client,
            approver=bid.effective_approver,
            rules=bid.rules,
            name=body.name,
            bid=bid.model_dump(mode="json", by_alias=True),
            signature=body.signature,
            spec=body.spec.model_dump(mode="json"),
            page=bid.page,
            bit=bid.bit,
            valid_until=bid.valid_until,
        )
        with context.db.session() as session:
            same_nonce = select(BidRow).where(
                BidRow.client == bid.client, BidRow.page == bid.page, BidRow.bit == bid.bit
            )
            other = session.exec(same_nonce).one_or_none()
            if other is None:
                session.add(row)
            elif other.id != id:
                raise admission.replayed(bid, f"is that of job {other.id} already")
    return get_job(context, id), is_new


def _check(context: Context, body: BidIn) -> None:
    bid = body.bid
    admission.check_market(context, bid)
    admission.check_positive(bid, "checkpoints", "units", "max_price", "stake")
    rules = admission.check_rules(context, bid).rules
    _check_amounts(context, bid, rules)
    _check_job(body)
    admission.check_not_expired(context, bid)
    admission.check_signature(context, bid, body.signature)
    account = context.account(bid.client)
    admission.check_page(bid, account)
    admission.check_nonce(bid, account)
    _check_files(context, body)
    _check_balance(context, bid, account.free)


def _check_amounts(context: Context, bid: Bid, rules: Rules) -> None:
    if bid.matcher == ZERO_ADDRESS and bid.fee != 0:
        raise admission.terms_invalid(
            f"the Bid pays a fee of {bid.fee}, but names no matcher to pay it to",
            f"Sign it with matcher {context.matcher}.",
        )
    if bid.fee < context.settings.fee:
        raise admission.terms_invalid(
            f"the Bid's fee is {bid.fee}; this market asks for {context.settings.fee} per checkpoint",
            "Sign it with the `fee` and the `matcher` of /v1/info.",
            fee=str(context.settings.fee),
        )
    if bid.max_price <= bid.fee:
        raise admission.terms_invalid(
            f"maxPrice {bid.max_price} has the fee {bid.fee} in it, and leaves nothing for a provider"
        )
    if bid.stake < rules.arbiter_fee:
        raise admission.terms_invalid(
            f"stake {bid.stake} does not cover the arbiter's fee {rules.arbiter_fee}",
            f"Sign it with a stake of at least {rules.arbiter_fee}.",
        )


def _check_job(body: BidIn) -> None:
    found = to_hex(body.spec.job_hash())
    if found != body.bid.job:
        raise Problem(
            422,
            Code.JOB_MISMATCH,
            f"the Bid signs the job {body.bid.job}, but the spec given has the hash {found}",
            "Send the spec that was hashed for the signature, unchanged.",
        )
    if body.spec.checkpoints != body.bid.checkpoints:
        raise Problem(
            422,
            Code.JOB_MISMATCH,
            f"the Bid is for {body.bid.checkpoints} checkpoints, but the spec has {body.spec.checkpoints}",
            "A job's checkpoints are its steps / checkpoint_every.",
        )


def _check_files(context: Context, body: BidIn) -> None:
    missing = {path: ref for path, ref in body.spec.files.items() if not context.blobs.has(ref)}
    if missing:
        names = ", ".join(sorted(missing)[:10]) + (", ..." if len(missing) > 10 else "")
        raise Problem(
            422,
            Code.BLOB_MISSING,
            f"{len(missing)} of the job's {len(body.spec.files)} files are not here, or of another size: {names}",
            "Upload each to /v1/blobs/{sha256} first, with the size that the spec says.",
            missing={path: ref.sha256 for path, ref in sorted(missing.items())},
        )


def _check_balance(context: Context, bid: Bid, free: int) -> None:
    """Enough for a lease over the whole job at the highest price: then no provider's Ask can be too long for it."""
    needed = bid.max_price * bid.checkpoints
    if free < needed:
        cost, price, has = (
            f"{format_amount(amount, context.chain.decimals)} {context.chain.symbol}"
            for amount in (needed, bid.max_price, free)
        )
        raise Problem(
            422,
            Code.BALANCE_SHORT,
            f"the job may cost up to {cost} ({bid.checkpoints} checkpoints at {price}), "
            f"but {bid.client} has {has} free in the escrow",
            admission.deposit_hint(bid.client, needed - free, context.chain.decimals),
            free=str(free),
            needed=str(needed),
            missing=str(needed - free),
        )
