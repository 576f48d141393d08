"""Order books of real GPU models, from a seed, for a test of the auction and for its benchmark.

Prices are in millionths of a token per hour, speeds in work units per hour. Rates and relative speeds are about those
of public marketplaces in 2025 and of the makers' data sheets.
"""

import random
from typing import NamedTuple

from market.matching import AskOffer, BidOffer, Book, Lot, Needs


class Model(NamedTuple):
    name: str
    vram_mb: int
    dollars: float  # an hour
    speed: int  # work units per hour, of one GPU
    share: int  # of machines


MODELS = [
    Model("RTX 3090", 24_576, 0.16, 140_000, 20),
    Model("RTX 4090", 24_564, 0.32, 330_000, 25),
    Model("RTX 5090", 32_607, 0.45, 420_000, 8),
    Model("RTX A6000", 49_140, 0.40, 155_000, 8),
    Model("L40S", 46_068, 0.75, 360_000, 6),
    Model("A100 40GB", 40_960, 0.80, 310_000, 6),
    Model("A100 80GB", 81_920, 1.10, 312_000, 10),
    Model("H100 80GB", 81_559, 2.10, 900_000, 12),
    Model("H200", 143_771, 2.90, 950_000, 5),
]
REGIONS = ["eu-north", "eu-west", "us-east", "us-west", "asia-east"]
RULES = ["0x" + "a1" * 32, "0x" + "a2" * 32]
ENVIRONMENT = "torch-2.13"


def random_book(bids: int, asks: int, seed: int) -> Book:
    """Each order with a party of its own, which can lock what it signs."""
    dice = random.Random(seed)
    needs: dict[Needs, Needs] = {}
    lots: dict[Lot, Lot] = {}
    book = Book(
        tuple(_bid(dice, n, needs) for n in range(bids)),
        tuple(_ask(dice, n, lots) for n in range(asks)),
    )
    free = {bid.client: (bid.limit + bid.fee) * bid.rest for bid in book.bids}
    return Book(book.bids, book.asks, free | {ask.provider: ask.max_stake for ask in book.asks})


def _ask(dice: random.Random, number: int, lots: dict[Lot, Lot]) -> AskOffer:
    (model,) = dice.choices(MODELS, [of.share for of in MODELS])
    (gpus,) = dice.choices([1, 2, 4, 8], [60, 15, 12, 13])
    lot = Lot(
        rules=RULES[dice.random() < 0.1],
        environments=frozenset({ENVIRONMENT}),
        device=model.name,
        gpus=gpus,
        vram_mb=model.vram_mb,
        memory_mb=gpus * dice.choice([32_000, 64_000, 128_000]) - dice.randrange(900),
        region=dice.choice(REGIONS),
        tier=dice.choices([0, 1, 2], [30, 50, 20])[0],
    )
    speed = round(model.speed * gpus * min(1.15, max(0.7, dice.gauss(1, 0.06))))
    price = round(model.dollars * gpus * dice.lognormvariate(0, 0.35) * 1e6)
    lot = lots.setdefault(lot, lot)
    return AskOffer(f"ask{number}", f"provider{number}", lot, price, speed, 100_000_000, 1, 65_535)


def _bid(dice: random.Random, number: int, same: dict[Needs, Needs]) -> BidOffer:
    (model,) = dice.choices(MODELS, [of.share for of in MODELS])
    (gpus,) = dice.choices([1, 2, 4, 8], [60, 15, 12, 13])
    (kind,) = dice.choices(["this model", "its memory", "one of two"], [35, 45, 20])
    devices = {model.name} | ({dice.choice(MODELS).name} if kind == "one of two" else set())
    needs = Needs(
        rules=RULES[dice.random() < 0.1],
        environment=ENVIRONMENT,
        gpus=gpus,
        vram_mb=dice.choice([8, 16, 24, 40, 80]) * 1000 if kind == "its memory" else 0,
        memory_mb=gpus * dice.choice([8_000, 16_000, 30_000, 60_000]),
        devices=frozenset() if kind == "its memory" else frozenset(devices),
        regions=frozenset() if dice.random() < 0.7 else frozenset({dice.choice(REGIONS)}),
        tier=dice.choices([0, 1, 2], [60, 30, 10])[0],
    )
    needs = same.setdefault(needs, needs)
    units = round(model.speed * gpus * dice.uniform(0.02, 0.5))
    per_unit = model.dollars / model.speed * dice.lognormvariate(0.05, 0.45) * 1e6
    limit = max(1, round(per_unit * units))
    return BidOffer(
        f"bid{number}", f"client{number}", needs, units, limit, 0, 10 * limit, dice.randint(5, 200),
        timeout=dice.choice([3600, 7200, 14_400]),
    )  # fmt: skip
