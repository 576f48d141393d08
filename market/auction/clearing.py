"""The market's auction, epoch after epoch: fix the orders, commit to them, draw the coin, solve, open what matched.

docs/epochs.md says what others can check of it, and why it is in this order.
"""

import threading
from dataclasses import dataclass, field

import structlog
from sqlalchemy import func
from sqlmodel import Session, col, select, update

from contracts.api.epochs import EpochHeader, TradeClassOut, epoch_root
from contracts.chain.client import Chain
from contracts.errors import UserError
from contracts.types import ZERO_ADDRESS, to_hex
from market.auction.open_leases import open_matches
from market.auction.order_book import InForce, Snapshot, StandingAsk, WaitingBid
from market.chain.accounts import AccountWords
from market.matching import Book, Resting, Result, TradeClass, clear, touched
from market.matching.inputs import tick
from market.runtime.context import Context
from market.runtime.loop import repeat
from market.store.models import BidRow, ChainEvent, EpochOrderRow, EpochRow, JournalRow

log = structlog.get_logger()

ROWS_AT_ONCE = 500
POLL_SECONDS = 0.05  # for the block that the coin comes from
FORMER_KEY = "it was signed for a former key of this market, or for another one: cancel it, and submit it again"

_Sight = tuple[int, str]  # the newest message, and the newest event of the chain


def run(context: Context, stop: threading.Event) -> None:
    """Clear once an epoch until `stop`."""
    clearing = Clearing(context)

    def timed(context: Context) -> None:
        with context.metrics.clearing.time():
            clearing.epoch(stop)

    repeat(context, "clearing", timed, stop, context.settings.epoch_seconds)


@dataclass
class Clearing:
    """One process's auction. It keeps what need not be read or solved again."""

    context: Context
    _in_force: InForce = field(init=False)
    _words: AccountWords = field(init=False)
    _resting: Resting | None = None  # what the last epoch left
    _newest: int | None = None  # epoch that this process cleared last
    _seen: _Sight | None = None  # when nothing was new
    _seen_until: int = 0  # UTC seconds: from then on something is, because time has passed
    _until: int = 0  # block that must be followed before orders are looked at again: what was opened is in it
    _told: dict[str, str] = field(default_factory=dict)  # why Bids wait
    _left: dict[str, str] = field(default_factory=dict)  # why the last epoch left Bids

    def __post_init__(self) -> None:
        self._in_force = InForce(self.context)
        self._words = AccountWords(self.context.chain)

    def epoch(self, stop: threading.Event | None = None) -> EpochRow | None:
        """One epoch; None if nothing was new: that costs nothing. Raises UserError."""
        context = self.context
        context.sending.settle()  # what a former leader is just opening
        self._go_on_from_former()
        if context.head.number < self._until and context.head.number < context.chain.w3.eth.block_number:
            return None
        with context.db.reading() as session:
            sight = _sight(session)
            if sight == self._seen and context.now() < self._seen_until:
                return None
            snapshot = self._look(session)
        book = self._book(snapshot)
        if not touched(book, self._resting):
            self._tell(snapshot, clear(book, tick=tick(context.chain.decimals), before=self._resting))
            self._seen, self._seen_until = sight, snapshot.settled_until
            return None
        return self._clear(stop or threading.Event())

    def _go_on_from_former(self) -> None:
        """What another process did, or this one in an earlier life, it may not have done to the end."""
        with self.context.db.reading() as session:
            newest = session.exec(select(EpochRow).order_by(col(EpochRow.number).desc()).limit(1)).first()
        number = newest.number if newest else 0
        if self._newest == number:
            return
        self._resting, self._seen = None, None
        self._told.clear()
        self._left.clear()
        if newest is not None:
            if newest.status == "cleared":
                open_matches(self.context, number)
            elif newest.status != "abandoned":
                log.warning("clearing.abandoned", epoch=number)
                with self.context.leading() as session:
                    self.context.accept(session, "abandoned", {"number": number})
            self._until = int(self.context.chain.w3.eth.block_number)
        self._newest = number

    def _look(self, session: Session) -> Snapshot:
        snapshot = self._in_force.look(session, self.context.now())
        self._words.forget_changed(session, snapshot.head)
        return snapshot

    def _book(self, snapshot: Snapshot) -> Book:
        """The orders that this market may match and that are not cancelled, with what the chain says of their parties.

        The snapshot is left with those only.
        """
        bids = {id: one for id, one in snapshot.bids.items() if self._may_match(one.matcher)}
        asks = {id: one for id, one in snapshot.asks.items() if self._may_match(one.matcher)}
        self._told = {id: why for id, why in self._told.items() if id in snapshot.bids}
        self._write(dict.fromkeys(snapshot.bids.keys() - bids.keys(), FORMER_KEY))
        owners = {one.offer.client for one in bids.values()} | {one.offer.provider for one in asks.values()}
        words = self._words.of(owners)
        _keep(snapshot.bids, {id for id, one in bids.items() if one.is_usable(words[one.offer.client])})
        _keep(snapshot.asks, {id for id, one in asks.items() if one.page == words[one.offer.provider].page})
        return Book(
            bids=tuple(one.offer for one in snapshot.bids.values()),
            asks=tuple(one.offer for one in snapshot.asks.values()),
            free={owner: word.free for owner, word in words.items()},
            active={owner: word.active for owner, word in words.items()},
        )

    def _may_match(self, matcher: str) -> bool:
        """The escrow opens a lease only for the matcher that both orders name, or for anybody if one names none."""
        return matcher in (ZERO_ADDRESS, self.context.matcher)

    # ------------------------------------------------------------- an epoch

    def _clear(self, stop: threading.Event) -> EpochRow | None:
        context = self.context
        published = context.chain.newest_epoch(context.matcher)
        with context.leading() as session:
            # As in no other moment: what is accepted from here on was promised the next epoch.
            snapshot = self._look(session)
            stored = session.exec(select(func.max(EpochRow.number))).one() or 0
            # A reorganisation may have taken back what was published; its number is not used again.
            number = max(published, stored) + 1
            context.accept(session, "begun", {"number": number})
        book = self._book(snapshot)
        header, root = self._announce(number, snapshot)
        receipt = context.sending.send(context.chain.publish_epoch(number, root), key=f"epoch {number} {root}")
        seed_block, seed = _coin(context.chain, context.matcher, header, stop)
        result = clear(book, bytes.fromhex(seed[2:]), tick(context.chain.decimals), self._resting)
        left = {bid: str(why) for bid, why in result.reasons.items()}
        body = {
            "number": number,
            "published_tx": to_hex(receipt["transactionHash"]),
            "seed_block": seed_block,
            "seed": seed,
            "matches": [
                {"bid": one.bid.id, "ask": one.ask.id, "price": str(one.price), "place": one.place}
                for one in result.matches
            ],
            "prices": [
                {"size": of.lot.size, "of": class_out(of), "price": str(price)}
                for of, price in result.prices.items()
                if (of.lot.rules, of.lot.size) in result.touched
            ],
            "unmatched": [
                {"bid": bid, "reason": reason} for bid, reason in left.items() if self._left.get(bid) != reason
            ],
        }
        with context.leading() as session:
            _check_status(session, number, "announced")
            epoch: EpochRow = context.accept(session, "cleared", body)
        log.info("clearing.cleared", epoch=number, matches=len(result.matches), left=len(result.reasons))
        self._tell(snapshot, result)
        self._until = open_matches(context, number)
        # Only now: after any trouble before this the next round goes on from what is stored.
        self._newest, self._resting, self._left = number, result.resting, left
        return epoch

    def _announce(self, number: int, snapshot: Snapshot) -> tuple[EpochHeader, str]:
        """Store what will be committed to."""
        context = self.context
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
            _check_status(session, number, "begun")  # or another process has led since, and written them
            context.accept(session, "announced", body)
        return header, root

    # ------------------------------------------------------------- why bids wait

    def _tell(self, snapshot: Snapshot, result: Result) -> None:
        """Tell each Bid that was left out why."""
        matched = {one.bid.id: "" for one in result.matches}
        self._write(matched | {bid: str(why) for bid, why in result.reasons.items()})

    def _write(self, told: dict[str, str]) -> None:
        """Only what changed."""
        changed = sorted((id, why) for id, why in told.items() if self._told.get(id) != why)
        for at in range(0, len(changed), ROWS_AT_ONCE):
            some = dict(changed[at : at + ROWS_AT_ONCE])
            with self.context.db.reading() as session:
                rows = session.exec(select(BidRow.id, BidRow.wait_reason).where(col(BidRow.id).in_(some))).all()
            if stale := [id for id, why in rows if some[id] != why]:
                with self.context.leading() as session:
                    for id in stale:
                        session.exec(update(BidRow).where(col(BidRow.id) == id).values(wait_reason=some[id]))
            self._told |= some


def _sight(session: Session) -> _Sight:
    """Changes whenever anything does that a clearing goes by, but for time."""
    message = session.exec(select(JournalRow.number)).first() or 0
    newest = select(ChainEvent.block_hash, ChainEvent.log_index).order_by(
        col(ChainEvent.block_number).desc(), col(ChainEvent.log_index).desc()
    )
    return message, str(session.exec(newest.limit(1)).first())


def _check_status(session: Session, number: int, expected: str) -> None:
    """Raises UserError if another process has led since the epoch began: it has given this one up."""
    status = session.get_one(EpochRow, number).status
    if status != expected:
        raise UserError(f"epoch {number} is {status} meanwhile, not {expected}", "another process has gone on from it")


def _keep(orders: dict[str, WaitingBid] | dict[str, StandingAsk], ids: set[str]) -> None:
    for id in orders.keys() - ids:
        del orders[id]


def _coin(chain: Chain, market: str, header: EpochHeader, stop: threading.Event) -> tuple[int, str]:
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


def class_out(of: TradeClass) -> dict[str, object]:
    lot = of.lot
    out = TradeClassOut(
        rules=lot.rules,
        environments=sorted(lot.environments),
        device=lot.device,
        gpus=lot.gpus,
        vram_mb=lot.vram_mb,
        memory_mb=lot.memory_mb,
        region=lot.region,
        tier=lot.tier,
        hosts=sorted(lot.hosts),
        wants=lot.wants,
        units_per_hour=of.units_per_hour,
        stake=of.stake,
        min_work=of.min_work,
        max_checkpoints=of.max_checkpoints,
        provider=of.provider,
    )
    return out.model_dump(mode="json", by_alias=True)
