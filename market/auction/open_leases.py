"""Opening what an epoch has matched, or saying why the escrow refuses to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlmodel import Session, col, select

from contracts.chain import events
from contracts.chain.calls import SignedMatch
from contracts.chain.errors import Refusal
from contracts.orders import Ask, Bid, Rules
from contracts.types import to_hex
from market.runtime.context import Context
from market.store.models import AskRow, BidRow, LeaseRow, MatchRow
from market.store.queries.leases import terms_of

BATCH = 100  # leases opened by one transaction

log = structlog.get_logger()


@dataclass(frozen=True)
class _Opening:
    bid_id: str
    ask_id: str
    bid: Bid
    ask: Ask
    pair: SignedMatch  # with an index of rules that is not set yet


def open_matches(context: Context, number: int, used: Callable[[int], None] = lambda gas: None) -> int:
    """Open what epoch `number` has matched and nobody has opened yet. Returns the newest block with a lease of it.

    `used` is told the gas of each transaction.
    """
    with context.db.reading() as session:
        openings = _unopened(session, number)
    refused: dict[str, Refusal] = {}
    openable = _dry_run(context, openings, refused)
    transaction, block = None, 0
    for at in range(0, len(openable), BATCH):
        part = openable[at : at + BATCH]
        receipt = context.sending.send(context.chain.open_batch(*_pairs(context, part)))
        used(receipt["gasUsed"])
        happened = context.chain.events(receipt)
        skipped = {event.index: Refusal(event.reason) for event in happened if isinstance(event, events.Skipped)}
        refused |= {part[index].bid_id: reason for index, reason in skipped.items()}
        transaction, block = to_hex(receipt["transactionHash"]), receipt["blockNumber"]
        for event in happened:
            if isinstance(event, events.Opened):
                log.info("clearing.opened", job=event.terms.parties.bid, lease=event.lease, epoch=number)
    for job, reason in refused.items():
        log.info("clearing.refused", job=job, epoch=number, reason=reason.sentence)
    body = {
        "number": number,
        "transaction": transaction,
        "notes": {bid: reason.sentence for bid, reason in refused.items()},
        "refused": {bid: reason.value for bid, reason in refused.items()},
    }
    if openings:
        with context.leading() as session:
            context.accept(session, "opened", body)  # the indexer names the leases, when it comes to their block
    return block


def _unopened(session: Session, number: int) -> list[_Opening]:
    """In the order in which the escrow opens them all: no provider before its place."""
    matches = session.exec(
        select(MatchRow)
        .where(MatchRow.epoch == number, col(MatchRow.lease).is_(None), MatchRow.note == "")
        .order_by(col(MatchRow.place), col(MatchRow.bid))
    ).all()
    openings = []
    for match in matches:
        bid_row, ask_row = session.get_one(BidRow, match.bid), session.get_one(AskRow, match.ask)
        newest = session.exec(
            select(LeaseRow)
            .where(LeaseRow.bid == match.bid)
            .order_by(col(LeaseRow.opened_block).desc(), col(LeaseRow.start).desc())
            .limit(1)
        ).first()
        bid, ask = Bid.model_validate(bid_row.bid), Ask.model_validate(ask_row.ask)
        prev = terms_of(newest) if newest is not None else None
        pair = SignedMatch(bid, ask, match.price, bid_row.signature, ask_row.signature, prev=prev)
        openings.append(_Opening(match.bid, match.ask, bid, ask, pair))
    return openings


def _pairs(context: Context, openings: Sequence[_Opening]) -> tuple[list[Rules], list[SignedMatch]]:
    """The matches as the escrow takes them, each rule-set once."""
    hashes = sorted({one.bid.rules for one in openings})
    pairs = [one.pair._replace(rules=hashes.index(one.bid.rules)) for one in openings]
    return [context.rule_set(hash).rules for hash in hashes], pairs


def _dry_run(context: Context, openings: Sequence[_Opening], refused: dict[str, Any]) -> list[_Opening]:
    """The matches that the escrow would open now; the others go to `refused`."""
    openable: list[_Opening] = []
    for at in range(0, len(openings), BATCH):
        part = openings[at : at + BATCH]
        codes = context.chain.dry_run(context.chain.open_batch(*_pairs(context, part)), context.matcher)
        for one, code in zip(part, codes, strict=True):
            if code == Refusal.OK:
                openable.append(one)
            else:
                refused[one.bid_id] = Refusal(code)
    return openable
