"""How deep something must be in the chain before one builds on it. Pure; each party chooses for itself."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from contracts.types import Uint256

KEPT_BLOCKS = 128  # what followers remember: a deeper reorganisation can't be followed, so nothing waits for longer


class Finality(BaseModel):
    """A policy: the more money moves, the more blocks must stand on top of its block."""

    model_config = ConfigDict(frozen=True)

    base: int = Field(default=0, ge=0, description="blocks on top of one, whatever its value")
    per: Uint256 = Field(default=0, description="so much value wants another block; 0: value doesn't matter")
    max: int = Field(default=0, ge=0, le=KEPT_BLOCKS, description="no value wants more blocks than this")

    def confirmations(self, value: int) -> int:
        """Blocks that must stand on top of the one that moved `value` (smallest units)."""
        more = -(-value // self.per) if self.per else 0
        return min(self.base + more, self.max)

    def is_final(self, block: int, head: int, value: int) -> bool:
        return head - block >= self.confirmations(value)


def at_stake(nums: Any, stake: int) -> int:
    """All that a lease holds: its lock and its stake. `nums`: anything with a lease's start, end, price and fee."""
    return int(stake + (nums.price + nums.fee) * (nums.end - nums.start))
