"""What the messages of an epoch's course do to the database: begun, announced, cleared, opened; or abandoned."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, insert
from sqlmodel import Session, SQLModel, col, delete, update

from contracts.orders import Domain
from market.store.journal import Kind, Message
from market.store.models import EpochOrderRow, EpochRow, MatchRow, PriceRow, UnmatchedRow

ROWS_AT_ONCE = 500


def _epoch(session: Session, _: Domain, message: Message) -> EpochRow:
    """Of journals from before order sets were published first: an epoch as a whole."""
    body = message.body
    epoch = session.merge(
        EpochRow(
            number=body["number"],
            status="cleared",
            order_root=body["order_root"],
            published_tx=body["published_tx"],
            started=message.received,
        )
    )
    session.flush()
    _add_outcome(session, epoch, body)
    return epoch


def _begun(session: Session, _: Domain, message: Message) -> EpochRow:
    """From here on orders are accepted for the next epoch only."""
    return session.merge(EpochRow(number=message.body["number"], started=message.received))


def _announced(session: Session, _: Domain, message: Message) -> EpochRow:
    """The epoch's header and its set: what is new in it, and what it has no more."""
    body, number = message.body, message.body["header"]["number"]
    epoch = session.get_one(EpochRow, number)
    epoch.status, epoch.header, epoch.order_root = "announced", body["header"], body["order_root"]
    session.add(epoch)
    for at in range(0, len(body["gone"]), ROWS_AT_ONCE):
        gone = col(EpochOrderRow.id).in_(body["gone"][at : at + ROWS_AT_ONCE])
        open_ = (col(EpochOrderRow.last).is_(None), EpochOrderRow.first < number)
        session.exec(update(EpochOrderRow).where(gone, *open_).values(last=number - 1))
    new = [
        {"id": id, "first": number, "last": None, "kind": kind}
        for kind in ("bid", "ask")
        for id in body[f"new_{kind}s"]
    ]
    _replace(session, EpochOrderRow, col(EpochOrderRow.first) == number, new)
    return epoch


def _cleared(session: Session, _: Domain, message: Message) -> EpochRow:
    """What the auction gave: matches, prices of the lot sizes that it solved, why others were left if that is new."""
    body = message.body
    epoch = session.get_one(EpochRow, body["number"])
    epoch.status, epoch.published_tx = "cleared", body["published_tx"]
    epoch.seed_block, epoch.seed = body["seed_block"], body["seed"]
    session.add(epoch)
    prices = [
        {
            "epoch": epoch.number,
            "number": number,
            "rules": one["of"]["rules"],
            "size": one["size"],
            "trade_class": one["of"],
            "price": int(one["price"]),
        }
        for number, one in enumerate(body["prices"])
    ]
    _replace(session, PriceRow, col(PriceRow.epoch) == epoch.number, prices)
    _add_outcome(session, epoch, body)
    return epoch


def _add_outcome(session: Session, epoch: EpochRow, body: dict[str, Any]) -> None:
    matches = [
        {
            "epoch": epoch.number,
            "bid": match["bid"],
            "ask": match["ask"],
            "price": int(match["price"]),
            "place": match.get("place", 0),
            "refused": 0,
            "note": "",
        }
        for match in body["matches"]
    ]
    _replace(session, MatchRow, col(MatchRow.epoch) == epoch.number, matches)
    left = [{"epoch": epoch.number, "bid": one["bid"], "reason": one["reason"]} for one in body["unmatched"]]
    _replace(session, UnmatchedRow, col(UnmatchedRow.epoch) == epoch.number, left)


def _replace(session: Session, model: type[SQLModel], which: ColumnElement[bool], rows: list[dict[str, Any]]) -> None:
    """There may be many, and the same message may come again."""
    session.flush()
    session.exec(delete(model).where(which))
    for at in range(0, len(rows), ROWS_AT_ONCE):
        session.execute(insert(model), rows[at : at + ROWS_AT_ONCE])


def _abandoned(session: Session, _: Domain, message: Message) -> EpochRow:
    """Its leader stopped before it was cleared."""
    epoch = session.get_one(EpochRow, message.body["number"])
    epoch.status = "abandoned"
    session.add(epoch)
    return epoch


def _opened(session: Session, _: Domain, message: Message) -> EpochRow | None:
    """What came of an epoch's matches. Which leases there are is the chain's to say: the indexer names them."""
    body = message.body
    epoch = session.get(EpochRow, body["number"])
    if epoch is not None:
        epoch.transaction = body["transaction"] or epoch.transaction
        session.add(epoch)
    for bid, note in body["notes"].items():
        row = session.get(MatchRow, (body["number"], bid))
        if row is not None:
            row.refused = body.get("refused", {}).get(bid, 0)
            row.note = note  # of no account where the chain tells of a lease after all
            session.add(row)
    return epoch


APPLY: dict[Kind, Callable[[Session, Domain, Message], Any]] = {
    "epoch": _epoch,
    "begun": _begun,
    "announced": _announced,
    "cleared": _cleared,
    "abandoned": _abandoned,
    "opened": _opened,
}
