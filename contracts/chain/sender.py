"""Sends transactions of one key: dry run, nonce, fees, receipt, and a higher fee when it isn't mined in time."""

import threading
import time
from pathlib import Path
from typing import Any, cast

from eth_account.signers.local import LocalAccount
from filelock import FileLock
from hexbytes import HexBytes
from web3.contract.contract import ContractFunction
from web3.exceptions import TransactionNotFound, Web3RPCError
from web3.types import Nonce, TxParams, TxReceipt, Wei

from contracts.chain.client import Chain
from contracts.chain.errors import EscrowError
from contracts.errors import UserError
from contracts.settings import home

GAS_MARGIN = (6, 5)  # an estimate may be a little short by the time it is mined
FEE_BUMP = (9, 8)  # nodes want a tenth more for a replacement
WEI_PER_ETHER = 10**18

_locks: dict[str, threading.Lock] = {}
_locks_guard = threading.Lock()


class NotMined(UserError):
    """No receipt in time, though the fee was raised. The transaction may still be mined."""


class Sender:
    """Sends calls signed by `account`. Threads may share it, and processes its key: nonces go out one by one."""

    def __init__(
        self, chain: Chain, account: LocalAccount, *, timeout: float = 300, bump_after: float = 30, poll: float = 0.05
    ) -> None:
        """Seconds: `bump_after` is the wait before each raise of the fee; `poll` doubles up to 1."""
        self.chain = chain
        self.account = account
        self.address: str = account.address
        self.timeout = timeout
        self.bump_after = bump_after
        self.poll = poll
        with _locks_guard:
            self._thread_lock = _locks.setdefault(self.address, threading.Lock())

    def send(self, call: ContractFunction, *, value: int = 0) -> TxReceipt:
        """Sends a call and waits for its receipt.

        Raises EscrowError if a contract refuses (mostly in the dry run, when nothing is sent yet), UserError if
        the account can't pay the gas, and NotMined if there is no receipt within the timeout.
        """
        self.chain.dry_run(call, self.address, value)
        transaction = self._prepare(call, value)
        transaction, sent = self._submit(transaction)
        receipt = self._wait(transaction, sent)
        if receipt["status"] != 1:
            self._explain(call, value, receipt)
        return receipt

    def cost(self, call: ContractFunction, *, value: int = 0) -> int:
        """The most that sending this call would take of the account now, in wei. Raises as `send` does."""
        self.chain.dry_run(call, self.address, value)
        transaction = self._prepare(call, value)
        return transaction["gas"] * int(transaction["maxFeePerGas"]) + value

    def _prepare(self, call: ContractFunction, value: int) -> TxParams:
        """The transaction but for its nonce. Raises UserError if the account can't pay for it."""
        tip, max_fee = self._fees()
        transaction: TxParams = {"from": self.account.address, "value": Wei(value)}
        try:
            estimate = call.estimate_gas(transaction)
        except Web3RPCError as error:
            if "nsufficient funds" not in str(error.message):
                raise
            estimate = 200_000  # for the error below only
        gas = estimate * GAS_MARGIN[0] // GAS_MARGIN[1]
        self._check_gas_money(gas * max_fee + value)
        transaction |= {"gas": gas, "maxFeePerGas": Wei(max_fee), "maxPriorityFeePerGas": Wei(tip), "nonce": Nonce(0)}
        return call.build_transaction(transaction)

    def _check_gas_money(self, needed: int) -> None:
        balance = self.chain.w3.eth.get_balance(self.account.address)
        if balance < needed:
            raise UserError(
                f"{self.address} has {format_ether(balance)} ETH, {format_ether(needed - balance)} short of the "
                f"{format_ether(needed)} that this may cost in gas",
                "on a devnet: gpumarket wallet faucet; elsewhere send it some of the chain's coin",
            )

    def _fees(self) -> tuple[int, int]:
        """Priority fee and highest fee per gas, in wei: room for the base fee to double."""
        tip = self.chain.w3.eth.max_priority_fee
        base = self.chain.w3.eth.get_block("latest").get("baseFeePerGas", 0)
        return tip, 2 * base + tip

    def _submit(self, transaction: TxParams) -> tuple[TxParams, HexBytes]:
        """Gives the transaction the next nonce and sends it."""
        with self._thread_lock, self._process_lock():
            for attempt in range(5):
                nonce = self.chain.w3.eth.get_transaction_count(self.account.address, "pending")
                transaction = {**transaction, "nonce": nonce}
                try:
                    return transaction, self._broadcast(transaction)
                except Web3RPCError as error:
                    # Somebody uses this key without our lock: take the next nonce.
                    if "nonce too low" not in str(error.message).lower() or attempt == 4:
                        raise
        raise AssertionError("unreachable")

    def _process_lock(self) -> FileLock:
        directory: Path = home() / "locks"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(directory / f"{self.chain.domain.chain_id}-{self.address}.lock")

    def _broadcast(self, transaction: TxParams) -> HexBytes:
        signed = self.account.sign_transaction(cast(Any, transaction))
        return self.chain.w3.eth.send_raw_transaction(signed.raw_transaction)

    def _wait(self, transaction: TxParams, first: HexBytes) -> TxReceipt:
        """The receipt of whichever of the transaction's versions is mined."""
        sent = [first]
        started = time.monotonic()
        bump_at = started + self.bump_after
        pause = self.poll
        while True:
            for version in sent:
                try:
                    return self.chain.w3.eth.get_transaction_receipt(version)
                except TransactionNotFound:
                    pass
            now = time.monotonic()
            if now - started > self.timeout:
                raise NotMined(
                    f"transaction {first.to_0x_hex()} (nonce {transaction['nonce']}) was not mined within "
                    f"{self.timeout:g} s, at up to {transaction['maxFeePerGas']} wei per gas",
                    "it may still be mined; look for its nonce before sending it again",
                )
            if now > bump_at:
                transaction = self._bumped(transaction)
                bump_at = now + self.bump_after
                try:
                    sent.append(self._broadcast(transaction))
                except Web3RPCError as error:
                    # A version has been mined, or the node wants a still higher fee: the next round will tell.
                    if not any(
                        word in str(error.message).lower() for word in ("nonce too low", "underpriced", "already")
                    ):
                        raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _bumped(self, transaction: TxParams) -> TxParams:
        """The same with both fees raised, to today's at least."""
        tip, max_fee = self._fees()
        tip = max(tip, _raised(transaction["maxPriorityFeePerGas"]))
        max_fee = max(max_fee, tip, _raised(transaction["maxFeePerGas"]))
        return {**transaction, "maxPriorityFeePerGas": Wei(tip), "maxFeePerGas": Wei(max_fee)}

    def _explain(self, call: ContractFunction, value: int, receipt: TxReceipt) -> None:
        """Raises the error behind a failed receipt, found by running the call again around its block."""
        for block in (receipt["blockNumber"], receipt["blockNumber"] - 1):
            self.chain.dry_run(call, self.address, value, block)
        raise EscrowError("Reverted", {"transaction": receipt["transactionHash"].to_0x_hex()})


def _raised(fee: Wei | str) -> int:
    return -(-int(fee) * FEE_BUMP[0] // FEE_BUMP[1])


def format_ether(wei: int) -> str:
    """An amount of ETH in decimal, rounded up to six digits after the point."""
    millionths = -(-wei // 10**12)
    return f"{millionths // 10**6}.{millionths % 10**6:06}"
