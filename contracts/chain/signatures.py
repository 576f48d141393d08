"""Whose signature it is: checked as the escrow checks it."""

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable

from eth_abi.abi import encode as abi_encode
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.types import TxParams

from contracts.chain.client import Chain
from contracts.orders import SignedType
from contracts.signature_form import escrow_form
from contracts.types import from_hex, to_hex

KEPT_SECONDS = 60.0  # for which an answer of the chain holds: a wallet may be made, or change its mind
KEPT_ANSWERS = 20_000

_IS_VALID_SIGNATURE = bytes.fromhex("1626ba7e")  # ERC-1271; also what a wallet answers for yes
_WALLET_GAS = 60_000


def is_signed_by(chain: Chain, message: SignedType, signer: str, signature: str) -> bool:
    """By the key of `signer`, or else by `signer` as an ERC-1271 wallet. May call the chain."""
    if message.signer(chain.domain, signature) == signer:
        return True
    return _has_code(chain, signer) and _wallet_agrees(chain, message, signer, signature)


def _has_code(chain: Chain, address: str) -> bool:
    return bool(chain.w3.eth.get_code(chain.w3.to_checksum_address(address)))


def _wallet_agrees(chain: Chain, message: SignedType, signer: str, signature: str) -> bool:
    wallet = chain.w3.to_checksum_address(signer)
    arguments = abi_encode(["bytes32", "bytes"], [from_hex(message.digest(chain.domain)), from_hex(signature)])
    data = _IS_VALID_SIGNATURE + arguments
    # What the escrow allows the wallet, on top of what any transaction pays for itself and its data.
    gas = _WALLET_GAS + 21_000 + sum(16 if byte else 4 for byte in data)
    call: TxParams = {"to": wallet, "from": chain.escrow.address, "data": data, "gas": gas}
    try:
        answer = bytes(chain.w3.eth.call(call))
    except (ContractLogicError, Web3RPCError):
        return False
    return answer[:32] == _IS_VALID_SIGNATURE + bytes(28)


class SignatureChecks:
    """Signatures of strangers: the chain is asked once for what it has just been asked.

    Most signers are no contracts: about each address without code there is one question in KEPT_SECONDS, whatever is
    said to be signed by it. Threads may share it.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._answers: OrderedDict[Hashable, tuple[float, bool]] = OrderedDict()  # with the time (monotonic) they hold
        self._lock = threading.Lock()

    def taken_signature(self, message: SignedType, signer: str, signature: str) -> str | None:
        """The signature in the form that the escrow takes, whatever form a wallet has given its v; None if it is not
        `signer`'s. Raises what a silent chain does: that is not kept."""
        digest = message.digest(self._chain.domain)
        plain = escrow_form(from_hex(digest), from_hex(signature), signer)
        if plain is not None:
            return to_hex(plain)
        if not self.has_code(signer):
            return None
        agrees = self._known((signer, digest, signature))
        if agrees is None:
            found = _wallet_agrees(self._chain, message, signer, signature)
            agrees = self._keep((signer, digest, signature), found)
        return signature if agrees else None

    def has_code(self, signer: str) -> bool:
        """Whether it is a contract, which may change its mind about what it has signed."""
        known = self._known(signer)
        return self._keep(signer, _has_code(self._chain, signer)) if known is None else known

    def _known(self, question: Hashable) -> bool | None:
        with self._lock:
            until, answer = self._answers.get(question, (0.0, False))
        return answer if time.monotonic() < until else None

    def _keep(self, question: Hashable, answer: bool) -> bool:
        with self._lock:
            self._answers[question] = (time.monotonic() + KEPT_SECONDS, answer)
            self._answers.move_to_end(question)
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        return answer
