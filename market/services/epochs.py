"""Epochs: what each clearing took, what it matched at which prices, and what it left out."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, func, or_
from sqlmodel import Session, col, select

from contracts.api.bodies import AskResources, Page, ReceiptOut
from contracts.api.epochs import (
    ClassPrice,
    EpochAsk,
    EpochBid,
    EpochHeader,
    EpochOut,
    EpochStatus,
    MatchOut,
    TradeClassOut,
    UnmatchedOut,
)
from contracts.api.problems import Code, Problem
from contracts.job.spec import JobSpec
from contracts.orders import Ask, Bid
from market.runtime.context import Context
from market.services.leases import readable
from market.store.models import AskRow, BidRow, EpochOrderRow, EpochRow, MatchRow, PriceRow, UnmatchedRow
from market.store.paging import LARGE, Keyset, read_page

Row = TypeVar("Row", BidRow, AskRow, PriceRow)
Out = TypeVar("Out")

_NEWEST_FIRST = Keyset(col(EpochRow.number), descending=True)
_BIDS = Keyset(col(BidRow.id))
_ASKS = Keyset(col(AskRow.id))
_PRICES = Keyset(col(PriceRow.epoch), col(PriceRow.number))


def get_epoch(context: Context, number: int) -> EpochOut:
    with context.db.reading() as session:
        return readable(_outs(context, session, [_row(session, number)])[0], f"epoch {number}")


def list_epochs(context: Context, after: str | None, limit: int) -> Page[EpochOut]:
    with context.db.reading() as session:
        return read_page(
            session, select(EpochRow), _NEWEST_FIRST, after, limit, lambda rows: _outs(context, session, rows), LARGE
        )


def list_epoch_bids(context: Context, number: int, after: str | None, limit: int) -> Page[EpochBid]:
    """Those of the set that the epoch was cleared from."""
    with context.db.reading() as session:
        _row(session, number)
        query = select(BidRow).join(EpochOrderRow, col(EpochOrderRow.id) == BidRow.id).where(*_in_set(number))
        return read_page(session, query, _BIDS, after, limit, _all(context, _bid_out, f"of epoch {number}: bid"), LARGE)


def list_epoch_asks(context: Context, number: int, after: str | None, limit: int) -> Page[EpochAsk]:
    with context.db.reading() as session:
        _row(session, number)
        query = select(AskRow).join(EpochOrderRow, col(EpochOrderRow.id) == AskRow.id).where(*_in_set(number))
        return read_page(session, query, _ASKS, after, limit, _all(context, _ask_out, f"of epoch {number}: ask"))


def list_prices(context: Context, number: int, after: str | None, limit: int) -> Page[ClassPrice]:
    """Of each lot size those of the newest epoch, up to this one, in which it was solved."""
    with context.db.reading() as session:
        _row(session, number)
        newest = (
            select(PriceRow.rules, PriceRow.size, func.max(PriceRow.epoch).label("epoch"))
            .where(PriceRow.epoch <= number)
            .group_by(col(PriceRow.rules), col(PriceRow.size))
            .subquery()
        )
        query = select(PriceRow).join(
            newest,
            (col(PriceRow.rules) == newest.c.rules)
            & (col(PriceRow.size) == newest.c.size)
            & (col(PriceRow.epoch) == newest.c.epoch),
        )
        return read_page(session, query, _PRICES, after, limit, _all(context, _price_out, f"of epoch {number}: price"))


def _all(context: Context, read: Callable[[Row], Out], what: str) -> Callable[[Sequence[Row]], list[Out]]:
    """Bodies of a page's rows. Raises Problem for one that can't be read: left out, it would change the epoch."""

    def convert(rows: Sequence[Row]) -> list[Out]:
        outs = context.unreadable.each(rows, read)
        return [readable(out, f"{what} {_name(row)}") for row, out in zip(rows, outs, strict=True)]

    return convert


def _name(row: BidRow | AskRow | PriceRow) -> str:
    return str(row.number) if isinstance(row, PriceRow) else row.id


def _row(session: Session, number: int) -> EpochRow:
    row = session.get(EpochRow, number)
    if row is None:
        newest = session.exec(select(func.max(EpochRow.number))).one()
        hint = f"The newest is {newest}." if newest else "This market has not held any yet."
        raise Problem(404, Code.NOT_FOUND, f"there is no epoch {number}", hint)
    return row


def _in_set(number: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    last = col(EpochOrderRow.last)
    return col(EpochOrderRow.first) <= number, or_(last.is_(None), last >= number)


def _outs(context: Context, session: Session, rows: Sequence[EpochRow]) -> list[EpochOut | None]:
    numbers = [row.number for row in rows]
    matches: dict[int, list[MatchOut]] = {number: [] for number in numbers}
    unmatched: dict[int, list[UnmatchedOut]] = {number: [] for number in numbers}
    for match in session.exec(select(MatchRow).where(col(MatchRow.epoch).in_(numbers)).order_by(col(MatchRow.bid))):
        out = MatchOut(
            bid=match.bid,
            ask=match.ask,
            price=match.price,
            place=match.place,
            lease=match.lease,
            note="" if match.lease else match.note,
        )
        matches[match.epoch].append(out)
    left = select(UnmatchedRow).where(col(UnmatchedRow.epoch).in_(numbers)).order_by(col(UnmatchedRow.bid))
    for bid in session.exec(left):
        unmatched[bid.epoch].append(UnmatchedOut(bid=bid.bid, reason=bid.reason))

    def made(row: EpochRow) -> EpochOut:
        return EpochOut(
            number=row.number,
            status=EpochStatus(row.status),
            order_root=row.order_root or None,
            header=EpochHeader.model_validate(row.header) if row.header else None,
            started=row.started,
            published_tx=row.published_tx,
            seed_block=row.seed_block,
            seed=row.seed,
            matches=matches[row.number],
            unmatched=unmatched[row.number],
            transaction=row.transaction,
        )

    return context.unreadable.each(rows, made)


def _bid_out(row: BidRow) -> EpochBid:
    return EpochBid(
        id=row.id,
        bid=Bid.model_validate(row.bid),
        signature=row.signature,
        spec=JobSpec.model_validate(row.spec),
        receipt=ReceiptOut.model_validate(row.receipt) if row.receipt else None,
    )


def _ask_out(row: AskRow) -> EpochAsk:
    return EpochAsk(
        id=row.id,
        ask=Ask.model_validate(row.ask),
        signature=row.signature,
        resources=AskResources.model_validate(row.resources),
        receipt=ReceiptOut.model_validate(row.receipt) if row.receipt else None,
    )


def _price_out(row: PriceRow) -> ClassPrice:
    return ClassPrice(of=TradeClassOut.model_validate(row.trade_class), price=row.price, epoch=row.epoch)
