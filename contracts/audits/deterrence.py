"""What a lie must cost for honest work to pay better, and what looking costs. Exact rationals and integers. Pure.

With q' = q (1 - s)(1 - u), of the share q that is drawn, s of the auditors' weight owned by the liar, and u of the
drawn left unaudited: who lies in j checkpoints of a batch of m gets away with (1 - q')^j. It then gains j prices, else
it loses the m - j honest ones and the penalty. So the penalty has to be more than the largest over j of

    j (1-q')^j / (1 - (1-q')^j) - (m-j)                                                                  in prices
"""

from fractions import Fraction
from functools import lru_cache

from contracts.audits.draw import threshold
from contracts.audits.verification import PPM, Level, Verification

OWN_SHARE = Fraction(15, 100)  # s: of the auditors' weight that the liar may own, and be deterred all the same
STEP = Fraction(1, 2)  # a stake is told in half prices
_WHOLE = 1 << 256


def least_penalty(q: Fraction, m: int, s: Fraction = OWN_SHARE, unaudited: Fraction = Fraction(0)) -> Fraction:
    """In prices, what is just not enough for a batch of m of which each is drawn with q. Raises ValueError."""
    seen = q * (1 - s) * (1 - unaudited)
    if not 0 < seen <= 1 or m < 1:
        raise ValueError(f"q = {q}, s = {s}, unaudited = {unaudited}, m = {m}: nothing would be seen")
    missed = 1 - seen
    return max(j * missed**j / (1 - missed**j) - (m - j) for j in range(1, m + 1))


@lru_cache(maxsize=256)
def deterring_penalty(
    share_ppm: int, approve_every: int, s: Fraction = OWN_SHARE, unaudited: Fraction = Fraction(0)
) -> Fraction:
    """In prices: what is just not enough for any length of a batch, drawn as short batches are; nor if each checkpoint
    were judged by itself with q, which is more than all of those.
    """
    lengths = (
        least_penalty(Fraction(threshold(share_ppm, approve_every, size), _WHOLE), size, s, unaudited)
        for size in range(1, approve_every + 1)
    )
    return max(least_penalty(Fraction(share_ppm, PPM), 1, s, unaudited), *lengths)


def penalty_of(level: Level, stake: int, arbiter_fee: int) -> int:
    """What a liar loses of its stake for good, in token units. Of `closed`, the 20 % (rounded down) that the escrow
    gives to the challenger may come back to it by an accomplice; of `open`, all of the rest is burnt.
    """
    rest = max(0, stake - arbiter_fee)
    return rest - rest // 5 if level == "closed" else rest


def stake_prices(verification: Verification, s: Fraction = OWN_SHARE) -> Fraction:
    """How many prices a stake that deters has on top of the arbiter's fee, rounded up to halves."""
    penalty = deterring_penalty(verification.share_ppm, verification.approve_every, s)
    needed = penalty / Fraction(4, 5) if verification.level == "closed" else penalty
    return -(-needed // STEP) * STEP if needed % STEP else needed + STEP  # it must be more, not as much


def default_stake(verification: Verification, price: int, arbiter_fee: int) -> int:
    """The stake of a Bid, in token units, that deters at `price`: the most that a checkpoint may cost.

    Raises ValueError for a level at which nothing is replayed: no stake deters there.
    """
    if verification.level == "unchecked":
        raise ValueError("nothing is replayed at the level 'unchecked', so that no stake deters")
    prices = stake_prices(verification)
    return arbiter_fee + -(-price * prices.numerator // prices.denominator)


def deters(verification: Verification, stake: int, price: int, arbiter_fee: int) -> bool:
    """Whether a lie costs more than it brings, for any length of batches, to who owns OWN_SHARE of the auditors."""
    if verification.level == "unchecked":
        return False
    needed = deterring_penalty(verification.share_ppm, verification.approve_every) * price
    return penalty_of(verification.level, stake, arbiter_fee) > needed


def expected_replays(verification: Verification, checkpoints: int) -> Fraction:
    """Of a lease of so many checkpoints, the short last batch with its denser draw."""
    full, short = divmod(checkpoints, verification.approve_every)
    sizes = [verification.approve_every] * full + [short] * (short > 0)
    share, every = verification.share_ppm, verification.approve_every
    return sum((size * Fraction(threshold(share, every, size), _WHOLE) for size in sizes), Fraction(0))


def replay_cost(verification: Verification, checkpoints: int, price: int) -> int:
    """What the buyer pays for replays of a lease, expected, in token units, rounded up; `price` of one replay."""
    cost = expected_replays(verification, checkpoints) * price
    return -(-cost.numerator // cost.denominator)


def described(verification: Verification | None) -> str:
    """What a level promises, what it costs, and what deters there. Without a JSON nothing is promised."""
    if verification is None or verification.level == "unchecked":
        return "unchecked: bytes and hashes are looked at, nothing is trained again, so that no stake deters"
    share = f"{verification.share_ppm / PPM:.4%}".rstrip("0%").rstrip(".") + " %"
    what = "listed recipes convict" if verification.level == "closed" else "what differs voids the lease"
    return (
        f"{verification.level}: {share} of the checkpoints are replayed, for about {share} more, and "
        f"{verification.approve_every} approved together; {what}. A stake of {float(stake_prices(verification)):g} "
        "prices and the arbiter's fee deters"
    )
