"""Puts the contracts on a chain."""

from typing import Any, NamedTuple

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from rlp import encode as rlp_encode
from web3 import Web3

from contracts.chain import artifacts
from contracts.chain.client import Bounds
from contracts.types import from_hex

RECEIPT_TIMEOUT = 120.0  # seconds


class Deployment(NamedTuple):
    """Addresses of the contracts, and the block of the first of them."""

    token: str
    escrow: str
    epoch_log: str
    arbiter: str
    block: int


def deploy(w3: Web3, deployer: LocalAccount, bounds: Bounds, operator: str | None = None) -> Deployment:
    """Deploys a play token, an escrow for it, an epoch log, and an arbiter with its `operator` (else the deployer)."""
    token, block = _create(w3, deployer, "DevToken")
    escrow, _ = _create(w3, deployer, "Escrow", token, tuple(bounds))
    epoch_log, _ = _create(w3, deployer, "EpochLog")
    arbiter, _ = _create(w3, deployer, "OperatorArbiter", escrow, operator or deployer.address)
    return Deployment(token, escrow, epoch_log, arbiter, block)


def find_deployment(w3: Web3, deployer: str) -> Deployment | None:
    """What `deploy` made if it was the deployer's first act on this chain; None if there is nothing."""
    token, escrow, epoch_log, arbiter = (created_address(deployer, nonce) for nonce in range(4))
    if not w3.eth.get_code(to_checksum_address(arbiter)):
        return None
    return Deployment(token, escrow, epoch_log, arbiter, 0)


def created_address(deployer: str, nonce: int) -> str:
    """Where the deployer's transaction with this nonce puts its contract."""
    return to_checksum_address(keccak(rlp_encode([from_hex(deployer), nonce]))[12:])


def _create(w3: Web3, deployer: LocalAccount, name: str, *arguments: Any) -> tuple[str, int]:
    artifact = artifacts.load_artifact(name)
    factory = w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
    nonce = w3.eth.get_transaction_count(deployer.address, "pending")
    transaction = factory.constructor(*arguments).build_transaction({"from": deployer.address, "nonce": nonce})
    sent = w3.eth.send_raw_transaction(deployer.sign_transaction(transaction).raw_transaction)
    receipt = w3.eth.wait_for_transaction_receipt(sent, timeout=RECEIPT_TIMEOUT, poll_latency=0.05)
    address = receipt["contractAddress"]
    if receipt["status"] != 1 or address is None:
        raise RuntimeError(f"{name} could not be deployed (transaction {sent.to_0x_hex()})")
    return to_checksum_address(address), receipt["blockNumber"]
