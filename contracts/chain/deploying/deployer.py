"""Makes the contracts of a deployment, one after the other. Run again it goes on: what is there is not made again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.exceptions import TransactionNotFound, Web3RPCError

from contracts.chain.asking.node import ask, sure
from contracts.chain.deploying.checks import check_arbiter, check_code, creation, has_code
from contracts.chain.deploying.record import (
    ARTIFACTS,
    Created,
    DeploymentRecord,
    Role,
    Wish,
    read_record,
    write_record,
)
from contracts.chain.devnet.deployment import created_address
from contracts.chain.sending.fees import Fees, fees_now, format_ether, raised
from contracts.errors import UserError
from contracts.types import to_hex

GAS_MARGIN = (6, 5)  # an estimate may be a little short by the time it is mined
POLL_SECONDS = 0.2


class PlannedContract(NamedTuple):
    role: Role
    address: str
    nonce: int
    gas: int  # estimated; 0 if it is there


class DeploymentPlan(NamedTuple):
    """All contracts, those that are there too; what the others take."""

    contracts: list[PlannedContract]
    gas: int
    price: int  # wei per gas as of now
    fees: Fees  # that are offered

    @property
    def cost(self) -> int:
        """At the present gas price, in wei."""
        return self.gas * self.price

    @property
    def max_cost(self) -> int:
        """The most that it may take of the account."""
        return self.gas * GAS_MARGIN[0] // GAS_MARGIN[1] * self.fees.most


class Deployer:
    """One deployment, kept in the file `path`. `max_fee`: the most to pay, in wei per gas."""

    def __init__(self, w3: Web3, wish: Wish, path: Path, max_fee: int, *, timeout: float = 300) -> None:
        """Raises UserError if the file is of another deployment."""
        self._w3, self._path, self._max_fee, self._timeout = w3, path, max_fee, timeout
        known = read_record(path)
        if known is not None and known.wish != wish:
            before, now = known.wish.model_dump(mode="json"), wish.model_dump(mode="json")
            other = ", ".join(f"{name} {before[name]}, now {now[name]}" for name in now if before[name] != now[name])
            raise UserError(
                f"{path} is of another deployment: {other}",
                "give the options that it was begun with, to go on with it, or another --name for a new one",
            )
        self.wish = wish
        self.record = known or DeploymentRecord(wish=wish, from_block=int(w3.eth.block_number))

    def plan(self) -> DeploymentPlan:
        """Sends nothing. Raises UserError if the account can't pay for it."""
        nonce, contracts = self._nonce(), []
        for role in self.wish.roles():
            known = self.record.contracts.get(role)
            if known is not None and has_code(self._w3, known.address):
                contracts.append(PlannedContract(role, known.address, known.nonce, 0))
                continue
            address = created_address(self.wish.deployer, nonce)
            contracts.append(PlannedContract(role, address, nonce, 0))
            nonce += 1
        places = {one.role: one.address for one in contracts}
        calls: list[Any] = []
        missing = [one for one in contracts if not self._is_there(one)]
        for one in missing:
            data = creation(ARTIFACTS[one.role], self._arguments(one.role, places))
            calls.append(("eth_estimateGas", [{"from": self.wish.deployer, "data": data}, "latest"]))
        gas = [int(one, 16) for one in sure(ask(self._w3, calls))] if calls else []
        estimates = {one.role: estimate for one, estimate in zip(missing, gas, strict=True)}
        fees, price = self._fees()
        contracts = [one._replace(gas=estimates.get(one.role, 0)) for one in contracts]
        plan = DeploymentPlan(contracts, sum(gas), price, fees)
        if self.wish.arbiter is not None:
            escrow = next(one for one in contracts if one.role == "escrow")
            check_arbiter(self._w3, self.wish.arbiter, escrow.address)
        self._check_balance(plan)
        return plan

    def carry_out(self, account: LocalAccount, tell: Callable[[str], None]) -> None:
        """Makes what is missing, and checks the code of all. `tell` gets a line for each. Raises UserError."""
        for role in self.wish.roles():
            made = self._made(role, account)
            places = {role: one.address for role, one in self.record.contracts.items()}
            name = ARTIFACTS[role]
            check_code(self._w3, self.wish.chain_id, name, self._arguments(role, places), made.address)
            where = "" if made.block is None else f" in block {made.block}"
            tell(f"{name} is at {made.address}{where}; its code is this gpumarket's")

    def address(self, role: Role) -> str:
        """Of a contract that has been made, or that the wish names."""
        given = {"token": self.wish.token, "arbiter": self.wish.arbiter}.get(role)
        return given or self.record.contracts[role].address

    @property
    def deploy_block(self) -> int:
        """The escrow's first block, or one before it."""
        block = self.record.contracts["escrow"].block
        return self.record.from_block if block is None else block

    # ------------------------------------------------------------- one contract

    def _made(self, role: Role, account: LocalAccount) -> Created:
        """The contract, mined. The record is written before anything is sent: so it is made once."""
        known = self.record.contracts.get(role)
        if known is None or not has_code(self._w3, known.address):
            nonce = self._nonce()
            if known is None or known.nonce != nonce:  # something else took the nonce: its contract can't come any more
                known = Created(nonce=nonce, address=created_address(self.wish.deployer, nonce))
                self.record.contracts[role] = known
            self._send(role, known, account)
            self._wait(role, known)
        if known.block is None:
            known.block = self._block_of(known)
            write_record(self._path, self.record)
        return known

    def _send(self, role: Role, made: Created, account: LocalAccount) -> None:
        places = {role: one.address for role, one in self.record.contracts.items()}
        data = creation(ARTIFACTS[role], self._arguments(role, places))
        (estimate,) = sure(ask(self._w3, [("eth_estimateGas", [{"from": account.address, "data": data}, "latest"])]))
        fees, _ = self._fees()
        if made.transactions:
            higher = raised(Fees(made.tip, made.most), fees, self._max_fee)
            if higher is None:
                return  # the one before is as dear as it may be: it is waited for
            fees = higher
        transaction: Any = {
            "type": 2,
            "chainId": self.wish.chain_id,
            "nonce": made.nonce,
            "gas": int(estimate, 16) * GAS_MARGIN[0] // GAS_MARGIN[1],
            "maxFeePerGas": fees.most,
            "maxPriorityFeePerGas": fees.tip,
            "value": 0,
            "data": data,
        }
        signed: Any = account.sign_transaction(transaction)
        made.transactions.append(to_hex(signed.hash))
        made.tip, made.most = fees.tip, fees.most
        write_record(self._path, self.record)
        try:
            self._w3.eth.send_raw_transaction(signed.raw_transaction)
        except Web3RPCError as error:
            if len(made.transactions) == 1:  # else the one before may be mined all the same
                raise UserError(f"the node did not take the transaction: {str(error)[:300]}") from error

    def _wait(self, role: Role, made: Created) -> None:
        deadline = time.monotonic() + self._timeout
        while not has_code(self._w3, made.address):
            if self._count("latest") > made.nonce and not has_code(self._w3, made.address):
                raise UserError(
                    f"transaction {made.nonce} of {self.wish.deployer} was mined and made no {ARTIFACTS[role]} at "
                    f"{made.address}",
                    "it failed, or another program used the key; run the same command again: it goes on from here",
                )
            if time.monotonic() > deadline:
                raise UserError(
                    f"transaction {made.transactions[-1]} was not mined within {self._timeout:g} s at "
                    f"{made.most / 1e9:.3g} gwei",
                    "run the same command again: it offers more, up to max_fee_gwei, and nothing is made twice",
                )
            time.sleep(POLL_SECONDS)

    def _block_of(self, made: Created) -> int | None:
        for hash in made.transactions:
            try:
                return int(self._w3.eth.get_transaction_receipt(hash)["blockNumber"])  # type: ignore[arg-type]
            except TransactionNotFound:
                continue
        return None

    # ------------------------------------------------------------- what the chain says

    def _arguments(self, role: Role, places: dict[Role, str]) -> tuple[Any, ...]:
        """Of the contract's constructor, with the others at these places."""
        if role == "escrow":
            return self.wish.token or places["token"], tuple(self.wish.bounds)
        return (places["escrow"], self.wish.operator) if role == "arbiter" else ()

    def _is_there(self, planned: PlannedContract) -> bool:
        known = self.record.contracts.get(planned.role)
        return known is not None and known.address == planned.address and has_code(self._w3, known.address)

    def _nonce(self) -> int:
        """The account's next. Raises UserError if somebody else's transactions of it are on their way."""
        mined, sent = self._count("latest"), self._count("pending")
        ours = {one.nonce for one in self.record.contracts.values() if one.transactions}
        if foreign := [nonce for nonce in range(mined, sent) if nonce not in ours]:
            raise UserError(
                f"{len(foreign)} transactions of {self.wish.deployer} are on their way already",
                "wait until they are mined; better use a key that does nothing else",
            )
        return mined

    def _count(self, block: Any) -> int:
        return int(self._w3.eth.get_transaction_count(to_checksum_address(self.wish.deployer), block))

    def _fees(self) -> tuple[Fees, int]:
        """What is offered, and the present price, in wei per gas."""
        questions: Any = [("eth_maxPriorityFeePerGas", []), ("eth_getBlockByNumber", ["latest", False])]
        tip, block = sure(ask(self._w3, questions))
        base = int(block.get("baseFeePerGas", "0x0"), 16)
        fees = fees_now(int(tip, 16), base, self._max_fee)
        return fees, min(base + int(tip, 16), fees.most)

    def _check_balance(self, plan: DeploymentPlan) -> None:
        balance = int(self._w3.eth.get_balance(to_checksum_address(self.wish.deployer)))
        if balance < plan.max_cost:
            raise UserError(
                f"{self.wish.deployer} has {format_ether(balance)} ETH, {format_ether(plan.max_cost - balance)} short "
                f"of the {format_ether(plan.max_cost)} that the deployment may cost in gas",
                "send it some of the chain's coin, or wait for cheaper gas",
            )
