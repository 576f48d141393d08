"""What the contracts refuse with, decoded and in plain words; and what a silent node raises (NODE_AWAY).

Amounts in the sentences are in the token's smallest unit; `values` has all values as they are on chain.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache
from typing import Any

import requests
from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import collapse_if_tuple
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)

from contracts.chain import artifacts
from contracts.chain.asking.node import NodeTrouble
from contracts.clocks import YEAR_10000
from contracts.errors import UserError
from contracts.terms import Phase
from contracts.types import from_hex, to_hex

# What a node that is silent, or that can't answer, raises: try again later, never crash.
NODE_AWAY = (requests.RequestException, Web3Exception, ConnectionError, TimeoutError)


class Refusal(IntEnum):
    """Why `open` or `redeem` refused an item: `Reason` of IEscrow.sol."""

    OK = 0
    RULES_DIFFER = 1
    RULES_OUT_OF_BOUNDS = 2
    MATCHER_NOT_ALLOWED = 3
    BID_TERMS_INVALID = 4
    ASK_TERMS_INVALID = 5
    BID_EXPIRED = 6
    ASK_NOT_IN_FORCE = 7
    BID_CANCELLED = 8
    BID_USED = 9
    ASK_CANCELLED = 10
    STAKE_ABOVE_MAX = 11
    STAKE_BELOW_ARBITER_FEE = 12
    PRICE_BELOW_ASK = 13
    PRICE_ABOVE_BID = 14
    PREV_NOT_CONTINUABLE = 15
    PROVIDER_BUSY = 16
    BALANCE_SHORT = 17
    STAKE_SHORT = 18
    BID_SIGNATURE_INVALID = 19
    ASK_SIGNATURE_INVALID = 20
    LEASE_NOT_LIVE = 21
    INDEX_TOO_LOW = 22
    INDEX_TOO_HIGH = 23
    APPROVAL_SIGNATURE_INVALID = 24

    @property
    def sentence(self) -> str:
        return _REASONS[self]


_REASONS = {
    Refusal.OK: "nothing is wrong",
    Refusal.RULES_DIFFER: "Bid and Ask do not both name the rules that were given",
    Refusal.RULES_OUT_OF_BOUNDS: "the rules have a timeout or window outside this escrow's bounds, or no arbiter",
    Refusal.MATCHER_NOT_ALLOWED: "an order names another matcher than the sender",
    Refusal.BID_TERMS_INVALID: "the Bid has a 0 where 1 is the least, a nonce bit above 111, or a fee but no matcher",
    Refusal.ASK_TERMS_INVALID: "the Ask has a 0 where 1 is the least",
    Refusal.BID_EXPIRED: "the Bid is past its validUntil",
    Refusal.ASK_NOT_IN_FORCE: "the Ask is before its validFrom or past its validUntil",
    Refusal.BID_CANCELLED: "the Bid's page is not the client's current one: it was cancelled, or is not in force yet",
    Refusal.BID_USED: "the Bid's nonce is used up; another Bid or an earlier lease had it",
    Refusal.ASK_CANCELLED: "the Ask's page is not the provider's current one: it was cancelled, or is not in force yet",
    Refusal.STAKE_ABOVE_MAX: "the Bid asks for more stake than the Ask allows",
    Refusal.STAKE_BELOW_ARBITER_FEE: "the Bid's stake does not cover the arbiter's fee",
    Refusal.PRICE_BELOW_ASK: "the price per checkpoint is below what the Ask wants for its units",
    Refusal.PRICE_ABOVE_BID: "price and fee together are above the Bid's highest price",
    Refusal.PREV_NOT_CONTINUABLE: "the lease to continue is not a Closed lease of the same Bid",
    Refusal.PROVIDER_BUSY: "the provider has as many live leases as its Ask allows",
    Refusal.BALANCE_SHORT: "the client's free balance does not cover price and fee of all checkpoints of the lease",
    Refusal.STAKE_SHORT: "the provider's free balance does not cover the stake",
    Refusal.BID_SIGNATURE_INVALID: "the Bid is not signed by its client",
    Refusal.ASK_SIGNATURE_INVALID: "the Ask is not signed by its provider",
    Refusal.LEASE_NOT_LIVE: "the lease is neither Active nor Closing (or there is no lease with these terms)",
    Refusal.INDEX_TOO_LOW: "the Approval reaches less far than what is claimed, or no further than what is accepted",
    Refusal.INDEX_TOO_HIGH: "the Approval reaches beyond the lease's end",
    Refusal.APPROVAL_SIGNATURE_INVALID: "the Approval is not signed by the lease's approver",
}

# Refusals that are the Ask's doing, or its provider's; the others are the Bid's.
ASKS_FAULT = {
    Refusal.ASK_TERMS_INVALID,
    Refusal.ASK_NOT_IN_FORCE,
    Refusal.ASK_CANCELLED,
    Refusal.PROVIDER_BUSY,
    Refusal.STAKE_SHORT,
    Refusal.ASK_SIGNATURE_INVALID,
}


class EscrowError(UserError):
    """A contract's refusal: `name` of the Solidity error, `values` by parameter name, and a sentence as message."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self.name = name
        self.values = values
        sentence = _SENTENCES.get(name)
        arguments = ", ".join(f"{key}={value}" for key, value in values.items())
        super().__init__(sentence(values) if sentence else f"the contract refused: {name}({arguments})")

    @property
    def reason(self) -> Refusal | None:
        return Refusal(self.values["reason"]) if self.name == "Escrow_Refused" else None


def _time(seconds: int) -> str:
    if seconds >= YEAR_10000:
        return f"{seconds} (UTC seconds)"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _phase(status: int) -> str:
    return Phase(status & 7).name.capitalize() if status & 7 <= max(Phase) else f"in status {status:#x}"


def _wrong_phase(v: dict[str, Any]) -> str:
    if v["status"] == 0:
        return f"there is no lease {v['lease']}: it never was, or it is over, or these are not its terms"
    return f"lease {v['lease']} is {_phase(v['status'])}, which doesn't allow this"


_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "Escrow_Refused": lambda v: f"refused: {Refusal(v['reason']).sentence}",
    "Escrow_WrongPhase": _wrong_phase,
    "Escrow_TooEarly": lambda v: (
        f"too early by {v['allowedFrom'] - v['nowTime']} s: allowed from {_time(v['allowedFrom'])} by the chain's clock"
    ),
    "Escrow_TooLate": lambda v: (
        f"too late by {v['nowTime'] - v['allowedUntil']} s: was allowed until {_time(v['allowedUntil'])}"
    ),
    "Escrow_BadIndex": lambda v: (
        f"{v['index']} is out of range: from {v['lowest']} to {v['highest']} is allowed"
        if v["lowest"] <= v["highest"]
        else f"{v['index']} is out of range: nothing is left to claim, the highest is {v['highest']}"
    ),
    "Escrow_NotAllowed": lambda v: f"{v['caller']} may not do this, or it may not be done with it",
    "Escrow_BadSignature": lambda v: f"this is not a signature of {v['signer']} over these values",
    "Escrow_TipMismatch": lambda v: (
        f"the tip or the roots given lead to tip {v['got']}, but on the chain to {v['expected']}"
    ),
    "Escrow_RulesMismatch": lambda v: f"the rules given have hash {v['got']}, but the lease has {v['expected']}",
    "Escrow_NothingPending": lambda v: f"nothing is pending at lease {v['lease']}",
    "Escrow_AlreadyClaimedInClosing": lambda v: f"lease {v['lease']} is Closing and has had its one last claim",
    "Escrow_BalanceShort": lambda v: (
        f"{v['account']} has {v['free']} free in the escrow, {v['needed'] - v['free']} short of {v['needed']}"
    ),
    "Escrow_NoVerdict": lambda v: (
        f"the arbiter has not ruled on {v['id']} yet; it counts as silent from {_time(v['silentFrom'])}"
    ),
    "Escrow_GasTooLow": lambda v: f"{v['gas']} gas is left where {v['needed']} is needed: send with more gas",
    "Escrow_ZeroAmount": lambda v: "the amount must not be 0",
    "Escrow_ZeroAddress": lambda v: "the address must not be 0",
    "Escrow_PageNotHigher": lambda v: f"the page is {v['current']} already; {v['asked']} is not higher",
    "Escrow_TooManyTokens": lambda v: f"{v['held']} is more than the escrow can count (2^96 - 1)",
    "Escrow_ReceivedOther": lambda v: (
        f"{v['received']} of the token arrived where {v['amount']} were sent: "
        "the escrow takes no token with a fee on transfers"
    ),
    "Escrow_BoundsInvalid": lambda v: "bounds must be at least 1 s, and the lowest not above the highest",
    "ERC20InsufficientBalance": lambda v: (
        f"{v['sender']} has {v['balance']} of the token, {v['needed'] - v['balance']} short of {v['needed']}"
    ),
    "ERC20InsufficientAllowance": lambda v: (
        f"{v['spender']} may take {v['allowance']} of the token, {v['needed']} is needed: approve it first"
    ),
    "SafeERC20FailedOperation": lambda v: f"the token {v['token']} refused the transfer",
    "DevToken_AboveCap": lambda v: f"the faucet gives at most {v['cap']} at once, not {v['amount']}",
    "EpochLog_NotHigher": lambda v: f"epoch {v['epoch']} is not above the newest published one, {v['newest']}",
    "OperatorArbiter_NotOperator": lambda v: f"{v['caller']} is not the arbiter's operator",
    "OperatorArbiter_UnknownQuestion": lambda v: f"no question {v['id']} is open at this arbiter",
    "OperatorArbiter_AlreadyRuled": lambda v: f"question {v['id']} has been ruled on: verdict {v['verdict']}",
    "Error": lambda v: f"the contract refused: {v['message']}",
    "Panic": lambda v: f"the contract stopped with panic {v['code']:#x}; this is a bug, please report it",
    "Reverted": lambda v: (
        f"transaction {v['transaction']} failed, but not when run again: it may have been short of gas"
    ),
}


@cache
def _by_selector() -> dict[bytes, tuple[str, list[str], list[str]]]:
    found = {
        bytes.fromhex("08c379a0"): ("Error", ["string"], ["message"]),
        bytes.fromhex("4e487b71"): ("Panic", ["uint256"], ["code"]),
    }
    for contract in ("Escrow", "DevToken", "EpochLog", "OperatorArbiter"):
        for item in artifacts.load_artifact(contract).abi:
            if item["type"] == "error":
                types = [collapse_if_tuple(value) for value in item["inputs"]]
                selector = keccak(f"{item['name']}({','.join(types)})".encode())[:4]
                found[selector] = (item["name"], types, [value["name"] for value in item["inputs"]])
    return found


def decode_revert(data: bytes | str) -> EscrowError | None:
    """The error behind revert data; None if it is none that we know."""
    raw = from_hex(data) if isinstance(data, str) else data
    known = _by_selector().get(raw[:4])
    if known is None:
        return None
    name, types, names = known
    try:
        values = abi_decode(types, raw[4:])
    except (DecodingError, ValueError):  # the latter of a text that is not UTF-8
        return None
    return EscrowError(name, {key: _plain(*pair) for key, *pair in zip(names, values, types, strict=True)})


def from_exception(error: Exception) -> EscrowError | None:
    """The decoded error behind an exception of web3; None if no contract refused."""
    data: Any = None
    if isinstance(error, ContractLogicError):
        data = error.data
    elif isinstance(error, Web3RPCError) and error.rpc_response is not None:
        details: Any = error.rpc_response.get("error")
        data = details.get("data") if isinstance(details, dict) else None
    if isinstance(data, dict):
        data = data.get("data")
    if isinstance(data, str) and data.startswith("0x"):
        decoded = decode_revert(data)
        if decoded is not None:
            return decoded
    if isinstance(error, ContractLogicError):
        return EscrowError("Error", {"message": error.message or "no reason given"})
    return None


def explain_node(error: Exception) -> UserError | None:
    """A contract's refusal, or what the node failed with, for whoever asked it; None if it is something else."""
    refusal = from_exception(error)
    if refusal is not None:
        return refusal
    if isinstance(error, NodeTrouble):
        return UserError(error.message, error.hint)
    if isinstance(error, requests.RequestException):
        return UserError("the Ethereum node stopped answering", "look whether it runs, and try again")
    if isinstance(error, Web3RPCError):
        said = (str(error.message or error).splitlines() or ["nothing"])[0][:200]
        return UserError(f"the Ethereum node refused: {said}", "--debug before the command shows where")
    if isinstance(error, BlockNotFound | TransactionNotFound | BadFunctionCallOutput):
        said = (str(error).splitlines() or ["nothing"])[0][:200]
        return UserError(f"the Ethereum node does not know what it should: {said}", "is it in sync? Try again later")
    return None


def _plain(value: Any, kind: str) -> Any:
    if kind == "address":
        return to_checksum_address(value)
    return to_hex(value) if isinstance(value, bytes) else value
