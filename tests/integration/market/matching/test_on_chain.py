"""Random books of real signed orders: the escrow opens every match of an auction, at its price, in its order."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from web3.contract.contract import ContractFunction
from web3.types import TxReceipt, Wei

from contracts.api.bodies import AskIn, BidIn
from contracts.chain.calls import SignedMatch
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import accounts
from contracts.chain.errors import Refusal
from contracts.chain.events import Opened, Skipped
from contracts.job.spec import Resources
from contracts.orders import Approval
from contracts.terms import Terms
from contracts.types import ZERO_ADDRESS
from market.matching import BidOffer, Book, Match, clear
from market.matching.inputs import OfferReader, book_of
from tests.support.devnet import give_gas_money, rpc
from tests.support.market_parts import CPU, EVERY, make_ask, make_bid, make_spec, signed_ask, signed_bid

BANK, MATCHER = accounts()[1].address, accounts()[2].address  # the node signs for them
MODELS = ["Test CPU", "Other CPU"]
OFFERS = OfferReader()
WEEK = 7 * 86_400
CHEQUE = 10**12  # the most that the faucet gives at once


def send(chain: Chain, call: ContractFunction, sender: str) -> TxReceipt:
    """It is mined at once, and may not fail."""
    sent = call.transact({"from": sender, "gas": 15_000_000, "value": Wei(0)})
    receipt = chain.w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)
    assert receipt["status"] == 1
    return receipt


@dataclass
class People:
    """Some clients and providers, most of them both, with more orders than they have money for; and their market."""

    chain: Chain
    dice: random.Random
    keys: dict[str, LocalAccount] = field(default_factory=dict)
    bids: dict[str, BidIn] = field(default_factory=dict)
    asks: dict[str, AskIn] = field(default_factory=dict)
    before: dict[str, tuple[Terms, int]] = field(default_factory=dict)  # Bid -> the ended lease, and what is accepted
    not_waiting: set[str] = field(default_factory=set)  # Bids that have a lease, or are done

    def __post_init__(self) -> None:
        dice = self.dice
        unchecked = self.chain.settings.rule_set("unchecked")
        self.rules = [unchecked.model_copy(update={"arbiter_fee": fee, "checkpoint_timeout": WEEK}) for fee in (1, 7)]
        # What a unit of work costs here: from many units for a token's smallest unit to the other way round.
        self.cost = 10 ** dice.uniform(-6, 3)
        self.dearest = dice.choice([1, 3, 6])  # checkpoint, a power of ten: where all are cheap, rounding decides
        people = [self.person() for _ in range(5)]
        self.clients, self.providers = people[:4], people[1:]
        self.stake = 2 * 10**self.dearest
        for number in range(dice.randint(6, 20)):
            self.add_bid(number)
        for _ in range(dice.randint(5, 16)):
            self.add_ask()
        self.pay_in()

    def person(self) -> str:
        key: LocalAccount = Account.from_key(self.dice.randbytes(32))
        self.keys[key.address] = key
        return key.address

    def around(self, amount: float, spread: float = 0.5) -> int:
        return max(1, round(amount * self.dice.lognormvariate(0, spread)))

    def matcher(self) -> str:
        return ZERO_ADDRESS if self.dice.random() < 0.2 else MATCHER

    def add_bid(self, number: int) -> None:
        dice, key = self.dice, self.keys[self.dice.choice(self.clients)]
        matcher, checkpoints = self.matcher(), dice.randint(1, 5)
        price = 10 ** dice.uniform(0, self.dearest)
        units = self.around(price / self.cost, 0.1)
        limit = self.around(1.5 * units * self.cost)
        fee = 0 if matcher == ZERO_ADDRESS else dice.choice([0, dice.randrange(1 + limit // 5), 2 * limit])
        devices = dice.choice([(), (), (MODELS[0],), tuple(MODELS)])
        spec = make_spec(steps=checkpoints * EVERY, resources=Resources(memory_mb=4_000, devices=devices), seed=number)
        bid = make_bid(
            key, matcher, dice.choice(self.rules), spec, units=units, max_price=limit + fee, fee=fee,
            stake=self.around(self.stake, 0.2) + 7, nonce=number,
            approver=dice.choice([ZERO_ADDRESS, key.address]),
        )  # fmt: skip
        self.bids[bid.digest(self.chain.domain)] = signed_bid(bid, self.chain.domain, key, spec)

    def add_ask(self) -> None:
        dice, key = self.dice, self.keys[self.dice.choice(self.providers)]
        speed = self.around(10 ** dice.uniform(4, 6) / self.cost)
        resources = CPU.model_copy(
            update={"device": dice.choice(MODELS), "memory_mb": dice.choice([3_000, 8_000, 8_000, 8_000])}
        )
        ask = make_ask(
            key, self.matcher(), dice.choice(self.rules), resources, price_per_hour=self.around(speed * self.cost),
            units_per_hour=speed, max_stake=self.around(1.2 * self.stake, 0.3) + 7, max_active=dice.randint(1, 4),
            max_checkpoints=dice.choice([1, 2, 65_535]),
        )  # fmt: skip
        self.asks[ask.digest(self.chain.domain)] = signed_ask(ask, self.chain.domain, key, resources)

    def pay_in(self) -> None:
        """For one or two of the leases that each has signed for, for most of them, or for all."""
        wanted: dict[str, list[int]] = {}
        for of in self.bids.values():
            wanted.setdefault(of.bid.client, []).append(of.bid.max_price * of.bid.checkpoints)
        for ask in self.asks.values():
            wanted.setdefault(ask.ask.provider, []).extend([ask.ask.max_stake] * ask.ask.max_active)
        for owner, amounts in wanted.items():
            most, total = max(amounts), sum(amounts)
            paid_in = self.dice.choice([most, most * 3 // 2, total * 2 // 3 + 1, total + 1])
            send(self.chain, self.chain.deposit(owner, paid_in), BANK)

    # ------------------------------------------------------------- an epoch

    def book(self) -> Book:
        words = {owner: self.chain.account(owner) for owner in self.keys}
        bids = [self.bid_offer(id, body) for id, body in self.bids.items() if id not in self.not_waiting]
        return book_of(bids, [OFFERS.ask(id, body.ask, body.resources) for id, body in self.asks.items()], words)

    def bid_offer(self, id: str, body: BidIn) -> BidOffer:
        bid, (lease, done) = body.bid, self.before.get(id, (None, 0))
        avoid = {lease.provider} if lease and lease.nums.start == done else ()
        return OFFERS.bid(id, bid, body.spec, WEEK, reached=done, avoid=avoid)

    def open(self, matches: Sequence[Match]) -> list[Opened]:
        """What the escrow has opened of them; all by one transaction, which skips what it refuses."""
        hashes = [rules.struct_hash() for rules in self.rules]
        pairs = [self.pair(match, hashes) for match in matches]
        happened = self.chain.events(send(self.chain, self.chain.open_batch(self.rules, pairs), MATCHER))
        assert [Refusal(event.reason).name for event in happened if isinstance(event, Skipped)] == []
        opened = [event for event in happened if isinstance(event, Opened)]
        for event, match in zip(opened, matches, strict=True):
            nums, done = event.terms.nums, self.before.get(match.bid.id, (None, 0))[1]
            assert (event.terms.parties.bid, event.ask) == (match.bid.id, match.ask.id)
            assert (nums.price, nums.start, nums.end) == (match.price, done, done + match.count)
            self.not_waiting.add(match.bid.id)
        return opened

    def pair(self, match: Match, hashes: list[str]) -> SignedMatch:
        bid, ask, (prev, _) = self.bids[match.bid.id], self.asks[match.ask.id], self.before.get(match.bid.id, (None, 0))
        return SignedMatch(
            bid.bid, ask.ask, match.price, bid.signature, ask.signature, hashes.index(bid.bid.rules), prev
        )

    def give_back(self, opened: Sequence[Opened]) -> None:
        """Some of the leases, with some of their checkpoints approved: the rest of the job waits again."""
        for event in opened:
            if self.dice.random() < 0.4:
                continue
            nums, bid = event.terms.nums, self.bids[event.terms.parties.bid].bid
            done = self.dice.randint(nums.start, nums.end)
            approval = Approval(lease=event.lease, n=done, tip=event.tip, last=True)
            signature = approval.sign(self.chain.domain, self.keys[bid.client])
            give_gas_money(self.chain, event.provider)
            send(self.chain, self.chain.redeem(event.terms, approval, signature), event.provider)
            if done < bid.checkpoints:
                self.before[event.terms.parties.bid] = (event.terms, done)
                self.not_waiting.remove(event.terms.parties.bid)


def test_every_match_opens(chain: Chain, pytestconfig: pytest.Config) -> None:
    rpc(chain, "anvil_autoImpersonateAccount", True)
    for _ in range(10):
        send(chain, chain.faucet(BANK, CHEQUE), BANK)
    send(chain, chain.approve(10 * CHEQUE), BANK)
    seen: Counter[str] = Counter()
    try:
        for seed in range(200 if pytestconfig.getoption("--long") else 16):
            print(f"book {seed}")  # shown if it fails
            snapshot = rpc(chain, "evm_snapshot")
            people = People(chain, random.Random(seed))
            for epoch in range(3):
                result = clear(people.book(), seed=b"coin %d" % epoch, tick=people.dice.choice([1, 7, 1_000]))
                opened = people.open(result.matches)
                seen["opened"] += len(opened)
                seen["continued"] += sum(match.bid.id in people.before for match in result.matches)
                for match in result.matches:
                    lowest = match.ask.price(match.ask.price_per_hour, match.bid.units)
                    seen["at the ask's limit"] += match.price == lowest
                    seen["at the bid's limit"] += match.price == match.bid.limit
                for reason in result.reasons.values():
                    seen[reason.name] += 1
                people.give_back(opened)
            rpc(chain, "evm_revert", snapshot)
    finally:
        rpc(chain, "anvil_autoImpersonateAccount", False)
    for kind in ("opened", "continued", "at the ask's limit", "at the bid's limit", "BALANCE", "CAPACITY"):
        assert seen[kind] > 0, seen
