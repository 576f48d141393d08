"""The market's auction, epoch after epoch: fix the orders, commit to them, draw the coin, solve, open what matched.

docs/epochs.md says what others can check of it, and why it is in this order.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy import func
from sqlmodel import Session, col, select

from contracts.api.epochs import LeftOutReason
from contracts.types import to_hex
from market.auction.announcement import announce, check_status, draw_coin
from market.auction.open_leases import open_matches
from market.auction.order_book import NEVER, OrderBook, Snapshot
from market.auction.pacing import Pacing
from market.auction.wait_reasons import WaitReasons, wait_reason
from market.chain.accounts import FollowedAccounts
from market.matching import Book, Resting, Result, clear, touched
from market.matching.inputs import tick, to_published
from market.runtime.context import Context
from market.runtime.loop import repeat
from market.store.models import ChainBlock, ChainEvent, EpochRow, JournalRow

log = structlog.get_logger()

FORMER_KEY = "it was signed for a former key of this market, or for another one: cancel it, and submit it again"
RESERVE_SHORT = "the market's approver has nothing to pay replays of its checkpoints with; its operator is alarmed"
DRAINING = "this market opens no more leases"

_Sight = tuple[int, str]  # the newest message, and the newest event of the chain


def run_clearing(context: Context, stop: threading.Event) -> None:
    """Clear once an epoch until `stop`."""
    clearing = Clearing(context)

    def timed(context: Context) -> None:
        if context.settings.draining:
            clearing.wind_up()
            return
        if wait := clearing.pacing.wait():
            context.metrics.epochs_delayed.inc()
            stop.wait(wait)
        if context.leads and not stop.is_set():
            with context.metrics.clearing.time():
                clearing.epoch(stop, paced=True)

    repeat(context, "clearing", timed, stop, context.settings.epoch_seconds)


@dataclass(frozen=True)
class Round:
    """What one epoch leaves to the next. Each step makes another one: whatever it fails at, the last one holds."""

    number: int | None = None  # of the epoch; None: this process has not looked for one yet
    resting: Resting | None = None  # orders that were not matched, and their prices
    left: Mapping[str, str] = field(default_factory=dict)  # why Bids were not
    follow: int = 0  # block that must be followed before orders are looked at again: what was opened is in it
    seen: _Sight | None = None  # when nothing was new
    seen_until: int = 0  # UTC seconds: from then on something is, because time has passed

    def is_quiet(self, sight: _Sight, now: int) -> bool:
        return sight == self.seen and now < self.seen_until


@dataclass
class Clearing:
    """One process's auction. It keeps what need not be read or solved again."""

    context: Context
    pacing: Pacing = field(init=False)
    _round: Round = Round()
    _order_book: OrderBook = field(init=False)
    _accounts: FollowedAccounts = field(init=False)
    _wait_reasons: WaitReasons = field(init=False)

    def __post_init__(self) -> None:
        self.pacing = Pacing(self.context.settings.gas_per_hour)
        self._order_book = OrderBook(self.context)
        self._accounts = FollowedAccounts(self.context.chain)
        self._wait_reasons = WaitReasons(self.context)

    def epoch(self, stop: threading.Event | None = None, *, paced: bool = False) -> EpochRow | None:
        """One epoch; None if nothing was new: that costs nothing. Raises UserError.

        `paced`: none either that would match nothing, so soon after another one.
        """
        context = self.context
        context.sending.settle()  # what a former leader is just opening
        self._go_on_from_former()
        before = self._round
        if context.head.number < before.follow and context.head.number < context.chain.w3.eth.block_number:
            return None
        with context.db.reading() as session:
            sight = _sight(session)
            if before.is_quiet(sight, context.now()):
                return None
            if session.exec(select(ChainBlock.number).limit(1)).first() is None:
                return None  # a market that begins: its indexer has not stored a block yet
            snapshot = self._look(session)
        snapshot, book = self._usable(snapshot)
        vain_wait = self.pacing.vain_wait() if paced else 0.0
        is_touched = touched(book, before.resting)
        if not is_touched or vain_wait:
            result = clear(book, tick=tick(context.chain.decimals), before=before.resting)
            if not is_touched or not result.matches:  # whatever the coin, which only chooses between equals
                self._wait_reasons.tell(_reasons(result, snapshot))
                again = context.now() + math.ceil(vain_wait) if is_touched else NEVER
                self._round = replace(before, seen=sight, seen_until=min(snapshot.settled_until, again))
                return None
        return self._clear(stop or threading.Event())

    def wind_up(self) -> None:
        """In a market that drains: no epoch begins. Leases of one that was cleared before are opened, as its result is
        public; and Bids that wait are told that they wait in vain. Raises UserError.
        """
        self.context.sending.settle()
        self._go_on_from_former()
        with self.context.db.reading() as session:
            sight = _sight(session)
            begins = session.exec(select(ChainBlock.number).limit(1)).first() is None
            if begins or self._round.is_quiet(sight, self.context.now()):
                return
            snapshot = self._look(session)
        successor = self.context.settings.successor
        told = f"{DRAINING}: submit it at {successor}" if successor else DRAINING
        self._wait_reasons.tell(dict.fromkeys(snapshot.bids, told))
        self._round = replace(self._round, seen=sight, seen_until=NEVER)

    def _go_on_from_former(self) -> None:
        """What another process did, or this one in an earlier life, it may not have done to the end."""
        with self.context.db.reading() as session:
            newest = session.exec(select(EpochRow).order_by(col(EpochRow.number).desc()).limit(1)).first()
        number = newest.number if newest else 0
        if self._round.number == number:
            return
        self._wait_reasons.forget()
        follow = self._round.follow
        if newest is not None:
            if newest.status == "cleared":
                open_matches(self.context, number, lambda gas: self._use("opening", gas))
            elif newest.status != "abandoned":
                log.warning("clearing.abandoned", epoch=number)
                with self.context.leading() as session:
                    self.context.accept(session, "abandoned", {"number": number})
            follow = int(self.context.chain.w3.eth.block_number)
        self._round = Round(number, follow=follow)

    def _use(self, what: str, gas: int) -> None:
        self.pacing.use(gas)
        self.context.metrics.gas_used.labels(what).inc(gas)

    def _look(self, session: Session) -> Snapshot:
        snapshot = self._order_book.look(session, self.context.now())
        self._accounts.forget_changed(session, snapshot.head)
        return snapshot

    def _usable(self, snapshot: Snapshot) -> tuple[Snapshot, Book]:
        """Its orders that this market may match, that are not cancelled, and that somebody could audit; and the same
        with what the chain says of their parties.
        """
        ours = snapshot.for_matcher(self.context.matcher)
        unpaid = {id for id, one in snapshot.left_out.items() if one.reason is LeftOutReason.RESERVE}
        self._wait_reasons.forget_others(snapshot.bids.keys() | unpaid)
        self._wait_reasons.tell(dict.fromkeys(unpaid, RESERVE_SHORT))
        self._wait_reasons.tell(dict.fromkeys(snapshot.bids.keys() - ours.bids.keys(), FORMER_KEY))
        accounts = self._accounts.of(ours.owners)
        with self.context.db.reading() as session:
            usable = ours.usable(accounts).without_unaudited(session, self.context.audited_rules)
        return usable, usable.book(accounts)

    # ------------------------------------------------------------- an epoch

    def _clear(self, stop: threading.Event) -> EpochRow | None:
        context = self.context
        on_chain = context.chain.newest_epoch(context.matcher)
        with context.leading() as session:
            # As in no other moment: what is accepted from here on was promised the next epoch.
            snapshot = self._look(session)
            stored = session.exec(select(func.max(EpochRow.number))).one() or 0
            # A reorganisation may have taken back what was published; its number is not used again.
            number = max(on_chain, stored) + 1
            context.accept(session, "begun", {"number": number})
        snapshot, book = self._usable(snapshot)
        header, root = announce(context, number, snapshot)
        receipt = context.sending.send(context.chain.publish_epoch(number, root), key=f"epoch {number} {root}")
        self._use("epoch", receipt["gasUsed"])
        seed_block, seed = draw_coin(context.chain, context.matcher, header, stop)
        result = clear(book, bytes.fromhex(seed[2:]), tick(context.chain.decimals), self._round.resting)
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
                {
                    "size": sold.lot.size,
                    "of": to_published(sold).model_dump(mode="json", by_alias=True),
                    "price": str(price),
                }
                for sold, price in result.prices.items()
                if sold.lot.pool in result.touched
            ],
            "unmatched": [
                {"bid": bid, "reason": reason} for bid, reason in left.items() if self._round.left.get(bid) != reason
            ],
        }
        with context.leading() as session:
            check_status(session, number, "announced")
            epoch: EpochRow = context.accept(session, "cleared", body)
        log.info("clearing.cleared", epoch=number, matches=len(result.matches), left=len(result.reasons))
        self._wait_reasons.tell(_reasons(result, snapshot))
        self.pacing.held(in_vain=not result.matches)
        follow = open_matches(context, number, lambda gas: self._use("opening", gas))
        # Only now: after any trouble before this the next round goes on from what is stored.
        self._round = Round(number, result.resting, left, follow)
        return epoch


def _reasons(result: Result, snapshot: Snapshot) -> dict[str, str]:
    """Why each Bid was left; "" for those that were matched."""
    matched = {one.bid.id: "" for one in result.matches}
    return matched | {bid: wait_reason(bid, why, snapshot.bids[bid].overruns) for bid, why in result.reasons.items()}


def _sight(session: Session) -> _Sight:
    """Changes whenever anything does that a clearing goes by, but for time."""
    message = session.exec(select(JournalRow.number)).first() or 0
    newest = select(ChainEvent.block_hash, ChainEvent.log_index).order_by(
        col(ChainEvent.block_number).desc(), col(ChainEvent.log_index).desc()
    )
    return message, str(session.exec(newest.limit(1)).first())
