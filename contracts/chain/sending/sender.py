"""Sends transactions of one key: dry run, an intent on disk, nonce, fees, receipt; see `lane` for what goes on behind.

An intent that was planned will be mined once, whatever happens to this process: the next Sender of the key goes on
with it. A caller that gives its intent a key can ask for it again, also after a crash, and gets the same receipt.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as StillWaiting
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from eth_account.signers.local import LocalAccount
from web3.contract.contract import ContractFunction
from web3.exceptions import Web3RPCError
from web3.types import Nonce, TxParams, TxReceipt, Wei

from contracts.chain.asking.node import ask, sure
from contracts.chain.client import Chain
from contracts.chain.errors import EscrowError
from contracts.chain.sending.fees import Fees, fees_now, format_ether
from contracts.chain.sending.intents import Draft, Intent
from contracts.chain.sending.lane import DEPTH, Expected, Lane, lane_of, lane_path
from contracts.errors import UserError
from contracts.types import from_hex, to_hex

GAS_MARGIN = (6, 5)  # an estimate may be a little short by the time it is mined
IN_ONE_GO = 200  # calls prepared and broadcast together

log = structlog.get_logger()


class NotMined(UserError):
    """No receipt in time, though the fee was raised. The intent stays: the transaction may still be mined."""


@dataclass(frozen=True)
class _Prepared:
    """Drafts that passed their dry runs, and what the node said beside."""

    drafts: list[Draft]
    fees: Fees
    count: int  # the account's transactions, with the pending ones


class Sender:
    """Sends calls signed by `account`. Threads may share it, and processes its key."""

    def __init__(
        self,
        chain: Chain,
        account: LocalAccount,
        *,
        timeout: float = 300,
        bump_after: float = 30,
        poll: float = 0.05,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        """Seconds: `bump_after` is the wait before each raise of the fee; `poll` doubles up to 1.

        Goes on with what a former process of this key left unfinished, while it is `allowed`: where several machines
        have the key, only one of them may send.
        """
        self.chain = chain
        self.account = account
        self.address: str = account.address
        self.timeout = timeout
        self._bump_after, self._poll, self._allowed = bump_after, poll, allowed
        if lane_path(chain, self.address).exists():
            self._lane().start()

    def send(self, call: ContractFunction, *, value: int = 0, key: str | None = None) -> TxReceipt:
        """Sends a call and waits for its receipt.

        `key` names the intent, among those of this escrow. A key that is known sends nothing, whatever the call: the
        receipt is that of the intent that it named before. It is free again after `forget`, or if it reverted and no
        reorganisation can make it succeed any more.

        Raises EscrowError if a contract refuses (mostly in the dry run, when nothing is sent yet), UserError if
        the account can't pay the gas or intents can't be written, and NotMined if there is no receipt in time.
        """
        lane = self._lane()
        deadline = time.monotonic() + self.timeout
        known = self._on_record(lane, key)
        if known is not None:
            (expected,) = lane.watch([known])
        else:
            (expected,) = self._submit(lane, self._prepare([call], value, key))
        receipt = self._wait(lane, expected, deadline)
        if receipt["status"] != 1:
            self._explain(call, value, receipt, named=key is not None)
        return receipt

    def send_many(self, calls: Sequence[ContractFunction]) -> list[TxReceipt]:
        """Sends calls all at once, and waits for their receipts. Raises as `send` does, for the first that fails.

        The dry runs don't see the calls before them. If one is refused, it and those after it are not sent.
        """
        lane = self._lane()
        expected: list[Expected] = []
        for at in range(0, len(calls), IN_ONE_GO):
            expected += self._submit(lane, self._prepare(calls[at : at + IN_ONE_GO]))
        deadline = time.monotonic() + self.timeout
        receipts = [self._wait(lane, one, deadline) for one in expected]
        for call, receipt in zip(calls, receipts, strict=True):
            if receipt["status"] != 1:
                self._explain(call, 0, receipt)
        return receipts

    def settle(self) -> None:
        """Waits until nothing of this key is on its way that nobody waits for: what a former process left, or what
        was given up as NotMined. What is read of the chain after it, counts that. Raises NotMined."""
        lane = self._lane()
        deadline = time.monotonic() + self.timeout
        for expected in lane.watch(lane.orphans()):
            self._wait(lane, expected, deadline)

    def in_flight(self) -> int:
        """Transactions of this key that are not mined yet."""
        return len(self._lane().store.open())

    def knows(self, key: str) -> bool:
        """Whether an intent has this key."""
        return self._on_record(self._lane(), key) is not None

    def has_sent(self, call: ContractFunction) -> bool:
        """Whether this home has sent such a call of the key, or is about to; of an hour ago it may know no more."""
        data = from_hex(self._build(call, 0)["data"])
        return any(
            not intent.draft.key or intent.draft.key.startswith(self._full(""))
            for intent in self._lane().store.of_data(data)
        )

    def forget(self, key: str) -> None:
        """Lets the key name another intent. Called when the caller has noted, or told, that the first is done."""
        lane = self._lane()
        with self._writing():
            lane.store.release(self._full(key))

    def cost(self, call: ContractFunction, *, value: int = 0) -> int:
        """The most that sending this call would take of the account now, in wei. Raises as `send` does."""
        prepared = self._prepare([call], value)
        return prepared.drafts[0].gas * prepared.fees.most + value

    # ------------------------------------------------------------- before it is planned

    def _lane(self) -> Lane:
        with self._writing():
            lane = lane_of(self.chain, self.account)
        lane.bump_after, lane.poll, lane.allowed = self._bump_after, self._poll, self._allowed
        return lane

    def _prepare(self, calls: Sequence[ContractFunction], value: int = 0, key: str | None = None) -> _Prepared:
        """Dry runs, gas, fees and money of calls. The estimate of gas is the dry run, where nothing is wrong."""
        built = [self._build(call, value) for call in calls]
        estimates = [("eth_estimateGas", [{"from": self.address, **call}, "latest"]) for call in built]
        *gas, tip, block, balance, count = ask(
            self.chain.w3,
            [
                *estimates,
                ("eth_maxPriorityFeePerGas", []),
                ("eth_getBlockByNumber", ["latest", False]),
                ("eth_getBalance", [self.address, "latest"]),
                ("eth_getTransactionCount", [self.address, "pending"]),
            ],
        )
        tip, block, balance, count = sure([tip, block, balance, count])
        base = int(block.get("baseFeePerGas", "0x0"), 16)
        fees = fees_now(int(tip, 16), base, self.chain.settings.max_fee)
        drafts, full = [], None if key is None else self._full(key)
        for call, one, estimate in zip(calls, built, gas, strict=True):
            limit = self._gas(call, value, estimate) * GAS_MARGIN[0] // GAS_MARGIN[1]
            drafts.append(Draft(one["to"], from_hex(one["data"]), value, limit, full))
        self._check_gas_money(drafts, fees, int(balance, 16))
        return _Prepared(drafts, fees, int(count, 16))

    def _build(self, call: ContractFunction, value: int) -> dict[str, str]:
        # With all of its fields given, nobody is asked.
        fields: TxParams = {"from": self.account.address, "gas": 1, "nonce": Nonce(0), "maxFeePerGas": Wei(0)}
        fields |= {"maxPriorityFeePerGas": Wei(0), "chainId": self.chain.domain.chain_id, "value": Wei(value)}
        built: Any = call.build_transaction(fields)
        return {"to": built["to"], "data": to_hex(from_hex(built["data"])), "value": hex(value)}

    def _gas(self, call: ContractFunction, value: int, estimate: Any) -> int:
        if not isinstance(estimate, Web3RPCError):
            return int(estimate, 16)
        self.chain.dry_run(call, self.address, value)  # raises what it is, mostly
        if "nsufficient funds" not in str(estimate.message):
            raise estimate
        return 200_000  # for the error only that will follow

    def _check_gas_money(self, drafts: Sequence[Draft], fees: Fees, balance: int) -> None:
        """Raises UserError if the account can't pay for it beside all that is on its way; warns when little is left."""
        lane = self._lane()
        free = balance - sum(intent.cost for intent in lane.store.open())
        needed = sum(draft.gas * fees.most + draft.value for draft in drafts)
        if free < needed:
            raise UserError(
                f"{self.address} has {format_ether(max(free, 0))} ETH, {format_ether(needed - free)} short of the "
                f"{format_ether(needed)} that this may cost in gas",
                "on a devnet: gpumarket wallet faucet; elsewhere send it some of the chain's coin",
            )
        dearest = max(draft.gas for draft in drafts) * fees.most
        more = (free - needed) // dearest if dearest else None
        low = more is not None and more < self.chain.settings.gas_alarm_transactions
        if low and not lane.gas_is_low:
            log.warning("sender.gas_low", address=self.address, balance=format_ether(balance), transactions=more)
        lane.gas_is_low = low

    # ------------------------------------------------------------- from then on

    def _on_record(self, lane: Lane, key: str | None) -> Intent | None:
        if key is None:
            return None
        with self._writing():
            return lane.named(self._full(key))

    def _full(self, key: str) -> str:
        """All escrows of a chain share the file of intents, and the same key means another thing at each."""
        return f"{self.chain.domain.verifying_contract} {key}"

    def _submit(self, lane: Lane, prepared: _Prepared) -> list[Expected]:
        with self._writing():
            lane.bind()
            return lane.submit(prepared.drafts, prepared.fees, prepared.count)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises UserError if the disk is full, say. Only before an intent is planned: then it is the watcher's."""
        try:
            yield
        except (sqlite3.Error, PermissionError) as error:
            raise UserError(
                f"can't write down what is to be sent, in {lane_path(self.chain, self.address)}: {error}",
                "nothing was sent; see that there is room on the disk, and try again",
            ) from error

    def _wait(self, lane: Lane, expected: Expected, deadline: float) -> TxReceipt:
        try:
            return expected.receipt.result(max(0.0, deadline - time.monotonic()))
        except StillWaiting:
            why = lane.give_up(expected.intent)
            now = lane.store.get(expected.intent.id)
            hash = now.newest.hash if now.newest else "that is not signed yet"
            raise NotMined(
                f"transaction {hash} (nonce {now.nonce}) was not mined within {self.timeout:g} s, at up to "
                f"{now.fees.most} wei per gas{': ' + why if why else ''}",
                "it will be mined when it can be, and counts once; look for its nonce before sending the same again",
            ) from None

    def _explain(self, call: ContractFunction, value: int, receipt: TxReceipt, *, named: bool = False) -> None:
        """Raises the error behind a failed receipt, found by running the call again around its block."""
        try:
            for block in (receipt["blockNumber"], receipt["blockNumber"] - 1):
                self.chain.dry_run(call, self.address, value, block)
            raise EscrowError("Reverted", {"transaction": receipt["transactionHash"].to_0x_hex()})
        except EscrowError as error:
            if named:
                error.hint = (
                    f"so it was when it was mined, in block {receipt['blockNumber']}; it can be sent again, but not "
                    f"before block {receipt['blockNumber'] + DEPTH}: a reorganisation could still make it succeed"
                )
            raise
