"""The epoch loop: read the open orders, clear them, publish what they were, open what matched."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from eth_utils.crypto import keccak
from sqlalchemy import func
from sqlmodel import col, select

from contracts.chain import events
from contracts.chain.calls import Match as Pair
from contracts.chain.errors import Reason as Refusal
from contracts.commitment import merkle_root
from contracts.orders import Ask, Bid, Rules
from contracts.terms import AccountWord
from contracts.types import ZERO_ADDRESS, from_hex, to_hex
from market.context import Context
from market.leases import is_final, terms_of
from market.matching import Book, Match, Result, clear
from market.messages import accept
from market.models import BidRow, EpochRow
from market.rounds import repeat
from market.standing import StandingAsk, WaitingBid, standing_asks, tick, waiting_bids

log = structlog.get_logger()

BATCH = 100  # leases opened by one transaction
FORMER_KEY = "it was signed for a former key of this market, or for another one: cancel it, and submit it again"


def run(context: Context, stop: threading.Event) -> None:
    """Clear once an epoch until `stop`."""

    def timed(context: Context) -> None:
        with context.metrics.clearing.time():
            clear_epoch(context)

    repeat(context, "clearing", timed, stop, context.settings.epoch_seconds)


def clear_epoch(context: Context) -> EpochRow | None:
    """One clearing. Returns the epoch it made, or None if nothing matched: such an epoch costs nothing."""
    # The escrow would skip what a former leader is just opening, or what was given up as not mined: but for gas.
    context.sending.settle()
    now = context.now()
    with context.db.reading() as session:
        finality, head = context.chain.settings.finality, context.head.number
        waiting = waiting_bids(session, now)
        waiting = [bid for bid in waiting if bid.previous is None or is_final(bid.previous, finality, head)]
        standing = standing_asks(session, now)
    # The escrow opens a lease only for the matcher that both orders name, or for anybody if one names none.
    _tell(context, {one.offer.id: FORMER_KEY for one in waiting if not _may_match(context, one.bid)})
    bids = {one.offer.id: one for one in waiting if _may_match(context, one.bid)}
    asks = {one.offer.id: one for one in standing if _may_match(context, one.ask)}
    book = _book(context, bids, asks)
    result = clear(book, tick=tick(context))
    openable = _dry_run(context, [_Opening(one, bids[one.bid.id], asks[one.ask.id]) for one in result.matches])
    if not openable:
        _note_waiting(context, result)
        return None
    epoch = _begin_epoch(context, book, result, openable)
    for at in range(0, len(openable), BATCH):
        _open(context, epoch, openable[at : at + BATCH])
    return epoch


@dataclass(frozen=True)
class _Opening:
    match: Match
    bid: WaitingBid
    ask: StandingAsk


def _may_match(context: Context, order: Bid | Ask) -> bool:
    return order.matcher in (ZERO_ADDRESS, context.matcher)


# ------------------------------------------------------------------ the book


def _book(context: Context, bids: Mapping[str, WaitingBid], asks: Mapping[str, StandingAsk]) -> Book:
    """The book with what the chain says of its parties; cancelled and used orders left out."""
    owners = {one.bid.client for one in bids.values()} | {one.ask.provider for one in asks.values()}
    accounts = context.accounts(owners)
    usable = [one for one in bids.values() if one.previous or _usable(one.bid, accounts[one.bid.client])]
    return Book(
        bids=tuple(
            replace(one.offer, timeout=context.rule_set(one.bid.rules).rules.checkpoint_timeout) for one in usable
        ),
        asks=tuple(one.offer for one in asks.values() if one.ask.page == accounts[one.ask.provider].page),
        free={owner: account.free for owner, account in accounts.items()},
        active={owner: account.active for owner, account in accounts.items()},
    )


def _usable(bid: Bid, account: AccountWord) -> bool:
    """Whether a Bid may open its first lease; later ones don't look at the nonce."""
    return bid.page == account.page and not account.used >> bid.bit & 1


# ------------------------------------------------------------------ opening


def _pairs(context: Context, openings: Sequence[_Opening]) -> tuple[list[Rules], list[Pair]]:
    """The matches as the escrow takes them, each rule-set once."""
    hashes = sorted({one.bid.bid.rules for one in openings})
    pairs = [
        Pair(
            bid=one.bid.bid,
            ask=one.ask.ask,
            price=one.match.price,
            bid_signature=one.bid.signature,
            ask_signature=one.ask.signature,
            rules=hashes.index(one.bid.bid.rules),
            prev=terms_of(one.bid.previous) if one.bid.previous else None,
        )
        for one in openings
    ]
    return [context.rule_set(hash).rules for hash in hashes], pairs


def _dry_run(context: Context, openings: Sequence[_Opening]) -> list[_Opening]:
    """The matches that the escrow would open now."""
    openable: list[_Opening] = []
    for at in range(0, len(openings), BATCH):
        part = openings[at : at + BATCH]
        call = context.chain.open_batch(*_pairs(context, part))
        for one, code in zip(part, context.chain.dry_run(call, context.matcher), strict=True):
            if code == Refusal.OK:
                openable.append(one)
            else:
                job, ask, reason = one.match.bid.id, one.match.ask.id, Refusal(code).sentence
                log.info("clearing.not_openable", job=job, ask=ask, reason=reason)
    return openable


def _begin_epoch(context: Context, book: Book, result: Result, openable: Sequence[_Opening]) -> EpochRow:
    """Publish the root of the order set, and store what will be opened, before it is."""
    leaves = sorted([bid.id for bid in book.bids] + [ask.id for ask in book.asks])
    root = to_hex(order_set_root(leaves))
    with context.db.reading() as session:
        stored = session.exec(select(func.max(EpochRow.number))).one() or 0
    # A reorganisation may have taken back what was published; its number is not used again.
    number = max(context.chain.newest_epoch(context.matcher), stored) + 1
    receipt = context.sending.send(context.chain.publish_epoch(number, root))
    body = {
        "number": number,
        "order_root": root,
        "published_tx": to_hex(receipt["transactionHash"]),
        "matches": [
            {"bid": one.match.bid.id, "ask": one.match.ask.id, "price": str(one.match.price)} for one in openable
        ],
        "unmatched": [{"bid": bid, "reason": reason.value} for bid, reason in result.reasons.items()],
    }
    with context.leading() as session:
        epoch: EpochRow = accept(context, session, "epoch", body)
    _note_waiting(context, result)
    return epoch


def order_set_root(ids: Sequence[str]) -> bytes:
    """Commitment to an epoch's orders: the tree of docs/protocol.md section 3 over their sorted ids."""
    return merkle_root([keccak(b"gpumarket order" + from_hex(id)) for id in sorted(ids)])


def _open(context: Context, epoch: EpochRow, openings: Sequence[_Opening]) -> None:
    receipt = context.sending.send(context.chain.open_batch(*_pairs(context, openings)))
    happened = context.chain.events(receipt)
    opened = {event.terms.parties.bid: event.lease for event in happened if isinstance(event, events.Opened)}
    skipped = {event.index: Refusal(event.reason) for event in happened if isinstance(event, events.Skipped)}
    notes = {one.match.bid.id: skipped[at].sentence if at in skipped else "" for at, one in enumerate(openings)}
    body = {"number": epoch.number, "transaction": to_hex(receipt["transactionHash"]), "notes": notes}
    with context.leading() as session:
        accept(context, session, "opened", body)  # the indexer names the leases, when it comes to their block
    for bid, note in notes.items():
        lease = opened.get(bid)
        log.info("clearing.opened" if lease else "clearing.skipped", job=bid, lease=lease, note=note)


def _note_waiting(context: Context, result: Result) -> None:
    """Tell each bid that was left out why; write only what changed."""
    _tell(context, {one.bid.id: "" for one in result.matches} | {bid: str(why) for bid, why in result.reasons.items()})


def _tell(context: Context, told: dict[str, str]) -> None:
    if not told:
        return
    with context.db.reading() as session:
        before = {row.id: row.wait_reason for row in session.exec(select(BidRow).where(col(BidRow.id).in_(list(told))))}
    changed = {bid: why for bid, why in told.items() if before.get(bid) != why}
    if changed:
        with context.leading() as session:
            for row in session.exec(select(BidRow).where(col(BidRow.id).in_(list(changed)))):
                row.wait_reason = changed[row.id]
                session.add(row)
