"""The orders in force as of a followed block. Kept between clearings: only what is new is read and parsed again."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from contracts.api.auditing.notes import AuditNoteIn
from contracts.api.bodies import AskResources
from contracts.api.epochs import REFUSED_SECONDS, TELLING_KINDS, FailureReport, LeftOut, LeftOutReason
from contracts.audits.unaudited import AuditedAsk, alone
from contracts.chain import events
from contracts.chain.errors import ASKS_FAULT
from contracts.job.overrun import Overrun, read_overrun
from contracts.job.provider_wants import UNKNOWN, Standing
from contracts.job.spec import JobSpec
from contracts.orders import Ask, Bid
from contracts.terms import AccountWord, Flag, Verdict
from contracts.types import ZERO_ADDRESS
from market.chain.replay_reserve import is_paid_from
from market.matching import AskOffer, BidOffer, Book
from market.matching.inputs import OfferReader, book_of
from market.runtime.context import Context
from market.store.models import (
    AskRow,
    BidRow,
    ChainBlock,
    ChainEvent,
    EpochRow,
    LeaseRow,
    MatchRow,
    ReportRow,
    RuleSetRow,
)
from market.store.queries.early_stop import early_stop
from market.store.queries.events import Head
from market.store.queries.leases import is_final
from market.store.queries.reliability import Records, stored_verdicts
from market.store.queries.reports import read_told, report_of
from market.store.queries.rulings import unaudited_work, unreproducible_jobs

ROWS_AT_ONCE = 500
NEVER = 1 << 40  # seconds


@dataclass(frozen=True, slots=True)
class WaitingBid:
    offer: BidOffer
    matcher: str
    page: int
    bit: int
    approver: str
    previous: LeaseRow | None = None  # the ended lease that it continues
    overruns: tuple[Overrun | None, ...] = ()  # of leases that were given back for their work; None: it can't be read

    def is_usable(self, account: AccountWord) -> bool:
        """Whether it may open a lease: the nonce is looked at for the first one only."""
        return self.previous is not None or (self.page == account.page and not account.used >> self.bit & 1)


@dataclass(frozen=True, slots=True)
class StandingAsk:
    offer: AskOffer
    matcher: str
    page: int


@dataclass(frozen=True)
class Snapshot:
    """Orders by id, as of the end of block `head`."""

    head: Head
    time: int  # UTC seconds
    bids: dict[str, WaitingBid]
    asks: dict[str, StandingAsk]
    left_out: dict[str, LeftOut]
    failures: list[FailureReport]
    settled_until: int  # UTC seconds: before then nothing changes just because time passes
    unaudited: list[AuditNoteIn] = field(default_factory=list)  # of providers whose Asks are left out for it
    unreproducible: list[AuditNoteIn] = field(default_factory=list)  # a ruling on each job that is left out for it

    def for_matcher(self, matcher: str) -> "Snapshot":
        """Those that it may match: the escrow opens a lease only for the matcher that both orders name, if they do."""
        ours = (ZERO_ADDRESS, matcher)
        bids = {id: one for id, one in self.bids.items() if one.matcher in ours}
        return replace(self, bids=bids, asks={id: one for id, one in self.asks.items() if one.matcher in ours})

    def usable(self, accounts: Mapping[str, AccountWord]) -> "Snapshot":
        """Those that their owners' accounts don't say to be cancelled, or used. `accounts`: of all `owners`."""
        bids = {id: one for id, one in self.bids.items() if one.is_usable(accounts[one.offer.client])}
        asks = {id: one for id, one in self.asks.items() if one.page == accounts[one.offer.provider].page}
        return replace(self, bids=bids, asks=asks)

    def without_unaudited(self, session: Session, audited: Collection[str]) -> "Snapshot":
        """Without the Asks that no other of these could audit, of providers whose work nobody audits. `audited`: hashes
        of audited rules.
        """
        lots = {id: one.offer.lot for id, one in self.asks.items()}
        lone = alone(
            AuditedAsk(id, self.asks[id].offer.provider, lot.rules, lot.numerics)
            for id, lot in lots.items()
            if lot.rules in audited
        )
        found = unaudited_work(session, {self.asks[id].offer.provider for id in lone}, audited) if lone else {}
        gone = {id for id in lone if self.asks[id].offer.provider in found}
        left_out = {id: LeftOut(order=id, reason=LeftOutReason.UNAUDITED) for id in gone}
        return replace(
            self,
            asks={id: one for id, one in self.asks.items() if id not in gone},
            left_out=self.left_out | left_out,
            unaudited=[note for _, notes in sorted(found.items()) for note in notes],
        )

    @property
    def owners(self) -> set[str]:
        return {one.offer.client for one in self.bids.values()} | {one.offer.provider for one in self.asks.values()}

    def book(self, accounts: Mapping[str, AccountWord]) -> Book:
        bids, asks = (one.offer for one in self.bids.values()), (one.offer for one in self.asks.values())
        return book_of(bids, asks, accounts)


@dataclass(frozen=True, slots=True)
class _Known:
    """A Bid, as it is before its first lease."""

    waiting: WaitingBid
    deadline: int | None
    spec: JobSpec | None  # of jobs with a rule for an early stop


@dataclass
class OrderBook:
    """What one process knows of the orders. What accounts say of them is not looked at here."""

    context: Context
    _bids: dict[str, _Known] = field(default_factory=dict)
    _asks: dict[str, StandingAsk] = field(default_factory=dict)
    _reader: OfferReader = field(default_factory=OfferReader)
    _records: Records = field(default_factory=Records)

    def look(self, session: Session, now: int) -> Snapshot:
        block = session.exec(select(ChainBlock).order_by(col(ChainBlock.number).desc()).limit(1)).one()
        head = Head(block.number, block.timestamp, block.hash)
        now = max(now, head.timestamp)  # a follower may have stored it since `now` was told
        left_out: list[LeftOut] = []
        tiers, standings = self._records.look(session)
        bids, failures, unreproducible = self._waiting(session, head, now, left_out, standings)
        asks = self._standing(session, now, left_out, tiers)
        if self.context.reserve_short:
            for id in [id for id, one in bids.items() if self._is_paid_from_reserve(one)]:
                del bids[id]
                left_out.append(LeftOut(order=id, reason=LeftOutReason.RESERVE))
        for id, epoch in _refused(session, now):
            if bids.pop(id, None) or asks.pop(id, None) is not None:
                left_out.append(LeftOut(order=id, reason=LeftOutReason.REFUSED, epoch=epoch))
        passing = {LeftOutReason.FINAL, LeftOutReason.REFUSED}
        is_settled = passing.isdisjoint(one.reason for one in left_out)
        until = _next_change(session, now) if is_settled else now
        gone = {one.order: one for one in left_out}
        return Snapshot(head, now, bids, asks, gone, failures, until, unreproducible=unreproducible)

    # ------------------------------------------------------------- bids

    def _waiting(
        self, session: Session, head: Head, now: int, left_out: list[LeftOut], standings: Mapping[str, Standing]
    ) -> tuple[dict[str, WaitingBid], list[FailureReport], list[AuditNoteIn]]:
        valid = BidRow.valid_until >= now
        failed = dict(session.exec(select(BidRow.id, BidRow.failed).where(valid)).all())
        self._bids = {id: one for id, one in self._bids.items() if id in failed}
        timeouts = {hash: one.rules.checkpoint_timeout for hash, one in self.context.rules_by_hash.items()}
        timeouts |= {row.hash: int(row.rules["checkpointTimeout"]) for row in session.exec(select(RuleSetRow))}
        for rows in _read(session, BidRow, failed.keys() - self._bids.keys()):
            known = self.context.unreadable.each(rows, lambda row: self._known(row, timeouts))
            self._bids |= {row.id: one for row, one in zip(rows, known, strict=True) if one is not None}
        self._bids = {id: _standing_now(one, standings) for id, one in self._bids.items()}
        bids = {id: self._at(one, now) for id, one in self._bids.items()}
        past: dict[str, list[LeaseRow]] = {}
        leases = select(LeaseRow).join(BidRow, col(BidRow.id) == LeaseRow.bid).where(valid)
        for lease in session.exec(leases.order_by(col(LeaseRow.opened_block), col(LeaseRow.start))):
            past.setdefault(lease.bid, []).append(lease)
        reports, wrong = _failures(session, past), _wrong(session, past)
        unlike, told_unlike = unreproducible_jobs(session, past, self.context.ending_rules), list[AuditNoteIn]()
        for id, its in past.items():
            first = bids.pop(id, None)  # none if it can't be read
            if first is None or any(lease.finished is None for lease in its) or not its[-1].continuable:
                continue
            spec, last = self._bids[id].spec, its[-1]
            if failed[id]:
                left_out.append(LeftOut(order=id, reason=LeftOutReason.FAILED))
            elif id in unlike:
                left_out.append(LeftOut(order=id, reason=LeftOutReason.UNREPRODUCIBLE))
                told_unlike += [note for note in (unlike[id],) if note is not None]
            elif not is_final(last, self.context.chain.settings.finality, head.number):
                left_out.append(LeftOut(order=id, reason=LeftOutReason.FINAL, lease=last.id))
            elif spec is not None and early_stop(session, spec.stop, its, now):
                left_out.append(LeftOut(order=id, reason=LeftOutReason.STOPPED_EARLY))
            else:
                said = reports.get(id, ())
                avoid = _let_down(session, its) | {row.provider for row, _ in said}
                given_back_by = frozenset(row.provider for row, _ in said if row.kind == "units")
                offer = replace(
                    first.offer,
                    rest=first.offer.rest - last.accepted,
                    avoid=frozenset(avoid),
                    given_back_by=given_back_by,
                    not_providers=first.offer.not_providers | wrong.get(id, frozenset()),
                )
                overruns = tuple(read_overrun(begins) for row, begins in said if row.kind == "units")
                bids[id] = replace(first, offer=offer, previous=last, overruns=overruns)
        told = [row for id, rows in reports.items() if id in bids or failed[id] for row, _ in rows]
        return bids, self._signed(told), told_unlike

    def _known(self, row: BidRow, timeouts: dict[str, int]) -> _Known:
        bid, spec = Bid.model_validate(row.bid), JobSpec.model_validate(row.spec)
        offer = self._reader.bid(row.id, bid, spec, timeouts[bid.rules])
        waiting = WaitingBid(offer, bid.matcher, bid.page, bid.bit, bid.effective_approver)
        return _Known(waiting, spec.deadline_time, spec if spec.stop is not None else None)

    @staticmethod
    def _at(known: _Known, now: int) -> WaitingBid:
        if known.deadline is None:
            return known.waiting
        return replace(known.waiting, offer=replace(known.waiting.offer, left=known.deadline - now))

    def _signed(self, rows: Iterable[ReportRow]) -> list[FailureReport]:
        domain = self.context.chain.domain
        made = [
            FailureReport(
                report=report_of(row),
                signature=row.signature,
            )
            for row in rows
        ]
        return sorted(made, key=lambda one: one.report.digest(domain))

    def _is_paid_from_reserve(self, one: WaitingBid) -> bool:
        verification = self.context.rules_by_hash[one.offer.needs.rules].rules.verification
        return is_paid_from(self.context.approver, verification, one.approver, one.offer.client)

    # ------------------------------------------------------------- asks

    def _standing(
        self, session: Session, now: int, left_out: list[LeftOut], tiers: Mapping[str, int]
    ) -> dict[str, StandingAsk]:
        """Those in force, but for those of a provider that has gone silent since it posted them."""
        in_force = (AskRow.valid_from <= now, AskRow.valid_until >= now)
        found = session.exec(select(AskRow.id, AskRow.provider, AskRow.received_block).where(*in_force)).all()
        ids = {id for id, _, _ in found}
        self._asks = {id: one for id, one in self._asks.items() if id in ids}
        for rows in _read(session, AskRow, ids - self._asks.keys()):
            known = self.context.unreadable.each(rows, self._stood)
            self._asks |= {row.id: one for row, one in zip(rows, known, strict=True) if one is not None}
        asks = {id: self._in_tier(one, tiers.get(one.offer.provider, 0)) for id, one in self._asks.items()}
        oldest = min((block for _, _, block in found), default=0)
        silent = {provider: (block, lease) for provider, block, lease in _ended_late(session, oldest)}
        for id, provider, received in found:
            block, lease = silent.get(provider, (0, None))
            if block > received and asks.pop(id, None) is not None:
                left_out.append(LeftOut(order=id, reason=LeftOutReason.SILENT, lease=lease))
        return asks

    def _stood(self, row: AskRow) -> StandingAsk:
        ask = Ask.model_validate(row.ask)
        offer = self._reader.ask(row.id, ask, AskResources.model_validate(row.resources))
        return StandingAsk(offer, ask.matcher, ask.page)

    def _in_tier(self, ask: StandingAsk, tier: int) -> StandingAsk:
        offer = self._reader.in_tier(ask.offer, tier)
        return ask if offer is ask.offer else replace(ask, offer=offer)


def _read(session: Session, model: Any, ids: Iterable[str]) -> Iterator[Sequence[Any]]:
    wanted = sorted(ids)
    for at in range(0, len(wanted), ROWS_AT_ONCE):
        rows = session.exec(select(model).where(col(model.id).in_(wanted[at : at + ROWS_AT_ONCE]))).all()
        yield rows
        for row in rows:  # what is kept of it is parsed
            session.expunge(row)


def _next_change(session: Session, now: int) -> int:
    """UTC seconds when the next order begins, or has ended: what it set aside is free for others then."""
    begins = select(func.min(AskRow.valid_from)).where(AskRow.valid_from > now, AskRow.valid_until >= AskRow.valid_from)
    asks_end = select(func.min(AskRow.valid_until) + 1).where(AskRow.valid_until >= now)
    bids_end = select(func.min(BidRow.valid_until) + 1).where(BidRow.valid_until >= now)
    found = (session.exec(query).one() for query in (begins, asks_end, bids_end))
    return min((at for at in found if at is not None), default=NEVER)


def _failures(session: Session, leases: Mapping[str, Sequence[LeaseRow]]) -> dict[str, list[tuple[ReportRow, str]]]:
    """What providers said of jobs that failed with them, or that they gave back for their work, by Bid, with what each
    text begins with. `leases`: by Bid; a lease that is not there was undone by a reorganisation.
    """
    found: dict[str, list[tuple[ReportRow, str]]] = {}
    wanted = sorted(leases)
    known = {lease.id for its in leases.values() for lease in its}
    for at in range(0, len(wanted), ROWS_AT_ONCE):
        some = wanted[at : at + ROWS_AT_ONCE]
        for row, begins in read_told(session, some, TELLING_KINDS):
            if row.lease in known:
                found.setdefault(row.bid, []).append((row, begins))
    return found


def _standing_now(known: _Known, standings: Mapping[str, Standing]) -> _Known:
    offer = known.waiting.offer
    now = standings.get(offer.client, UNKNOWN)
    if now == offer.standing:
        return known
    return replace(known, waiting=replace(known.waiting, offer=replace(offer, standing=now)))


def _wrong(session: Session, leases: Mapping[str, Sequence[LeaseRow]]) -> dict[str, frozenset[str]]:
    """Providers whose work on a job was found wrong, by Bid."""
    of_bid = {lease.id: (id, lease.provider) for id, its in leases.items() for lease in its}
    found: dict[str, frozenset[str]] = {}
    for lease, verdict in stored_verdicts(session).items():
        if lease in of_bid and verdict in (Verdict.FALSE, Verdict.VOID):
            id, provider = of_bid[lease]
            found[id] = found.get(id, frozenset()) | {provider}
    return found


def _let_down(session: Session, leases: Sequence[LeaseRow]) -> set[str]:
    """Providers that went silent on a job with these leases, or gave it back as they got it."""
    late = session.exec(
        select(LeaseRow.provider, ChainEvent.data)
        .join(ChainEvent, col(LeaseRow.id) == col(ChainEvent.lease))
        .where(ChainEvent.name == events.Ended.__name__, col(ChainEvent.lease).in_([lease.id for lease in leases]))
    ).all()
    no_progress = {lease.provider for lease in leases if lease.accepted == lease.start}
    return {provider for provider, data in late if data["status"] & Flag.LATE} | no_progress


def _ended_late(session: Session, after: int) -> list[tuple[str, int, str]]:
    """Provider, block and id of leases that were ended because their provider was silent, oldest first. The flag may
    be forgiven later.
    """
    ended = session.exec(
        select(LeaseRow.provider, ChainEvent.block_number, LeaseRow.id, ChainEvent.data)
        .join(ChainEvent, col(LeaseRow.id) == col(ChainEvent.lease))
        .where(ChainEvent.name == events.Ended.__name__, ChainEvent.block_number > after)
        .order_by(col(ChainEvent.block_number), col(ChainEvent.log_index))
    ).all()
    return [(provider, block, lease) for provider, block, lease, data in ended if data["status"] & Flag.LATE]


def _refused(session: Session, now: int) -> list[tuple[str, int]]:
    """Orders whose match the escrow did not open lately, and the epoch."""
    since = datetime.fromtimestamp(max(0, now - REFUSED_SECONDS), UTC)
    older = select(EpochRow.number).where(EpochRow.started < since).order_by(col(EpochRow.number).desc()).limit(1)
    rows = session.exec(
        select(MatchRow)
        .where(MatchRow.epoch > (session.exec(older).first() or 0))
        .where(MatchRow.refused != 0, col(MatchRow.lease).is_(None))
        .order_by(col(MatchRow.epoch))
    )
    return [(row.ask if row.refused in ASKS_FAULT else row.bid, row.epoch) for row in rows]
