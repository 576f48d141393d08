"""Bids: admission. Afterwards a Bid is a job."""

from sqlmodel import Session, select

from contracts.amounts import format_amount
from contracts.api.bodies import BidIn, JobOut
from contracts.api.problems import Code, Problem
from contracts.orders import Bid, Rules
from contracts.types import ZERO_ADDRESS, ZERO_TIP, to_hex
from market.runtime.context import Context
from market.services import admission
from market.services.auditing import replays
from market.services.blobs import not_uploaded
from market.services.jobs import get_job
from market.services.quoting.audit_terms import check_time_to_audit
from market.services.receipts import sign_receipt
from market.services.sealing import check_sealed
from market.store.models import BidRow


def admit_bid(context: Context, body: BidIn) -> tuple[JobOut, bool]:
    """Store a Bid that could be matched. The same again gives the stored job; the flag says if it is new."""
    bid = body.bid
    id = bid.digest(context.chain.domain)
    with context.db.reading() as session:
        is_new = session.get(BidRow, id) is None
    if is_new:
        body = _check(context, body)
        with context.db.session() as session:
            same_nonce = select(BidRow).where(
                BidRow.client == bid.client, BidRow.page == bid.page, BidRow.bit == bid.bit
            )
            other = session.exec(same_nonce).one_or_none()
            is_new = other is None
            if other is None:
                _check_files(context, session, body)  # again: from here on nobody collects them
                context.accept(session, "bid", body, receipt=sign_receipt(context, session, id))
            elif other.id != id:
                raise admission.replayed(bid, f"is that of job {other.id} already")
    return get_job(context, id), is_new


def _check(context: Context, body: BidIn) -> BidIn:
    """The body with its signatures as the escrow takes them."""
    bid = body.bid
    admission.check_storable(body.spec, "spec")
    admission.check_market(context, bid)
    admission.check_positive(bid, "checkpoints", "units", "max_price", "stake")
    offered = admission.check_rules(context, bid)
    _check_amounts(context, bid, offered.rules)
    _check_job(body)
    check_time_to_audit(context, offered, bid, body.spec)
    admission.check_not_expired(context, bid)
    body = check_sealed(context, admission.check_order_signature(context, bid, body))
    account = context.account(bid.client)
    admission.check_page(bid, account)
    admission.check_nonce(bid, account)
    with context.db.reading() as session:
        _check_start(context, session, body)
        _check_files(context, session, body)
    _check_balance(context, bid, account.free)
    return body


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


def _check_start(context: Context, session: Session, body: BidIn) -> None:
    """A job goes on from a checkpoint of a job of its client, or of one that its client approves or audits, and counts
    its steps on from there.
    """
    bid, done = body.bid, 0
    if bid.start_tip != ZERO_TIP:
        found = replays.find_start(context, session, body)
        if found is None:
            raise Problem(
                422,
                Code.JOB_MISMATCH,
                f"the Bid goes on from tip {bid.start_tip}, which no checkpoint of {bid.client} here has, nor one of a "
                "job that it approves or audits",
                "Post it to the market that has the earlier job; `gpumarket job extend` makes such a Bid.",
            )
        done = int(found.record["step"])
    given = body.spec.start_step or 0
    if given != done:
        raise Problem(
            422,
            Code.JOB_MISMATCH,
            f"the spec's start_step is {given}, but at the Bid's startTip {done} steps are done",
            "A follow-up job counts its steps on from those of the job before.",
        )


def _check_files(context: Context, session: Session, body: BidIn) -> None:
    """All but those with an address are here, and the client has shown that it has them, or may read them in a job
    with the same files.
    """
    wanted = {path: body.sealed_files.get(ref.sha256, ref) for path, ref in body.spec.stored_files.items()}
    lacking = {ref.sha256: ref for ref in not_uploaded(context, session, body.bid.client, wanted.values())}
    if lacking and replays.shares_files(context, session, body, lacking):
        lacking = {name: ref for name, ref in lacking.items() if not context.blobs.has(ref)}
    missing = {path: ref for path, ref in wanted.items() if ref.sha256 in lacking}
    if missing:
        names = ", ".join(sorted(missing)[:10]) + (", ..." if len(missing) > 10 else "")
        raise Problem(
            422,
            Code.BLOB_MISSING,
            f"{body.bid.client} has not uploaded {len(missing)} of the job's {len(body.spec.files)} files: {names}",
            "Upload each to /v1/blobs/{sha256} first, with a token of the client, and the size that the spec says.",
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
