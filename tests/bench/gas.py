"""Gas of every call of the escrow, from receipts on an anvil of its own.

The contracts are the release artifacts. All parties are distinct and not new: each has deposited and has had a lease
before. The ERC-20's approve is not counted. Keys, times and prices are fixed, so that figures repeat exactly.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps, loads
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from web3 import HTTPProvider, Web3

from contracts.chain.calls import SignedMatch
from contracts.orders import Approval, Ask, Bid, Claim, Domain, Rules, SignedType
from contracts.terms import Nums, Parties, Terms
from contracts.types import ZERO_HASH, from_hex, to_hex
from tests.support import ROOT, free_port

GENESIS = 1_900_000_000  # seconds
FOREVER = GENESIS + 10**8
WINDOW, TIMEOUT, ARBITER_TIMEOUT = 1_800, 7_200, 86_400  # seconds
PRICE, FEE, STAKE, ARBITER_FEE = 1_234_567, 12_345, 50_000_000, 5_000_000  # of a token with 6 decimals
PLENTY = 900_000_000_000
BATCH = 100
TX_GAS = 16_000_000  # the most that one transaction may use since EIP-7825

GOALS = {  # name: (must, stretch)
    "job20_claims": (740_000, 700_000),
    "job_approval": (135_000, 120_000),
    "batch_open_100": (60_000, 50_000),
    "batch_redeem_100": (25_000, 18_000),
}


class Chain:
    """A devnet with the contracts on it, and the parties' moves as plain calls that return the gas used."""

    def __init__(self, url: str) -> None:
        self.web3 = Web3(HTTPProvider(url))
        self.deployer = key("deployer")
        self.rpc("anvil_setBalance", self.deployer.address, hex(10**21))
        self.token = self.deploy("DevToken")
        bounds = (1, 10**6, 1, 10**6, 1, 10**7)
        self.escrow = self.deploy("Escrow", self.token.address, bounds)
        self.operator = self.party("operator")
        self.arbiter = self.deploy("OperatorArbiter", self.escrow.address, self.operator.address)
        self.domain = Domain(chain_id=self.web3.eth.chain_id, verifying_contract=self.escrow.address)
        self.rules = Rules(
            arbiter=self.arbiter.address,
            arbiter_fee=ARBITER_FEE,
            arbiter_timeout=ARBITER_TIMEOUT,
            checkpoint_timeout=TIMEOUT,
            window=WINDOW,
            verification=digest("verification"),
        )

    def rpc(self, method: str, *params: Any) -> Any:
        answer = self.web3.provider.make_request(method, list(params))  # type: ignore[arg-type]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def deploy(self, name: str, *args: Any) -> Any:
        artifact = loads((ROOT / f"contracts/artifacts/{name}.json").read_text())
        factory = self.web3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])
        receipt = self._transact(self.deployer, None, factory.constructor(*args).data_in_transaction)
        return self.web3.eth.contract(address=receipt["contractAddress"], abi=artifact["abi"])

    def send(self, sender: LocalAccount, contract: Any, name: str, *args: Any) -> int:
        """The gas that the receipt says."""
        return int(self._transact(sender, contract.address, contract.encode_abi(name, args=list(args)))["gasUsed"])

    def _transact(self, sender: LocalAccount, to: str | None, data: str) -> Any:
        transaction = {"from": sender.address, "data": data, "gas": hex(TX_GAS)} | ({"to": to} if to else {})
        receipt = self.web3.eth.wait_for_transaction_receipt(self.rpc("eth_sendTransaction", transaction))
        if receipt["status"] != 1:
            raise RuntimeError(f"a transaction to {to} failed: {data[:10]}, block {receipt['blockNumber']}")
        return receipt

    def wait(self, seconds: int) -> None:
        self.rpc("evm_increaseTime", seconds)

    def party(self, name: str) -> LocalAccount:
        """A party with ether, tokens, and half of them deposited."""
        account = key(name)
        self.rpc("anvil_setBalance", account.address, hex(10**21))
        self.send(account, self.token, "faucet", account.address, PLENTY)
        self.send(account, self.token, "approve", self.escrow.address, 2**256 - 1)
        self.send(account, self.escrow, "deposit", account.address, PLENTY // 2)
        return account


@dataclass(frozen=True)
class Lease:
    terms: Terms
    job: bytes
    bid: Bid
    provider: LocalAccount
    client: LocalAccount

    @property
    def claim_args(self) -> tuple[str, int, int, bytes]:
        nums = self.terms.nums
        return self.terms.provider, nums.pack(), nums.ask_price, from_hex(self.terms.parties.hash())


class Market:
    """Two orders a lease, and everything that can be done to it."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.matcher, self.approver, self.challenger = map(chain.party, ("matcher", "approver", "challenger"))
        self._nonce = 0

    def match(
        self, client: LocalAccount, provider: LocalAccount, checkpoints: int, prev: Lease | None = None, start: int = 0
    ) -> tuple[Lease, tuple[Any, ...]]:
        """A lease to be, and the escrow's Match for it."""
        chain = self.chain
        rules_hash = chain.rules.struct_hash()
        self._nonce += 1
        bid = prev.bid if prev else Bid(
            client=client.address, matcher=self.matcher.address, approver=self.approver.address,
            job=digest(f"job {self._nonce}"), rules=rules_hash, checkpoints=checkpoints, units=123_456_789,
            max_price=PRICE + FEE, fee=FEE, stake=STAKE, valid_until=FOREVER, nonce=self._nonce % 112,
        )  # fmt: skip
        ask = Ask(
            provider=provider.address, matcher=self.matcher.address, resources=digest("resources"), rules=rules_hash,
            price_per_hour=PRICE, units_per_hour=123_456_789, max_stake=STAKE, max_active=8, max_checkpoints=1000,
            valid_from=GENESIS, valid_until=FOREVER, page=0,
        )  # fmt: skip
        signatures = sign(bid, chain.domain, client), sign(ask, chain.domain, provider)
        item = SignedMatch(bid, ask, PRICE, *signatures, prev=prev.terms if prev else None).abi()
        parties = Parties(
            bid=bid.digest(chain.domain), job=bid.job, prev=prev.terms.lease if prev else ZERO_HASH, rules=rules_hash,
            client=client.address, approver=self.approver.address, fee_to=self.matcher.address, stake=STAKE,
        )  # fmt: skip
        nums = Nums(start, bid.checkpoints, WINDOW, TIMEOUT, PRICE, FEE, PRICE)
        return Lease(Terms(provider.address, nums, parties), from_hex(bid.job), bid, provider, client), item

    def open(self, *args: Any, **kwargs: Any) -> tuple[Lease, int]:
        lease, item = self.match(*args, **kwargs)
        return lease, self.chain.send(self.matcher, self.chain.escrow, "open", words(self.chain.rules), item)

    def approval(self, lease: Lease, n: int, last: bool = False) -> tuple[Any, ...]:
        """The escrow's Redemption."""
        approval = Approval(lease=lease.terms.lease, n=n, tip=to_hex(tip(lease, n)), last=last)
        signature = from_hex(sign(approval, self.chain.domain, self.approver))
        return lease.terms.abi(), (n, tip(lease, n), last), signature

    def redeem(self, lease: Lease, n: int, last: bool = False) -> int:
        return self.chain.send(lease.provider, self.chain.escrow, "redeem", self.approval(lease, n, last))

    def claim(self, lease: Lease, n: int, count: int = 1) -> int:
        roots = [root(lease, i) for i in range(n - count + 1, n + 1)]
        return self.chain.send(lease.provider, self.chain.escrow, "claim", *lease.claim_args, n, tip(lease, n), roots)

    def call(self, sender: LocalAccount, name: str, lease: Lease) -> int:
        """`collect`, `end` or `close`."""
        return self.chain.send(sender, self.chain.escrow, name, lease.terms.abi())

    def challenge_signed(self, lease: Lease, n: int) -> int:
        """Of the provider's signed Claim of the first n, nothing being pending."""
        claim = Claim(lease=lease.terms.lease, n=n, tip=to_hex(tip(lease, n)))
        roots = [root(lease, i) for i in range(1, n + 1)]
        signature = from_hex(sign(claim, self.chain.domain, lease.provider))
        args = lease.terms.abi(), words(self.chain.rules), tip(lease, 0), [], roots, n, 0, signature
        return self.chain.send(self.challenger, self.chain.escrow, "challengeSigned", *args)

    def redeem_challenged(self, lease: Lease, n: int) -> int:
        args = self.approval(lease, n), words(self.chain.rules), []
        return self.chain.send(lease.provider, self.chain.escrow, "redeemChallenged", *args)

    def challenge(self, lease: Lease, k: int) -> int:
        args = (lease.terms.abi(), words(self.chain.rules), tip(lease, k - 1), [root(lease, k)], k, 0)
        return self.chain.send(self.challenger, self.chain.escrow, "challenge", *args)

    def resolve(self, lease: Lease, verdict: int) -> int:
        dispute_id = self.chain.escrow.functions.dispute(from_hex(lease.terms.lease)).call()[0]
        self.chain.send(self.chain.operator, self.chain.arbiter, "rule", dispute_id, verdict)
        args = (lease.terms.abi(), words(self.chain.rules))
        return self.chain.send(self.challenger, self.chain.escrow, "resolve", *args)

    def pair(self, i: int) -> tuple[LocalAccount, LocalAccount]:
        """A client and a provider that have had a lease together."""
        client, provider = self.chain.party(f"client {i}"), self.chain.party(f"provider {i}")
        lease, _ = self.open(client, provider, 1)
        self.redeem(lease, 1)
        return client, provider


def key(name: str) -> LocalAccount:
    account: LocalAccount = Account.from_key(keccak(text=f"gpumarket gas {name}"))
    return account


def digest(text: str) -> str:
    return to_hex(keccak(text=text))


def words(message: SignedType) -> tuple[Any, ...]:
    """Field values as the ABI encoder wants them."""
    return tuple(from_hex(v) if k.startswith("bytes") else v
                 for (k, _), v in zip(message.TYPE, message.message().values(), strict=True))  # fmt: skip


def sign(message: SignedType, domain: Domain, signer: LocalAccount) -> str:
    return message.sign(domain, signer)


def root(lease: Lease, i: int) -> bytes:
    return keccak(lease.job + i.to_bytes(2, "big"))


def tip(lease: Lease, n: int) -> bytes:
    value = lease.job[:20]
    for i in range(1, n + 1):
        value = keccak(value + root(lease, i))[:20]
    return value


def measure(chain: Chain) -> dict[str, int]:
    market = Market(chain)
    gas = _balances(chain)
    gas |= _calls(market) | _disputes(market) | _job_by_claims(market)
    gas["job_approval"] = gas["open"] + gas["redeem_complete"]
    return gas | _batches(market)


def _balances(chain: Chain) -> dict[str, int]:
    party = chain.party("saver")
    gas = {
        "deposit": chain.send(party, chain.escrow, "deposit", party.address, 1_000_000),
        "withdraw": chain.send(party, chain.escrow, "withdraw", party.address, 1_000_000),
    }
    chain.send(party, chain.token, "approve", chain.escrow.address, 0)
    v, r, s = _permit(chain, party, 1_000_000)
    args = (party.address, 1_000_000, FOREVER, v, r, s)
    return gas | {"deposit_permit": chain.send(party, chain.escrow, "depositWithPermit", *args)}


def _permit(chain: Chain, owner: LocalAccount, value: int) -> tuple[int, bytes, bytes]:
    fields = ("owner", "address"), ("spender", "address"), ("value", "uint256"), ("nonce", "uint256"), (
        "deadline", "uint256")  # fmt: skip
    signable = encode_typed_data(
        {
            "name": chain.token.functions.name().call(),
            "version": "1",
            "chainId": chain.domain.chain_id,
            "verifyingContract": chain.token.address,
        },
        {"Permit": [{"name": name, "type": kind} for name, kind in fields]},
        {"owner": owner.address, "spender": chain.escrow.address, "value": value, "nonce": 0, "deadline": FOREVER},
    )
    signed = owner.sign_message(signable)
    return signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big")


def _calls(market: Market) -> dict[str, int]:
    client, provider = market.pair(0)
    gas = {}
    lease, gas["open"] = market.open(client, provider, 20)
    gas["redeem_partial"] = market.redeem(lease, 7)
    gas["claim"] = market.claim(lease, 8)
    gas["claim_later"] = market.claim(lease, 9)
    market.chain.wait(WINDOW)
    gas["collect"] = market.call(market.challenger, "collect", lease)
    gas["end"] = market.call(provider, "end", lease)
    market.chain.wait(WINDOW)
    gas["close"] = market.call(market.challenger, "close", lease)
    lease, gas["continue"] = market.open(client, provider, 20, prev=lease, start=9)
    market.redeem(lease, 20)
    lease, _ = market.open(client, provider, 20)
    gas["redeem_complete"] = market.redeem(lease, 20)
    return gas


def _disputes(market: Market) -> dict[str, int]:
    client, provider = market.pair(1)
    gas = {}
    verdicts = ("resolve_true", 1), ("resolve_false", 2), ("resolve_void", 3), ("resolve_unreproducible", 4)
    for name, verdict in verdicts:
        lease, _ = market.open(client, provider, 20)
        market.claim(lease, 1)
        gas["challenge"] = market.challenge(lease, 1)
        gas[name] = market.resolve(lease, verdict)
    lease, _ = market.open(client, provider, 20)
    gas["challenge_signed"] = market.challenge_signed(lease, 1)
    gas["redeem_challenged"] = market.redeem_challenged(lease, 1)
    return gas


def _job_by_claims(market: Market) -> dict[str, int]:
    lease, total = market.open(*market.pair(2), 20)
    total += sum(market.claim(lease, n) for n in range(1, 21))
    market.chain.wait(WINDOW)
    return {"job20_claims": total + market.call(market.challenger, "collect", lease)}


def _batches(market: Market) -> dict[str, int]:
    """Gas per job."""
    chain = market.chain
    matches = [market.match(*market.pair(3 + i), 20) for i in range(BATCH)]
    items = [item for _, item in matches]
    opened = chain.send(market.matcher, chain.escrow, "openBatch", [words(chain.rules)], items)
    approvals = [market.approval(lease, 20) for lease, _ in matches]
    redeemed = chain.send(market.matcher, chain.escrow, "redeemBatch", approvals)
    return {"batch_open_100": opened // BATCH, "batch_redeem_100": redeemed // BATCH}


@contextmanager
def anvil() -> Iterator[str]:
    """URL of a fresh anvil on a free port; ends with the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--timestamp", str(GENESIS), "--auto-impersonate", "--quiet"]
    with subprocess.Popen([str(ROOT / "node_modules/.bin/anvil"), *options]) as process:
        try:
            wait_for(Web3(HTTPProvider(url)).is_connected, f"anvil at {url}")
            yield url
        finally:
            process.terminate()


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not answer within {seconds} s")
        time.sleep(0.05)


def main(json: bool) -> None:
    with anvil() as url:
        gas = measure(Chain(url))
    if json:
        for name, value in gas.items():
            print(dumps({"name": name, "value": value, "unit": "gas"}))
    else:
        print_table(gas)


def print_table(gas: dict[str, int]) -> None:
    print("| call | gas | must | stretch |\n|---|---:|---:|---:|")
    for name, value in gas.items():
        goals = [f"{goal:,}" for goal in GOALS.get(name, ())] or ["", ""]
        print(f"| `{name}` | {value:,} | {' | '.join(goals)} |")


if __name__ == "__main__":
    main(json=False)
