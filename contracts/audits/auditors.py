"""Who replays a checkpoint: drawn by the secret of the lease among those on offer, weighted by stake. Pure.

Not the cheapest: an Ask near zero, of a liar's second key, would win every replay. Nor those that are as cheap as the
one that is audited: who asks for half of what others do would be replayed by nobody. It is all who might have had the
job, by what it offers.
"""

import hmac
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from contracts.types import from_hex

PRICE_CAP = (5, 4)  # of what the job offers for a checkpoint
_TAG = b"gpumarket auditor 1"


@dataclass(frozen=True)
class AuditorOffer:
    """An Ask in force that fits the job. Amounts are of the token's smallest unit."""

    provider: str
    stake: int  # the most that it locks
    price: int  # of the replayed checkpoint there


def highest_price(limit: int) -> int:
    """What a replay may cost, of a job that offers at most `limit` for a checkpoint, fee not included; rounded down."""
    return limit * PRICE_CAP[0] // PRICE_CAP[1]


def weights(offers: Iterable[AuditorOffer], limit: int, excluded: Collection[str]) -> dict[str, int]:
    """By provider, ascending: the largest stake that it offers at a price within the cap. Asks of one provider overlap,
    so they don't add up. Those with no stake, and those excluded, are not there.
    """
    found: dict[str, int] = {}
    for one in offers:
        if one.provider not in excluded and one.price <= highest_price(limit) and one.stake > 0:
            found[one.provider] = max(one.stake, found.get(one.provider, 0))
    return dict(sorted(found.items()))


def draw_auditor(
    secret: bytes, lease: str, n: int, turn: int, offers: Iterable[AuditorOffer], limit: int, excluded: Collection[str]
) -> str | None:
    """The provider that replays checkpoint `n`; None if there is none. `turn` counts those asked for it before.

    HMAC-SHA256(secret, tag || lease || u16 n || u16 turn) x (sum of weights) / 2^256, rounded down, is the place in the
    weights laid end to end by ascending address.
    """
    found = weights(offers, limit, excluded)
    total = sum(found.values())
    message = _TAG + from_hex(lease) + n.to_bytes(2, "big") + turn.to_bytes(2, "big")
    place = int.from_bytes(hmac.digest(secret, message, "sha256"), "big") * total >> 256
    for provider, weight in found.items():
        if place < weight:
            return provider
        place -= weight
    return None
