"""What is on a chain before and after a deployment: a token that is one, an arbiter, code that is the artifact's."""

from typing import Any

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import BadFunctionCallOutput, ContractLogicError, Web3RPCError

from contracts.chain import artifacts
from contracts.chain.asking.node import ask, sure
from contracts.chain.devnet.deployment import created_address
from contracts.errors import UserError
from contracts.types import from_hex

# An account that nobody has: what it would create stands at an address that is known.
_NOBODY = to_checksum_address(keccak(b"gpumarket deploy")[12:])
_DOMAIN = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_NO_CALL = (BadFunctionCallOutput, ContractLogicError, Web3RPCError, OverflowError)


def creation(name: str, arguments: tuple[Any, ...]) -> str:
    """Data of the transaction that makes a contract, 0x-hex."""
    artifact = artifacts.load_artifact(name)
    factory = Web3().eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
    data: str = factory.constructor(*arguments).data_in_transaction
    return data


def check_token(w3: Web3, address: str) -> tuple[int, str]:
    """Its decimals and symbol. Raises UserError if it is no ERC-20 token."""
    hint = "give --token the address of an ERC-20 token on this chain"
    if not w3.eth.get_code(to_checksum_address(address)):
        raise UserError(f"there is no contract at {address}, which --token names", hint)
    functions = _at(w3, "DevToken", address).functions
    for name, arguments in (("totalSupply", ()), ("balanceOf", (_NOBODY,)), ("allowance", (_NOBODY, _NOBODY))):
        _asked(functions[name](*arguments), f"the contract at {address} is no ERC-20 token: it has no {name}", hint)
    hint = "the escrow would take it, but no program could show its amounts: use another token"
    decimals = _asked(functions.decimals(), f"the token {address} tells no decimals", hint)
    symbol = _asked(functions.symbol(), f"the token {address} tells no symbol as text", hint)
    return int(decimals), str(symbol)


def check_arbiter(w3: Web3, arbiter: str, escrow: str | None) -> None:
    """Raises UserError if it is none, or answers to another escrow than this (None: one that is not there yet)."""
    hint = "give --arbiter the address of one, or leave it out: then an OperatorArbiter is deployed"
    if not w3.eth.get_code(to_checksum_address(arbiter)):
        raise UserError(f"there is no contract at {arbiter}, which --arbiter names", hint)
    functions = _at(w3, "OperatorArbiter", arbiter).functions
    _asked(functions.verdict(bytes(32)), f"the contract at {arbiter} is no arbiter: it has no verdict", hint)
    try:
        bound = str(functions.escrow().call())
    except _NO_CALL:
        return  # one for all escrows
    if bound != escrow:
        raise UserError(f"the arbiter {arbiter} answers to the escrow {bound} only", hint)


def has_code(w3: Web3, address: str) -> bool:
    return bool(w3.eth.get_code(to_checksum_address(address)))


def check_code(w3: Web3, chain_id: int, name: str, arguments: tuple[Any, ...], address: str) -> None:
    """Raises UserError unless the code at `address` is what the artifact's constructor makes with these arguments.

    The node is asked to run the constructor for an account that nobody has. What it makes is compared as a whole: of
    the immutables, those that depend on where the contract stands are put in as they must be.
    """
    (made,) = sure(ask(w3, [("eth_call", [{"from": _NOBODY, "data": creation(name, arguments)}, "latest"])]))
    expected, elsewhere = from_hex(made), created_address(_NOBODY, 0)
    expected = expected.replace(_word(elsewhere), _word(address))
    contract = _at(w3, name, address)
    if hasattr(contract.functions, "eip712Domain"):
        # It keeps the domain's hash. Its name and version are in the code as well: another one's would show there.
        try:
            _, own, version, *_ = contract.functions.eip712Domain().call()
        except _NO_CALL:
            own, version = "", ""
        before, after = (_separator(own, version, chain_id, one) for one in (elsewhere, address))
        expected = expected.replace(before, after)
    if bytes(w3.eth.get_code(to_checksum_address(address))) != expected:
        raise UserError(
            f"the code at {address} is not the {name} that this gpumarket has, with these arguments",
            "another version may have put it there: use that one, or deploy anew with another --name",
        )


def _word(address: str) -> bytes:
    return from_hex(address).rjust(32, b"\0")


def _separator(name: str, version: str, chain_id: int, address: str) -> bytes:
    kinds = ["bytes32", "bytes32", "bytes32", "uint256", "address"]
    hashes = [keccak(_DOMAIN), keccak(name.encode()), keccak(version.encode())]
    return keccak(encode(kinds, [*hashes, chain_id, address]))


def _at(w3: Web3, name: str, address: str) -> Contract:
    contract: Contract = w3.eth.contract(address=to_checksum_address(address), abi=artifacts.load_artifact(name).abi)
    return contract


def _asked(call: Any, problem: str, hint: str) -> Any:
    try:
        return call.call()
    except _NO_CALL as error:
        raise UserError(problem, hint) from error
