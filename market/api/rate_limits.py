"""How often each caller may ask. In memory, for one process."""

import ipaddress
import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from contracts.api.problems import Code, Problem
from market.runtime.context import Context


class RateLimits:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._per_account = RateLimitItemPerMinute(context.settings.requests_per_minute_account)
        self._per_address = RateLimitItemPerMinute(context.settings.requests_per_minute_address)

    def count_account(self, account: str) -> None:
        """Raises Problem(too_many_requests)."""
        self._count("account", self._per_account, account)

    def count_address(self, address: str) -> None:
        """Raises Problem(too_many_requests)."""
        self._count("address", self._per_address, network_of(address))

    def _count(self, by: str, limit: RateLimitItemPerMinute, who: str) -> None:
        if self._limiter.hit(limit, who):
            return
        reset, _ = self._limiter.get_window_stats(limit, who)
        seconds = min(60, max(1, math.ceil(reset - time.time())))
        self._context.metrics.limited.labels(by).inc()
        raise Problem(
            429,
            Code.TOO_MANY_REQUESTS,
            f"{who} has asked more than {limit.amount} times within a minute",
            f"Ask again in {seconds} s.",
            retry_after=seconds,
        )


def network_of(address: str) -> str:
    """What counts as one caller: an IPv4 address, or the first 64 bits of an IPv6 one.

    Each line has as many addresses below them as it likes.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
