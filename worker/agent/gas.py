"""What a lease's transactions cost its provider. Pure: prices come in."""

from dataclasses import dataclass
from decimal import Decimal
from math import ceil

from contracts.types import SECONDS_PER_HOUR

# Gas of one call, as docs/gas.md has it measured.
REDEEM, REDEEM_LAST, CLAIM = 51_409, 47_418, 33_328
WEI_PER_ETHER = 10**18


@dataclass(frozen=True)
class GasPrice:
    """Of today: wei for a unit of gas, and the token's smallest units for an ETH where the owner said so."""

    wei: int
    tokens_per_eth: int | None = None

    def in_tokens(self, gas: float) -> int | None:
        """Rounded up; None if nobody said what an ETH is worth."""
        if self.tokens_per_eth is None:
            return None
        return ceil(Decimal(gas) * self.wei * self.tokens_per_eth / WEI_PER_ETHER)


def lease_gas(seconds: float, redeem_every: float) -> int:
    """Gas of a lease that goes well: a redeemed approval each `redeem_every` seconds, and the last one."""
    return REDEEM_LAST + REDEEM * int(seconds / redeem_every)


def least_pay(price_per_hour: int, gas: GasPrice, redeem_every: float, times: float) -> int | None:
    """What a lease must pay at least to be `times` its gas; None if no lease does, however long.

    One that lasts `s` seconds pays price * s, and costs REDEEM_LAST + REDEEM * s / redeem_every.
    """
    once, again = gas.in_tokens(times * REDEEM_LAST), gas.in_tokens(times * REDEEM)
    if once is None or again is None:
        return 0
    rate = Decimal(price_per_hour) / SECONDS_PER_HOUR
    left = rate - Decimal(again) / Decimal(redeem_every)
    return ceil(once * rate / left) if left > 0 else None


def per_hour(price_per_hour: int, gas: GasPrice, redeem_every: float) -> tuple[int, float | None]:
    """Gas of a lease of one hour that goes well: in wei, and as a share of its pay if that is known."""
    used = lease_gas(SECONDS_PER_HOUR, redeem_every)
    worth = gas.in_tokens(used)
    return used * gas.wei, None if worth is None else worth / price_per_hour
