"""The epoch loop: read the open orders, clear them, publish what they were, open what matched."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import structlog
from eth_utils.crypto import keccak
from sqlalchemy import ColumnElement, func
from sqlmodel import Session, col, select

from contracts.api.bodies import AskResources
from contracts.chain import events
from contracts.chain.calls import Match as Pair
from contracts.chain.errors import Reason as Refusal
from contracts.commitment import merkle_root
from contracts.jobspec import JobSpec
from contracts.orders import Ask, Bid, Rules
from contracts.terms import AccountWord, Flag
from contracts.types import ZERO_ADDRESS, from_hex, to_hex
from market.context import Context
from market.leases import is_final, terms_of
from market.matching import AskOffer, BidOffer, Book, Match, Result, clear
from market.messages import accept
from market.models import AskRow, BidRow, ChainEvent, EpochRow, LeaseRow, ReportRow
from market.rounds import repeat
from market.services.early_stop import early_stop

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
        bids, previous = waiting_bids(session, now)
        finality, head = context.chain.settings.finality, context.head.number
        bids = [bid for bid in bids if bid.id not in previous or is_final(previous[bid.id], finality, head)]
        asks = standing_asks(session, now)
        signatures = _signatures(session, bids, asks)
    # The escrow opens a lease only for the matcher that both orders name, or for anybody if one names none.
    _tell(context, {bid.id: FORMER_KEY for bid in bids if not _may_match(context, bid.bid)})
    bids = [bid for bid in bids if _may_match(context, bid.bid)]
    asks = [ask for ask in asks if _may_match(context, ask.ask)]
    bids = [replace(bid, timeout=context.rule_set(bid.bid.rules).rules.checkpoint_timeout) for bid in bids]
    book = _with_balances(context, bids, previous, asks)
    result = clear(book)
    if not result.matches:
        _note_waiting(context, result)
        return None
    openable = _dry_run(context, result.matches, previous, signatures)
    if not openable:
        _note_waiting(context, result)
        return None
    epoch = _begin_epoch(context, book, result, openable)
    for at in range(0, len(openable), BATCH):
        _open(context, epoch, openable[at : at + BATCH], previous, signatures)
    return epoch


def _may_match(context: Context, order: Bid | Ask) -> bool:
    return order.matcher in (ZERO_ADDRESS, context.matcher)


# ------------------------------------------------------------------ the book


def waiting_bids(session: Session, now: int) -> tuple[list[BidOffer], dict[str, LeaseRow]]:
    """Bids that may open a lease now, and the ended lease that each of them continues, by bid."""
    offers: list[BidOffer] = []
    previous: dict[str, LeaseRow] = {}
    rows = session.exec(select(BidRow).where(col(BidRow.failed).is_(False), BidRow.valid_until >= now)).all()
    leases: dict[str, list[LeaseRow]] = {}
    for lease in session.exec(select(LeaseRow).where(col(LeaseRow.bid).in_([row.id for row in rows]))):
        leases.setdefault(lease.bid, []).append(lease)
    for row in rows:
        past = sorted(leases.get(row.id, []), key=lambda lease: (lease.opened_block, lease.start))
        if past and (any(lease.finished is None for lease in past) or not past[-1].continuable):
            continue
        spec = JobSpec.model_validate(row.spec)
        if early_stop(session, spec, past, now):
            continue
        if past:
            previous[row.id] = past[-1]
        offers.append(
            BidOffer(
                id=row.id,
                bid=Bid.model_validate(row.bid),
                environment=spec.environment,
                needs=spec.resources,
                recipe=spec.files[spec.recipe_path].sha256,
                hosts=spec.hosts,
                left=None if spec.deadline_time is None else spec.deadline_time - now,
                start=past[-1].accepted if past else 0,
                avoid=_let_down(session, row.id, past),
            )
        )
    return offers, previous


def _let_down(session: Session, bid: str, past: Sequence[LeaseRow]) -> frozenset[str]:
    """Providers that went silent on this job, failed at it, or gave it back as they got it."""
    failed = session.exec(select(ReportRow.provider).where(ReportRow.bid == bid, ReportRow.kind == "failed")).all()
    late = _ended_late(session, col(ChainEvent.lease).in_([lease.id for lease in past])) if past else []
    no_progress = {lease.provider for lease in past if lease.accepted == lease.start}
    return frozenset(failed) | {provider for provider, _ in late} | no_progress


def standing_asks(session: Session, now: int) -> list[AskOffer]:
    """Asks in force, but for those of a provider that has gone silent since it posted them."""
    rows = session.exec(select(AskRow).where(AskRow.valid_from <= now, AskRow.valid_until >= now)).all()
    if not rows:
        return []
    silent_since: dict[str, int] = {}
    oldest = min(row.received_block for row in rows)
    for provider, block in _ended_late(session, col(ChainEvent.block_number) > oldest):
        silent_since[provider] = max(silent_since.get(provider, 0), block)
    return [
        AskOffer(row.id, Ask.model_validate(row.ask), AskResources.model_validate(row.resources))
        for row in rows
        if row.received_block >= silent_since.get(row.provider, 0)
    ]


def _ended_late(session: Session, which: ColumnElement[bool]) -> list[tuple[str, int]]:
    """Providers whose lease was ended because they were silent, and in which block. The flag may be forgiven later."""
    ended = session.exec(
        select(LeaseRow.provider, ChainEvent.block_number, ChainEvent.data)
        .join(LeaseRow, col(LeaseRow.id) == col(ChainEvent.lease))
        .where(ChainEvent.name == events.Ended.__name__, which)
    ).all()
    return [(provider, block) for provider, block, data in ended if data["status"] & Flag.LATE]


def _signatures(session: Session, bids: Sequence[BidOffer], asks: Sequence[AskOffer]) -> dict[str, str]:
    bid_rows = session.exec(select(BidRow).where(col(BidRow.id).in_([bid.id for bid in bids])))
    ask_rows = session.exec(select(AskRow).where(col(AskRow.id).in_([ask.id for ask in asks])))
    return {row.id: row.signature for row in bid_rows} | {row.id: row.signature for row in ask_rows}


def _with_balances(
    context: Context, bids: Sequence[BidOffer], previous: dict[str, LeaseRow], asks: Sequence[AskOffer]
) -> Book:
    """The book with what the chain says of its parties; cancelled and used orders left out."""
    owners = {bid.bid.client for bid in bids} | {ask.ask.provider for ask in asks}
    accounts = context.accounts(owners)
    return Book(
        bids=tuple(bid for bid in bids if bid.id in previous or _usable(bid, accounts[bid.bid.client])),
        asks=tuple(ask for ask in asks if ask.ask.page == accounts[ask.ask.provider].page),
        free={owner: account.free for owner, account in accounts.items()},
        active={owner: account.active for owner, account in accounts.items()},
    )


def _usable(bid: BidOffer, account: AccountWord) -> bool:
    """Whether a Bid may open its first lease; later ones don't look at the nonce."""
    return bid.bid.page == account.page and not account.used >> bid.bid.bit & 1


# ------------------------------------------------------------------ opening


def _pairs(
    context: Context, matches: Sequence[Match], previous: dict[str, LeaseRow], signatures: dict[str, str]
) -> tuple[list[Rules], list[Pair]]:
    """The matches as the escrow takes them, each rule-set once."""
    hashes = sorted({match.bid.bid.rules for match in matches})
    pairs = [
        Pair(
            bid=match.bid.bid,
            ask=match.ask.ask,
            price=match.price,
            bid_signature=signatures[match.bid.id],
            ask_signature=signatures[match.ask.id],
            rules=hashes.index(match.bid.bid.rules),
            prev=terms_of(previous[match.bid.id]) if match.bid.id in previous else None,
        )
        for match in matches
    ]
    return [context.rule_set(hash).rules for hash in hashes], pairs


def _dry_run(
    context: Context, matches: Sequence[Match], previous: dict[str, LeaseRow], signatures: dict[str, str]
) -> list[Match]:
    """The matches that the escrow would open now."""
    openable: list[Match] = []
    for at in range(0, len(matches), BATCH):
        part = matches[at : at + BATCH]
        call = context.chain.open_batch(*_pairs(context, part, previous, signatures))
        for match, code in zip(part, context.chain.dry_run(call, context.matcher), strict=True):
            if code == Refusal.OK:
                openable.append(match)
            else:
                log.info("clearing.not_openable", job=match.bid.id, ask=match.ask.id, reason=Refusal(code).sentence)
    return openable


def _begin_epoch(context: Context, book: Book, result: Result, openable: Sequence[Match]) -> EpochRow:
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
        "matches": [{"bid": one.bid.id, "ask": one.ask.id, "price": str(one.price)} for one in openable],
        "unmatched": [{"bid": bid, "reason": reason.value} for bid, reason in result.reasons.items()],
    }
    with context.leading() as session:
        epoch: EpochRow = accept(context, session, "epoch", body)
    _note_waiting(context, result)
    return epoch


def order_set_root(ids: Sequence[str]) -> bytes:
    """Commitment to an epoch's orders: the tree of docs/protocol.md section 3 over their sorted ids."""
    return merkle_root([keccak(b"gpumarket order" + from_hex(id)) for id in sorted(ids)])


def _open(
    context: Context,
    epoch: EpochRow,
    matches: Sequence[Match],
    previous: dict[str, LeaseRow],
    signatures: dict[str, str],
) -> None:
    receipt = context.sending.send(context.chain.open_batch(*_pairs(context, matches, previous, signatures)))
    happened = context.chain.events(receipt)
    opened = {event.terms.parties.bid: event.lease for event in happened if isinstance(event, events.Opened)}
    skipped = {event.index: Refusal(event.reason) for event in happened if isinstance(event, events.Skipped)}
    notes = {one.bid.id: skipped[at].sentence if at in skipped else "" for at, one in enumerate(matches)}
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
