"""Whose signature it is: checked as the escrow checks it."""

from eth_abi.abi import encode as abi_encode
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.types import TxParams

from contracts.chain.client import Chain
from contracts.orders import SignedType
from contracts.signature_form import escrow_form
from contracts.types import from_hex, to_hex

_IS_VALID_SIGNATURE = bytes.fromhex("1626ba7e")  # ERC-1271; also what a wallet answers for yes
_WALLET_GAS = 60_000


def is_signed_by(chain: Chain, message: SignedType, signer: str, signature: str) -> bool:
    """By the key of `signer`, or else by `signer` as an ERC-1271 wallet. May call the chain."""
    return message.signer(chain.domain, signature) == signer or _wallet_agrees(chain, message, signer, signature)


def taken_signature(chain: Chain, message: SignedType, signer: str, signature: str) -> str | None:
    """The signature in the form that the escrow takes, whatever form a wallet has given its v; None if it is not
    `signer`'s. May call the chain."""
    plain = escrow_form(from_hex(message.digest(chain.domain)), from_hex(signature), signer)
    if plain is not None:
        return to_hex(plain)
    return signature if _wallet_agrees(chain, message, signer, signature) else None


def _wallet_agrees(chain: Chain, message: SignedType, signer: str, signature: str) -> bool:
    wallet = chain.w3.to_checksum_address(signer)
    if not chain.w3.eth.get_code(wallet):
        return False
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
