"""What an epoch commits to before its coin is drawn, and the coin. `clearing` publishes the root in between."""

import threading

from sqlmodel import Session, col, select

from contracts.api.epochs import EpochHeader, epoch_root
from contracts.chain.client import Chain
from contracts.errors import UserError
from market.auction.order_book import Snapshot
from market.matching.inputs import tick
from market.runtime.context import Context
from market.store.models import EpochOrderRow, EpochRow

POLL_SECONDS = 0.05  # for the block that the coin comes from


def announce(context: Context, number: int, snapshot: Snapshot) -> tuple[EpochHeader, str]:
    """Store what will be committed to: header and orders. Returns the header, and their root, for the chain."""
    signed = sorted({one.offer.needs.rules for one in snapshot.bids.values()})
    header = EpochHeader(
        number=number,
        market=context.matcher,
        chain_id=context.chain.domain.chain_id,
        escrow=context.chain.domain.verifying_contract,
        block=snapshot.head.number,
        block_hash=snapshot.head.hash,
        time=snapshot.time,
        tick=tick(context.chain.decimals),
        rules=[context.rule_set(hash).rules for hash in signed],
        failures=snapshot.failures,
        left_out=sorted(snapshot.left_out.values(), key=lambda one: one.order),
        unaudited=snapshot.unaudited,
        unreproducible=snapshot.unreproducible,
    )
    root = epoch_root(header, snapshot.bids.keys() | snapshot.asks.keys())
    with context.db.reading() as session:  # only this process writes these rows, and only here
        before = set(session.exec(select(EpochOrderRow.id).where(col(EpochOrderRow.last).is_(None))))
    body = {
        "header": header.model_dump(mode="json", by_alias=True),
        "order_root": root,
        "new_bids": sorted(snapshot.bids.keys() - before),
        "new_asks": sorted(snapshot.asks.keys() - before),
        "gone": sorted(before - snapshot.bids.keys() - snapshot.asks.keys()),
    }
    with context.leading() as session:
        check_status(session, number, "begun")  # or another process has led since, and written them
        context.accept(session, "announced", body)
    return header, root


def check_status(session: Session, number: int, expected: str) -> None:
    """Raises UserError if another process has led since the epoch began: it has given this one up."""
    status = session.get_one(EpochRow, number).status
    if status != expected:
        raise UserError(f"epoch {number} is {status} meanwhile, not {expected}", "another process has gone on from it")


def draw_coin(chain: Chain, market: str, header: EpochHeader, stop: threading.Event) -> tuple[int, str]:
    """The block after the one with the epoch's root, and its hash. Waits for it. Raises UserError if told to stop, or
    if the chain is another one now than the one that the orders were taken from.
    """
    while not stop.is_set():
        block = chain.epoch_block(market, header.number, header.block)
        seed = None if block is None else chain.block_hash(block + 1)
        if chain.block_hash(header.block) != header.block_hash:
            raise UserError("a reorganisation of the chain came between", f"epoch {header.number} is abandoned")
        if block is not None and seed is not None:
            return block + 1, seed
        stop.wait(POLL_SECONDS)
    raise UserError("told to stop before the coin was drawn", f"epoch {header.number} is abandoned")
