"""The chain's time between its blocks. Only the chain's clock decides about deadlines; this machine's may be wrong."""

import time

from contracts.chain.client import Chain


class ChainClock:
    """The newest block's time, and what has passed since that block was first seen."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._block_time = 0
        self._seen = 0.0  # monotonic

    def now(self) -> float:
        """UTC seconds by the chain. Raises what an unreachable node raises."""
        block_time, moment = self._chain.now(), time.monotonic()
        if block_time != self._block_time:
            self._block_time, self._seen = block_time, moment
        return self._block_time + (moment - self._seen)
