"""Signed orders as the auction takes them, and its classes as they are published. One mapping each."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from contracts.api.bodies import AskResources
from contracts.api.epochs import TradeClassOut
from contracts.job.provider_wants import UNKNOWN, Standing
from contracts.job.spec import JobSpec
from contracts.orders import Ask, Bid
from market.matching.book import AskOffer, BidOffer, Book, Lot, Needs, TradeClass

TICK_DECIMALS = 6  # of prices per hour: with more, the auction's solver could not count


def tick(decimals: int) -> int:
    """What prices per hour are multiples of in the auction: a millionth of a token, or its smallest unit.

    `decimals`: of the token.
    """
    return int(10 ** max(0, decimals - TICK_DECIMALS))


class PartyAccount(Protocol):
    """What the chain says of a party."""

    @property
    def free(self) -> int: ...  # token units

    @property
    def active(self) -> int: ...  # live leases as a provider


def book_of(bids: Iterable[BidOffer], asks: Iterable[AskOffer], accounts: Mapping[str, PartyAccount]) -> Book:
    """`accounts`: by address, of all owners of these orders."""
    free = {owner: account.free for owner, account in accounts.items()}
    active = {owner: account.active for owner, account in accounts.items()}
    return Book(tuple(bids), tuple(asks), free, active)


def job_offer(
    spec: JobSpec, rules: str, timeout: int | None, *, client: str, units: int, fee: int, now: int | None = None
) -> BidOffer:
    """A whole job that offers nothing yet. `timeout`: of its rules, seconds; `now`: UTC seconds, where its deadline
    counts.
    """
    wanted = spec.resources
    needs = Needs(
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
        numerics=frozenset(wanted.numerics),
    )
    return BidOffer(
        id="",
        client=client,
        needs=needs,
        units=units,
        limit=0,
        fee=fee,
        stake=0,
        rest=spec.checkpoints,
        recipe=spec.files[spec.recipe_path].sha256,
        providers=frozenset(wanted.providers),
        not_providers=frozenset(wanted.not_providers),
        timeout=timeout,
        left=None if now is None or spec.deadline_time is None else spec.deadline_time - now,
    )


@dataclass
class OfferReader:
    """Reads orders; equal needs, and equal lots, share an object, since the auction looks them up by identity."""

    _needs: dict[Needs, Needs] = field(default_factory=dict)
    _lots: dict[Lot, Lot] = field(default_factory=dict)

    def bid(
        self,
        id: str,
        bid: Bid,
        spec: JobSpec,
        timeout: int | None,
        *,
        reached: int = 0,
        avoid: Collection[str] = (),
        given_back_by: Collection[str] = (),
        wrong: Collection[str] = (),
        standing: Standing = UNKNOWN,
        now: int | None = None,
    ) -> BidOffer:
        """From checkpoint `reached` on, rather not with the providers `avoid`, and not with those that gave it back for
        its work, or whose work on it was found `wrong`; the rest as in `job_offer`.
        """
        job = job_offer(spec, bid.rules, timeout, client=bid.client, units=bid.units, fee=bid.fee, now=now)
        return replace(
            job,
            id=id,
            needs=self._needs.setdefault(job.needs, job.needs),
            limit=bid.max_price - bid.fee,
            stake=bid.stake,
            rest=bid.checkpoints - reached,
            avoid=frozenset(avoid),
            given_back_by=frozenset(given_back_by),
            not_providers=job.not_providers.union(wrong),
            standing=standing,
        )

    def ask(self, id: str, ask: Ask, resources: AskResources, tier: int = 0) -> AskOffer:
        """`tier`: of the provider's reliability."""
        lot = _lot(resources, ask.rules, tier)
        return AskOffer(
            id=id,
            provider=ask.provider,
            lot=self._lots.setdefault(lot, lot),
            price_per_hour=ask.price_per_hour,
            units_per_hour=ask.units_per_hour,
            max_stake=ask.max_stake,
            max_active=ask.max_active,
            max_checkpoints=ask.max_checkpoints,
        )

    def in_tier(self, ask: AskOffer, tier: int) -> AskOffer:
        if ask.lot.tier == tier:
            return ask
        lot = replace(ask.lot, tier=tier)
        return replace(ask, lot=self._lots.setdefault(lot, lot))


def to_published(trade_class: TradeClass) -> TradeClassOut:
    lot = trade_class.lot
    return TradeClassOut(
        rules=lot.rules,
        environments=sorted(lot.environments),
        device=lot.device,
        gpus=lot.gpus,
        vram_mb=lot.vram_mb,
        memory_mb=lot.memory_mb,
        region=lot.region,
        tier=lot.tier,
        hosts=sorted(lot.hosts),
        numerics=lot.numerics or None,
        wants=lot.wants,
        units_per_hour=trade_class.units_per_hour,
        stake=trade_class.stake,
        min_work=trade_class.min_work,
        max_checkpoints=trade_class.max_checkpoints,
        provider=trade_class.provider,
    )


def from_published(out: TradeClassOut) -> TradeClass:
    """The inverse of `to_published`."""
    lot = _lot(out, out.rules, out.tier)
    return TradeClass(lot, out.units_per_hour, out.stake, out.min_work, out.max_checkpoints, out.provider)


def _lot(machine: AskResources | TradeClassOut, rules: str, tier: int) -> Lot:
    return Lot(
        rules=rules,
        environments=frozenset(machine.environments),
        device=machine.device,
        gpus=machine.gpus,
        vram_mb=machine.vram_mb,
        memory_mb=machine.memory_mb,
        region=machine.region,
        tier=tier,
        hosts=frozenset(machine.hosts),
        wants=machine.wants.of_jobs,
        numerics=machine.numerics or "",
    )
