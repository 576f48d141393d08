"""Signatures are those of eth_account."""

from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from contracts.chain.sending.fees import Fees
from contracts.chain.sending.intents import Draft, Intent
from contracts.chain.sending.signing import TransactionSigner
from contracts.types import to_hex

WEI = st.integers(0, 2**80)
TO = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
ACCOUNT = Account.from_key("0x" + "12" * 32)


@given(st.integers(0, 2**64), WEI, WEI, st.integers(21_000, 2**24), WEI, st.binary(max_size=200), st.integers(1, 2**40))
def test_signs_as_eth_account_does(
    nonce: int, tip: int, most: int, gas: int, value: int, data: bytes, chain: int
) -> None:
    version = TransactionSigner(ACCOUNT, chain).sign(
        Intent(1, Draft(TO, data, value, gas), nonce, Fees(tip, most), 0.0)
    )
    expected = ACCOUNT.sign_transaction(
        {
            "type": 2, "chainId": chain, "nonce": nonce, "maxPriorityFeePerGas": tip, "maxFeePerGas": most,
            "gas": gas, "to": TO, "value": value, "data": to_hex(data),
        }
    )  # fmt: skip
    assert version.raw == bytes(expected.raw_transaction)
    assert version.hash == to_hex(bytes(expected.hash))
