"""Which checkpoints are replayed: drawn by a committed secret, batch by batch, so that anybody can check it. Pure.

A batch is closed by `approve_every` Claims, or by the end of its lease. Nothing about it is told before: whoever claims
does not know what will be looked at, and whoever draws can't choose, as its secret was fixed before the first Claim and
the block came after the last one. All arithmetic is of integers: no two machines draw differently.
"""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from eth_utils.crypto import keccak

from contracts.audits.verification import MAX_APPROVE_EVERY, PPM
from contracts.orders import Domain
from contracts.types import from_hex, to_hex

_BITS = 256
_WHOLE = 1 << _BITS
_SECRET_TAG = b"gpumarket audit secret 1"


@dataclass(frozen=True)
class Drawable:
    """A Claim as the draw takes it."""

    n: int
    tip: str


@dataclass(frozen=True)
class Batch:
    """Claims that were drawn from together. `block`: hash of the block after the last of them was received."""

    claims: tuple[Drawable, ...]
    block: str


def lease_secret(key: bytes, domain: Domain, lease: str) -> bytes:
    """32 bytes: HMAC-SHA256(approver's private key, tag || u256 chain id || escrow || lease).

    Of the key, which an unlocked keystore hands to its program, and not of a signature: what signs is often asked by
    others, and a signature that somebody else obtained would be the secret. It says nothing about the key, and a lost
    disk loses no secret.
    """
    if len(key) != 32:
        raise ValueError(f"a private key has 32 bytes, got {len(key)}")
    place = domain.chain_id.to_bytes(32, "big") + _bytes(domain.verifying_contract, 20)
    return hmac.digest(key, _SECRET_TAG + place + _bytes(lease, 32), "sha256")


def commitment(secret: bytes) -> str:
    """What is published before a lease's first Claim: keccak256 of the 32 bytes."""
    if len(secret) != 32:
        raise ValueError(f"a secret has 32 bytes, got {len(secret)}")
    return to_hex(keccak(secret))


@lru_cache(maxsize=4096)
def threshold(share_ppm: int, approve_every: int, size: int) -> int:
    """Of 2^256: what a draw must be below, in a batch of `size` Claims. 0: none is drawn; 2^256: all are.

    The largest integer that is at most 2^256 (1 - (1-q)^(m/j)): a short batch of j is drawn denser, so that a liar
    gains nothing by ending its lease early. It is 2^256 less the least x with x^j >= (1-q)^m 2^(256 j).
    """
    if not 0 <= share_ppm <= PPM:
        raise ValueError(f"share_ppm is {share_ppm}; a share is 0 to {PPM} millionths")
    if not 1 <= size <= approve_every <= MAX_APPROVE_EVERY:
        raise ValueError(
            f"a batch of {size} where {approve_every} are approved together; it has 1 to that many, "
            f"which are {MAX_APPROVE_EVERY} at most"
        )
    left, scale = (PPM - share_ppm) ** approve_every, PPM**approve_every
    least = -(-(left << (_BITS * size)) // scale)  # x^size is whole, so it may be rounded up first
    return _WHOLE - _root_up(least, size)


def _root_up(value: int, degree: int) -> int:
    """The least x >= 0 with x^degree >= value. Newton's method from above, with integers."""
    if value <= 1 or degree == 1:
        return value
    x = 1 << -(-value.bit_length() // degree)  # above the root
    while True:
        step = ((degree - 1) * x + value // x ** (degree - 1)) // degree
        if step >= x:
            break
        x = step
    return x if x**degree >= value else x + 1  # x was the root rounded down


def number_drawn(secret: bytes, lease: str, claim: Drawable, block: str) -> int:
    """HMAC-SHA256(secret, lease || u16 n || tip || block hash), 32 + 2 + 20 + 32 bytes, as a big-endian number."""
    message = _bytes(lease, 32) + claim.n.to_bytes(2, "big") + _bytes(claim.tip, 20) + _bytes(block, 32)
    return int.from_bytes(hmac.digest(secret, message, hashlib.sha256), "big")


def drawn(secret: bytes, lease: str, batch: Batch, share_ppm: int, approve_every: int) -> tuple[int, ...]:
    """Which of a batch are replayed, ascending."""
    below = threshold(share_ppm, approve_every, len(batch.claims))
    return tuple(one.n for one in batch.claims if number_drawn(secret, lease, one, batch.block) < below)


def recheck(
    secret: bytes,
    committed: str,
    lease: str,
    batches: Sequence[Batch],
    replayed: Collection[int],
    share_ppm: int,
    approve_every: int,
) -> list[str]:
    """What was wrong with a lease's draws, once the secret is out; [] if exactly the drawn ones were replayed."""
    if commitment(secret) != committed:
        return [f"the secret that was shown hashes to {commitment(secret)}; committed was {committed}"]
    found = list(_form(batches, approve_every))
    if found:
        return found
    due = {n for batch in batches for n in drawn(secret, lease, batch, share_ppm, approve_every)}
    for n in sorted(due - set(replayed)):
        found.append(f"checkpoint {n} was drawn, and was not replayed")
    for n in sorted(set(replayed) - due):
        found.append(f"checkpoint {n} was replayed, and had not been drawn")
    return found


def _form(batches: Sequence[Batch], approve_every: int) -> Iterable[str]:
    """Batches follow each other without a gap, and only the last may be short."""
    after: int | None = None
    for number, batch in enumerate(batches):
        claims, last = [one.n for one in batch.claims], number == len(batches) - 1
        size = len(claims)
        if not 1 <= size <= approve_every or (size < approve_every and not last):
            yield f"batch {number + 1} has {size} Claims; {approve_every} are approved together"
        elif claims != list(range(claims[0], claims[0] + size)) or after not in (None, claims[0] - 1):
            yield f"batch {number + 1} is of the checkpoints {claims}, after {after}: some were left out"
        after = claims[-1] if claims else after


def _bytes(text: str, size: int) -> bytes:
    raw = from_hex(text)
    if len(raw) != size:
        raise ValueError(f"{text!r} has {len(raw)} bytes; {size} are wanted")
    return raw
