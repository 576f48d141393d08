"""Orders in force: as the auction takes them, and as they were signed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from contracts.api.bodies import AskResources
from contracts.chain import events
from contracts.jobspec import JobSpec
from contracts.orders import Ask, Bid
from contracts.terms import Flag
from market.context import Context
from market.matching import AskOffer, BidOffer, Lot, Needs
from market.models import AskRow, BidRow, ChainEvent, LeaseRow, ReportRow
from market.services.early_stop import early_stop

TICK_DECIMALS = 6  # of prices per hour: with more, the auction's solver could not count


@dataclass(frozen=True)
class WaitingBid:
    offer: BidOffer
    bid: Bid
    signature: str
    previous: LeaseRow | None  # the ended lease that it continues


@dataclass(frozen=True)
class StandingAsk:
    offer: AskOffer
    ask: Ask
    signature: str


def needs_of(spec: JobSpec, rules: str) -> Needs:
    wanted = spec.resources
    return Needs(
        rules=rules,
        environment=spec.environment,
        gpus=wanted.gpus,
        vram_mb=wanted.vram_mb,
        memory_mb=wanted.memory_mb,
        devices=frozenset(wanted.devices),
        regions=frozenset(wanted.regions),
        tier=wanted.tier,
        hosts=frozenset(spec.hosts),
        units_per_hour=wanted.units_per_hour,
    )


def tick(context: Context) -> int:
    """What prices per hour are multiples of in the auction: a millionth of a token, or its smallest unit."""
    return int(10 ** max(0, context.chain.decimals - TICK_DECIMALS))


def ask_offer(id: str, ask: Ask, resources: AskResources) -> AskOffer:
    lot = Lot(
        rules=ask.rules,
        environments=frozenset(resources.environments),
        device=resources.device,
        gpus=resources.gpus,
        vram_mb=resources.vram_mb,
        memory_mb=resources.memory_mb,
        region=resources.region,
        hosts=frozenset(resources.hosts),
        wants=resources.wants,
    )
    return AskOffer(
        id=id,
        provider=ask.provider,
        lot=lot,
        price_per_hour=ask.price_per_hour,
        units_per_hour=ask.units_per_hour,
        max_stake=ask.max_stake,
        max_active=ask.max_active,
        max_checkpoints=ask.max_checkpoints,
    )


def waiting_bids(session: Session, now: int) -> list[WaitingBid]:
    """Bids that may open a lease now."""
    found: list[WaitingBid] = []
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
        bid = Bid.model_validate(row.bid)
        done = past[-1].accepted if past else 0
        offer = BidOffer(
            id=row.id,
            client=bid.client,
            needs=needs_of(spec, bid.rules),
            units=bid.units,
            limit=bid.max_price - bid.fee,
            fee=bid.fee,
            stake=bid.stake,
            rest=bid.checkpoints - done,
            recipe=spec.files[spec.recipe_path].sha256,
            avoid=_let_down(session, row.id, past),
            left=None if spec.deadline_time is None else spec.deadline_time - now,
        )
        found.append(WaitingBid(offer, bid, row.signature, past[-1] if past else None))
    return found


def _let_down(session: Session, bid: str, past: Sequence[LeaseRow]) -> frozenset[str]:
    """Providers that went silent on this job, failed at it, or gave it back as they got it."""
    failed = session.exec(select(ReportRow.provider).where(ReportRow.bid == bid, ReportRow.kind == "failed")).all()
    late = _ended_late(session, col(ChainEvent.lease).in_([lease.id for lease in past])) if past else []
    no_progress = {lease.provider for lease in past if lease.accepted == lease.start}
    return frozenset(failed) | {provider for provider, _ in late} | no_progress


def standing_asks(session: Session, now: int) -> list[StandingAsk]:
    """Asks in force, but for those of a provider that has gone silent since it posted them."""
    rows = session.exec(select(AskRow).where(AskRow.valid_from <= now, AskRow.valid_until >= now)).all()
    if not rows:
        return []
    silent_since: dict[str, int] = {}
    oldest = min(row.received_block for row in rows)
    for provider, block in _ended_late(session, col(ChainEvent.block_number) > oldest):
        silent_since[provider] = max(silent_since.get(provider, 0), block)
    found = []
    for row in rows:
        if row.received_block >= silent_since.get(row.provider, 0):
            ask = Ask.model_validate(row.ask)
            found.append(
                StandingAsk(ask_offer(row.id, ask, AskResources.model_validate(row.resources)), ask, row.signature)
            )
    return found


def _ended_late(session: Session, which: ColumnElement[bool]) -> list[tuple[str, int]]:
    """Providers whose lease was ended because they were silent, and in which block. The flag may be forgiven later."""
    ended = session.exec(
        select(LeaseRow.provider, ChainEvent.block_number, ChainEvent.data)
        .join(LeaseRow, col(LeaseRow.id) == col(ChainEvent.lease))
        .where(ChainEvent.name == events.Ended.__name__, which)
    ).all()
    return [(provider, block) for provider, block, data in ended if data["status"] & Flag.LATE]
