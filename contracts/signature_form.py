"""Signatures as wallets write them, and in the form that the escrow takes. Pure."""

from contracts.orders import SECP256K1_HALF_ORDER, recover


def escrow_form(digest: bytes, signature: bytes, signer: str) -> bytes | None:
    """`signer`'s signature with its v as 27 or 28, or compact as it is; None if it is not that of this key.

    Some wallets write v as 0 or 1, or with the chain in it (EIP-155). A byte is read so only where the key is the
    signer's then: the signature of a contract wallet may have any form, and is kept as it is.
    """
    if recover(digest, signature) == signer:
        return signature
    parity = _parity(signature[64:])
    if parity is None:
        return None
    plain = signature[:64] + bytes([27 + parity])
    return plain if recover(digest, plain) == signer else None


def signature_fault(digest: bytes, signature: bytes) -> str:
    """Why it is not a key's signature, or whose it is, as the end of a sentence."""
    v = signature[64:]
    if len(signature) != 64 and not 0 < len(v) <= 8:
        return f"it has {len(signature)} bytes; 65 (r, s, v) or 64 (EIP-2098) are wanted"
    parity = _parity(v) if v else signature[32] >> 7
    if parity is None:
        return f"its v is {int.from_bytes(v, 'big')}; 27 or 28 is wanted"
    s = int.from_bytes(signature[32:64], "big")
    if v and s > SECP256K1_HALF_ORDER:
        return (
            "its s is in the upper half of the curve's order, which the escrow refuses (EIP-2): send the order less s, "
            f"and {28 - parity} as v"
        )
    found = recover(digest, signature[:64] + bytes([27 + parity]) if v else signature)
    if found is None:
        return "no key has such a signature"
    return f"it is that of {found}, or of the right key over other values"


def _parity(v: bytes) -> int | None:
    """0 or 1; None for a v that nobody writes. An EIP-155 v is twice the chain's id, and 35 or 36."""
    number = int.from_bytes(v, "big")
    if not 0 < len(v) <= 8:
        return None
    if number in (0, 1):
        return number
    if number in (27, 28):
        return number - 27
    return (number - 35) & 1 if number >= 35 else None
