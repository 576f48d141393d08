"""Signatures in the forms that wallets give them."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.orders import compact_signature, new_account, recover
from contracts.signature_form import escrow_form, signature_fault

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY, OTHER = new_account(), new_account()


def signed(digest: bytes) -> tuple[bytes, bytes, int]:
    """r, s and the parity."""
    made = KEY.unsafe_sign_hash(digest)
    return made.r.to_bytes(32, "big"), made.s.to_bytes(32, "big"), made.v - 27


@given(st.binary(min_size=32, max_size=32), st.sampled_from([1, 5, 10, 137, 8453, 31337, 11155111, 2**40]))
def test_every_form_becomes_what_the_escrow_takes(digest: bytes, chain: int) -> None:
    r, s, parity = signed(digest)
    plain = r + s + bytes([27 + parity])
    assert recover(digest, plain) == KEY.address
    eip155 = 2 * chain + 35 + parity
    for v in (bytes([parity]), bytes([27 + parity]), eip155.to_bytes((eip155.bit_length() + 7) // 8, "big")):
        assert escrow_form(digest, r + s + v, KEY.address) == plain
        assert escrow_form(digest, r + s + v, OTHER.address) is None
    compact = compact_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"), parity)
    assert escrow_form(digest, compact, KEY.address) == compact
    wrong = bytes([1 - parity])
    assert escrow_form(digest, r + s + wrong, KEY.address) is None


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80))
def test_what_is_no_signature_has_a_reason(digest: bytes, signature: bytes) -> None:
    assert escrow_form(digest, signature, KEY.address) is None
    assert signature_fault(digest, signature)


def test_each_reason_names_what_is_wrong() -> None:
    digest = bytes(31) + b"\1"
    r, s, parity = signed(digest)
    high = (N - int.from_bytes(s, "big")).to_bytes(32, "big")
    for signature, words in (
        (r, "it has 32 bytes; 65 (r, s, v) or 64 (EIP-2098) are wanted"),
        (r + s + b"\x05", "its v is 5; 27 or 28 is wanted"),
        (r + s + b"\x1f", "its v is 31; 27 or 28 is wanted"),
        (r + high + bytes([28 - parity]), "upper half of the curve's order, which the escrow refuses (EIP-2)"),
        (bytes(65), "no key has such a signature"),
        (r + s + bytes([parity]), f"it is that of {KEY.address}, or of the right key over other values"),
    ):
        assert words in signature_fault(digest, signature)
    # What it says to do about a high s is right.
    told = signature_fault(digest, r + high + bytes([28 - parity]))
    assert recover(digest, r + s + bytes([int(told.rpartition(" as v")[0].rpartition(" ")[2])])) == KEY.address
