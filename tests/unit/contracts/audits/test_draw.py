"""The draw: byte for byte, dense enough in short batches, and checkable by anybody afterwards."""

import hashlib
import hmac
import json
from decimal import ROUND_FLOOR, Decimal, localcontext
from pathlib import Path

import pytest
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.audits.auditors import AuditorOffer, draw_auditor, highest_price, weights
from contracts.audits.draw import (
    Batch,
    Drawable,
    commitment,
    drawn,
    lease_secret,
    number_drawn,
    recheck,
    threshold,
)
from contracts.audits.verification import MAX_APPROVE_EVERY, PPM
from contracts.orders import Domain, new_account
from contracts.types import to_hex

DOMAIN = Domain(chain_id=31337, verifying_contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
GOLDEN = Path(__file__).parents[3] / "golden"
KEY, LEASE, BLOCK = keccak(b"key"), to_hex(keccak(b"lease")), to_hex(keccak(b"block"))
SECRET = lease_secret(KEY, DOMAIN, LEASE)


def claims(first: int, last: int) -> tuple[Drawable, ...]:
    return tuple(Drawable(n, to_hex(keccak(b"tip %d" % n)[:20])) for n in range(first, last + 1))


def test_the_bytes() -> None:
    place = (31337).to_bytes(32, "big") + bytes.fromhex(DOMAIN.verifying_contract[2:])
    by_hand = hmac.new(KEY, b"gpumarket audit secret 1" + place + keccak(b"lease"), hashlib.sha256).digest()
    assert by_hand == SECRET
    assert commitment(SECRET) == to_hex(keccak(SECRET))
    (claim,) = claims(258, 258)
    message = keccak(b"lease") + b"\x01\x02" + keccak(b"tip 258")[:20] + keccak(b"block")
    assert len(message) == 86
    by_hand = hmac.new(SECRET, message, hashlib.sha256).digest()
    assert number_drawn(SECRET, LEASE, claim, BLOCK) == int.from_bytes(by_hand, "big")


def test_a_secret_is_of_one_key_lease_and_escrow() -> None:
    others = [
        lease_secret(keccak(b"other"), DOMAIN, LEASE),
        lease_secret(KEY, DOMAIN.model_copy(update={"chain_id": 1}), LEASE),
        lease_secret(KEY, DOMAIN.model_copy(update={"verifying_contract": new_account().address}), LEASE),
        lease_secret(KEY, DOMAIN, BLOCK),
    ]
    assert len({SECRET, *others}) == 5
    with pytest.raises(ValueError, match="a private key has 32 bytes, got 31"):
        lease_secret(KEY[1:], DOMAIN, LEASE)
    with pytest.raises(ValueError, match="a secret has 32 bytes, got 0"):
        commitment(b"")


@given(st.integers(0, PPM), st.integers(1, MAX_APPROVE_EVERY), st.data())
def test_the_threshold_is_the_formula_rounded_down(ppm: int, every: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, every))
    found = threshold(ppm, every, size)
    missed, goal = (1 << 256) - found, (PPM - ppm) ** every << (256 * size)
    assert missed**size * PPM**every >= goal
    assert missed == 0 or (missed - 1) ** size * PPM**every < goal
    with localcontext() as context:
        context.prec = 120
        exact = (Decimal(PPM - ppm) / PPM) ** (Decimal(every) / size) if ppm < PPM else Decimal(0)
        assert abs(Decimal(found) - (1 - exact) * Decimal(2) ** 256) <= 1


def test_whole_batches_are_drawn_with_q() -> None:
    for ppm in (0, 1, 25_000, 100_000, 999_999, PPM):
        for every in (1, 4, 6, 100):
            assert threshold(ppm, every, every) == ppm * 2**256 // PPM
    for wrong in ((PPM + 1, 1, 1), (-1, 1, 1), (1, 4, 0), (1, 4, 5), (1, 101, 1)):
        with pytest.raises(ValueError, match=r"share_ppm is|a batch of"):
            threshold(*wrong)


@given(st.integers(1, PPM), st.integers(2, 12), st.data())
def test_a_lie_in_all_of_a_short_batch_is_seen_as_often(ppm: int, every: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, every))
    missed = 1 - threshold(ppm, every, size) / 2**256
    assert missed**size == pytest.approx((1 - ppm / PPM) ** every, abs=1e-12)


@settings(max_examples=40)
@given(st.integers(0, PPM), st.integers(1, 8), st.integers(1, 30))
def test_exactly_the_drawn_ones(ppm: int, every: int, count: int) -> None:
    batches = [
        Batch(claims(first, min(first + every - 1, count)), to_hex(keccak(b"block %d" % first)))
        for first in range(1, count + 1, every)
    ]
    due = {n for batch in batches for n in drawn(SECRET, LEASE, batch, ppm, every)}

    def told(replayed: set[int]) -> list[str]:
        return recheck(SECRET, commitment(SECRET), LEASE, batches, replayed, ppm, every)

    assert told(due) == []
    for n in due:
        assert told(due - {n}) == [f"checkpoint {n} was drawn, and was not replayed"]
    for n in set(range(1, count + 1)) - due:
        assert told(due | {n}) == [f"checkpoint {n} was replayed, and had not been drawn"]
    (problem,) = recheck(bytes(32), commitment(SECRET), LEASE, batches, due, ppm, every)
    assert problem.endswith(f"committed was {commitment(SECRET)}")


def test_batches_that_leave_claims_out() -> None:
    for batches in (
        [Batch(claims(1, 3), BLOCK), Batch(claims(4, 7), BLOCK)],  # short, and not the last
        [Batch(claims(1, 5), BLOCK)],
        [Batch(claims(1, 4), BLOCK), Batch(claims(6, 7), BLOCK)],
        [Batch((*claims(1, 2), *claims(4, 5)), BLOCK)],
        [Batch((), BLOCK)],
    ):
        assert recheck(SECRET, commitment(SECRET), LEASE, batches, set(range(9)), PPM, 4)


def test_the_share_that_is_drawn() -> None:
    seen = sum(len(drawn(SECRET, LEASE, Batch(claims(n, n + 3), BLOCK), 100_000, 4)) for n in range(1, 40_001, 4))
    assert abs(seen - 4_000) < 4 * (40_000 * 0.1 * 0.9) ** 0.5


# ------------------------------------------------------------------ auditors

A, B, C, D = (f"0x{letter * 40}" for letter in "abcd")


def test_who_may_replay() -> None:
    offers = [
        AuditorOffer(B, 100, 125), AuditorOffer(A, 300, 90), AuditorOffer(A, 200, 1), AuditorOffer(C, 900, 126),
        AuditorOffer(D, 0, 1),
    ]  # fmt: skip
    assert weights(offers, 100, ()) == {A: 300, B: 100}  # C is too dear, D stakes nothing, A's Asks overlap
    assert weights(offers, 100, {A}) == {B: 100}
    assert draw_auditor(SECRET, LEASE, 1, 0, offers, 100, {A, B}) is None
    assert [highest_price(price) for price in (0, 1, 3, 4, 100)] == [0, 1, 3, 5, 125]


def test_by_stake_and_the_same_for_everybody() -> None:
    offers = [AuditorOffer(A, 300, 1), AuditorOffer(B, 100, 1)]
    found = [draw_auditor(SECRET, LEASE, n, turn, offers, 1, ()) for n in range(1, 2001) for turn in (0, 1)]
    assert found == [
        draw_auditor(SECRET, LEASE, n, turn, offers[::-1], 1, ()) for n in range(1, 2001) for turn in (0, 1)
    ]
    assert abs(found.count(A) - 3000) < 4 * (4000 * 0.75 * 0.25) ** 0.5
    assert draw_auditor(keccak(b"x"), LEASE, 1, 0, [AuditorOffer(B, 1, 1)], 1, ()) == B


def test_many_cheap_asks_do_not_weigh_more() -> None:
    one, many = [AuditorOffer(A, 300, 1)], [AuditorOffer(A, 300, price) for price in range(1, 50)]
    rest = [AuditorOffer(B, 300, 1)]
    for n in range(50):
        assert draw_auditor(SECRET, LEASE, n, 0, one + rest, 100, ()) == draw_auditor(
            SECRET, LEASE, n, 0, many + rest, 100, ()
        )


def test_the_vectors_by_hand() -> None:
    golden = json.loads((GOLDEN / "verification.json").read_text())
    for one in golden["levels"].values():
        assert to_hex(keccak(one["canonical"].encode())) == one["hash"]
    one = {name: bytes.fromhex(text[2:]) for name, text in golden["draw"].items() if str(text).startswith("0x")}
    domain = golden["draw"]["domain"]
    place = int(domain["chainId"]).to_bytes(32, "big") + bytes.fromhex(domain["verifyingContract"][2:])
    secret = hmac.new(one["key"], b"gpumarket audit secret 1" + place + one["lease"], hashlib.sha256).digest()
    assert (secret, keccak(secret)) == (one["secret"], one["commitment"])
    message = one["lease"] + int(golden["draw"]["n"]).to_bytes(2, "big") + one["tip"] + one["block"]
    assert hmac.new(secret, message, hashlib.sha256).digest() == one["number"]
    for row in golden["draw"]["thresholds"]:
        share, every, size, below = (int(row[name]) for name in ("sharePpm", "approveEvery", "size", "below"))
        with localcontext() as context:
            context.prec = 120
            missed = Decimal(1) - Decimal(share) / PPM
            exact = (1 - missed ** (Decimal(every) / size)) * 2**256 if missed else Decimal(2**256)
            assert below == int(exact.to_integral_value(ROUND_FLOOR))
