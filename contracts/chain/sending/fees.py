"""What a transaction pays per gas (EIP-1559), in wei, and how that rises while it is not mined."""

from typing import NamedTuple

BUMP = (9, 8)  # nodes want a tenth more for a replacement


class Fees(NamedTuple):
    """The miner's share and the most that is paid altogether, per gas."""

    tip: int
    most: int


def fees_now(tip: int, base: int, cap: int) -> Fees:
    """Today's fees: room for the base fee to double, but never above `cap`."""
    most = min(2 * base + tip, cap)
    return Fees(min(tip, most), most)


def raised(fees: Fees, today: Fees, cap: int) -> Fees | None:
    """Both fees an eighth higher, and today's at least; None if `cap` leaves no room for that."""
    tip = max(_bump(fees.tip), today.tip)
    most = max(_bump(fees.most), today.most, tip)
    return Fees(tip, most) if most <= cap else None


def _bump(fee: int) -> int:
    return -(-fee * BUMP[0] // BUMP[1])


def format_ether(wei: int) -> str:
    """An amount of ETH in decimal, rounded up to six digits after the point."""
    millionths = -(-wei // 10**12)
    return f"{millionths // 10**6}.{millionths % 10**6:06}"
