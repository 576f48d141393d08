"""Signed orders, as the auction takes them."""

from contracts.api.bodies import AskResources
from contracts.job.spec import JobSpec
from contracts.orders import Ask
from market.matching import AskOffer, Lot, Needs

TICK_DECIMALS = 6  # of prices per hour: with more, the auction's solver could not count


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


def tick(decimals: int) -> int:
    """What prices per hour are multiples of in the auction: a millionth of a token, or its smallest unit. `decimals`: the
    token's.
    """
    return int(10 ** max(0, decimals - TICK_DECIMALS))


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
