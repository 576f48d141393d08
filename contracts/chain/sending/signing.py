"""Signs transactions (EIP-1559) with libsecp256k1. The same fields always give the same bytes."""

import time

from coincurve import PrivateKey
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from rlp import encode as rlp_encode

from contracts.chain.sending.intents import Intent, Version
from contracts.types import from_hex, to_hex


class TransactionSigner:
    """Signs for one key on one chain."""

    def __init__(self, account: LocalAccount, chain_id: int) -> None:
        self.address: str = account.address
        self._key = PrivateKey(bytes(account.key))
        self._chain_id = chain_id

    def sign(self, intent: Intent) -> Version:
        """The version of an intent that its nonce and fees describe."""
        draft, fees = intent.draft, intent.fees
        fields = [
            self._chain_id, intent.nonce, fees.tip, fees.most, draft.gas, from_hex(draft.to), draft.value, draft.data,
            [],
        ]  # fmt: skip
        signed = self._key.sign_recoverable(keccak(b"\x02" + rlp_encode(fields)), hasher=None)
        r, s, parity = int.from_bytes(signed[:32], "big"), int.from_bytes(signed[32:64], "big"), signed[64]
        raw = b"\x02" + rlp_encode([*fields, parity, r, s])
        return Version(to_hex(keccak(raw)), intent.nonce, fees, raw, time.time())
