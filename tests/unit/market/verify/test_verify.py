"""What `gpumarket epoch verify` finds in an epoch's data: each lie by its sentence, and nothing in an honest one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from contracts.api.bodies import ReceiptOut
from contracts.api.epochs import (
    ClassPrice,
    EpochAsk,
    EpochBid,
    EpochHeader,
    EpochOut,
    FailureReport,
    LeftOut,
    LeftOutReason,
    MatchOut,
    TradeClassOut,
    UnmatchedOut,
    epoch_root,
)
from contracts.chain.errors import Refusal
from contracts.chain.events import (
    Approved,
    Closed,
    Deposited,
    Ended,
    EpochPublished,
    Event,
    Opened,
    PageRaised,
    Place,
    Withdrawn,
)
from contracts.finality import Finality
from contracts.orders import Receipt, Report, SignedType, new_account
from contracts.terms import AccountWord, Flag, Nums, Parties, Phase, Terms
from contracts.types import ZERO_HASH, from_hex, to_hex
from market.auction.clearing import class_out
from market.matching import Reason, clear
from market.verify.history import BlockFacts, Past, look_back
from market.verify.published import OrderSet, Promise, Published, until
from market.verify.result import book_of
from market.verify.verify import Checked, Verifier
from tests.support.market_parts import CPU, make_ask, make_bid, make_spec, sha256
from tests.support.offline_market import DOMAIN, RULES

BLOCK, COMMITTED = 20, 25  # the epoch's block, and the one in which it was published
SEED_BLOCK = COMMITTED + 1
FREE = 100_000_000
NUMBER = 3
TIP = "0x" + "00" * 20


def block_hash(number: int) -> str:
    return to_hex(keccak(b"block %d" % number))


def at(block: int, index: int = 0) -> Place:
    return Place(block, block_hash(block), index, sha256(b"transaction %d" % block), 1000 + block)


@dataclass
class FakeNode:
    """A chain of blocks from a hash; accounts as a test sets them."""

    senders: dict[str, str]
    default_sender: str
    words: dict[str, AccountWord] = field(default_factory=dict)
    forgets: bool = False
    wallets: set[str] = field(default_factory=set)
    domain = DOMAIN
    decimals = 6

    def block(self, number: int | None = None) -> BlockFacts | None:
        number = 50 if number is None else number
        return BlockFacts(number, block_hash(number), 1000 + number) if number <= 50 else None

    def accounts(self, owners: Iterable[str], block: int | None = None) -> dict[str, AccountWord] | None:
        if self.forgets and block is not None:
            return None
        return {owner: self.words.get(owner, AccountWord(0, 0, 0, 0)) for owner in owners}

    def is_wallet(self, owner: str) -> bool:
        return owner in self.wallets

    def is_signed(self, message: SignedType, signer: str, signature: str) -> bool:
        return False

    def sender(self, transaction: str) -> str:
        return self.senders.get(transaction, self.default_sender)


@dataclass
class FakeMarket:
    """What it answers when it is asked for more than an epoch's data."""

    epochs: dict[int, EpochOut] = field(default_factory=dict)
    orders: dict[str, Promise] = field(default_factory=dict)

    def epoch(self, number: int) -> EpochOut | None:
        return self.epochs.get(number)

    def promise(self, order: str) -> Promise | None:
        return self.orders.get(order)


class World:
    """A market, two clients and three providers, and one epoch of theirs that a test can spoil."""

    def __init__(self) -> None:
        self.matcher, self.stranger = new_account(), new_account()
        self.clients, self.providers = [new_account() for _ in range(2)], [new_account() for _ in range(3)]
        self.node = FakeNode({}, self.matcher.address)
        self.spec = make_spec()
        self.events: list[Event] = [
            Deposited(at(1, n), key.address, key.address, FREE) for n, key in enumerate(self.clients + self.providers)
        ]
        self.bids: list[EpochBid] = []
        self.asks: list[EpochAsk] = []
        self.nonce = 0
        self.header_changes: dict[str, Any] = {}
        self.before: OrderSet | None = None
        self.lookup = FakeMarket()
        self.kept: list[Promise] = []
        self.finality = Finality()

    # ------------------------------------------------------------- orders

    def receipt(self, order: str, block: int = 10, epoch: int = 1, key: LocalAccount | None = None) -> ReceiptOut:
        receipt = Receipt(order=order, epoch=epoch, block=block, time=1000)
        return ReceiptOut(receipt=receipt, signature=receipt.sign(DOMAIN, key or self.matcher))

    def make_bid(self, client: int = 0, **changes: Any) -> EpochBid:
        key, spec = self.clients[client], changes.pop("spec", self.spec)
        bid = make_bid(key, self.matcher.address, RULES, spec, **({"nonce": self.nonce} | changes))
        self.nonce += 1
        id = bid.digest(DOMAIN)
        return EpochBid(id=id, bid=bid, signature=bid.sign(DOMAIN, key), spec=spec, receipt=self.receipt(id))

    def make_ask(self, provider: int = 0, **changes: Any) -> EpochAsk:
        key = self.providers[provider]
        ask = make_ask(key, self.matcher.address, RULES, **changes)
        id = ask.digest(DOMAIN)
        return EpochAsk(id=id, ask=ask, signature=ask.sign(DOMAIN, key), resources=CPU, receipt=self.receipt(id))

    def bid(self, client: int = 0, **changes: Any) -> EpochBid:
        self.bids.append(self.make_bid(client, **changes))
        return self.bids[-1]

    def ask(self, provider: int = 0, **changes: Any) -> EpochAsk:
        self.asks.append(self.make_ask(provider, **changes))
        return self.asks[-1]

    # ------------------------------------------------------------- the chain

    def terms(self, bid: EpochBid, ask: EpochAsk, price: int, start: int = 0, prev: str = ZERO_HASH) -> Terms:
        order = bid.bid
        end = min(order.checkpoints, start + ask.ask.max_checkpoints)
        nums = Nums(start, end, RULES.window, RULES.checkpoint_timeout, price, order.fee)
        parties = Parties(
            bid.id, order.job, prev, order.rules, order.client, order.effective_approver, order.matcher, order.stake
        )
        return Terms(ask.ask.provider, nums, parties)

    def open(self, bid: EpochBid, ask: EpochAsk, price: int, block: int, **changes: Any) -> Opened:
        terms = self.terms(bid, ask, price, **changes)
        event = Opened(at(block, len(self.events)), terms.lease, terms.provider, bid.bid.client, ask.id, terms, TIP)
        self.events.append(event)
        return event

    def give_up(self, lease: Opened, block: int, accepted: int = 0, late: bool = False) -> None:
        """The lease ends, and another one may follow it."""
        if accepted:
            self.events.append(Approved(at(block, 1), lease.lease, accepted, TIP))
        status = Phase.CLOSING | Flag.MORE | (Flag.LATE if late else 0)
        self.events.append(Ended(at(block, 2), lease.lease, lease.client, int(status)))
        self.events.append(Closed(at(block, 3), lease.lease, accepted, 0, True))

    # ------------------------------------------------------------- the epoch

    def header(self) -> EpochHeader:
        return EpochHeader(
            **{
                "number": NUMBER,
                "market": self.matcher.address,
                "chain_id": DOMAIN.chain_id,
                "escrow": DOMAIN.verifying_contract,
                "block": BLOCK,
                "block_hash": block_hash(BLOCK),
                "time": 1000 + BLOCK + 2,
                "tick": 1,
                "rules": [RULES],
                "failures": [],
                "left_out": [],
            }
            | self.header_changes
        )

    def hold(self) -> "Held":
        """Clear it as an honest market does, and open all matches."""
        header = self.header()
        orders = OrderSet(NUMBER, header, list(self.bids), list(self.asks))
        past = self.past()
        result = clear(book_of(orders, past), from_hex(block_hash(SEED_BLOCK)), header.tick)
        bids, asks = {one.id: one for one in self.bids}, {one.id: one for one in self.asks}
        self.publish(NUMBER, epoch_root(header, orders.ids), COMMITTED)
        matches = []
        for match in result.matches:
            leases = past.leases_of(match.bid.id)
            changes = {"start": leases[-1].reached, "prev": leases[-1].id} if leases else {}
            opened = self.open(bids[match.bid.id], asks[match.ask.id], match.price, 30, **changes)
            matches.append(
                MatchOut(bid=match.bid.id, ask=match.ask.id, price=match.price, place=match.place, lease=opened.lease)
            )
        prices = [
            ClassPrice(of=TradeClassOut.model_validate(class_out(of)), price=price, epoch=NUMBER)
            for of, price in result.prices.items()
        ]
        return Held(self, self.told(header, matches=matches), orders, prices)

    def publish(self, number: int, root: str, block: int) -> None:
        self.events.append(EpochPublished(at(block), self.matcher.address, number, root))

    def told(self, header: EpochHeader, **changes: Any) -> EpochOut:
        fields: dict[str, Any] = {
            "number": header.number,
            "status": "cleared",
            "order_root": ZERO_HASH,
            "header": header,
            "started": datetime.fromtimestamp(header.time, UTC),
            "published_tx": ZERO_HASH,
            "seed_block": SEED_BLOCK,
            "seed": block_hash(SEED_BLOCK),
            "matches": [],
            "unmatched": [],
            "transaction": ZERO_HASH,
        }
        return EpochOut(**(fields | changes))

    def past(self) -> Past:
        ordered = sorted(self.events, key=lambda event: (event.at.block, event.at.log_index))
        return look_back(ordered, BLOCK, {RULES.struct_hash(): RULES.arbiter})


@dataclass
class Held:
    """An epoch as its market tells of it."""

    world: World
    epoch: EpochOut
    orders: OrderSet
    prices: list[ClassPrice]

    def spoil(self, **changes: Any) -> None:
        """In what is told of the epoch."""
        self.epoch = self.epoch.model_copy(update=changes)

    def commit_anew(self, header: EpochHeader | None = None, **changes: Any) -> None:
        """Other orders or another header, and their own root."""
        self.orders = replace(self.orders, header=header or self.orders.header, **changes)
        world = self.world
        world.events = [one for one in world.events if not isinstance(one, EpochPublished) or one.epoch != NUMBER]
        world.publish(NUMBER, epoch_root(self.orders.header, self.orders.ids), COMMITTED)

    def check(self, every: bool = False) -> list[Checked]:
        world = self.world
        commitments = [one for one in world.events if isinstance(one, EpochPublished)]
        of = {one.epoch: one for one in commitments}
        verifier = Verifier(
            Published(self.epoch, self.orders, self.prices, world.before),
            world.finality,
            world.matcher.address,
            of.get(NUMBER - 1),
            of.get(NUMBER),
            of.get(NUMBER + 1),
            world.past(),
            world.lookup,
            world.node,
        )
        return verifier.run(world.kept, every)

    def lie(self) -> str:
        """The first one."""
        checked = self.check()
        assert not any(one.lies for one in checked[:-1])
        assert len(checked[-1].lies) == 1, checked
        return checked[-1].lies[0]

    def notes(self) -> list[str]:
        """Of an epoch in which nothing is a lie."""
        checked = self.check()
        assert not any(one.lies for one in checked), checked
        return [note for one in checked for note in one.notes]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def held(world: World) -> Held:
    """Two bids of equal worth for one machine, one that others can have, and one that pays too little."""
    world.bid(0)
    world.bid(1)
    world.bid(1, max_price=900_000)
    world.ask(0)
    return world.hold()


def test_an_honest_epoch_holds(held: Held) -> None:
    checked = held.check()
    assert [(one.name, one.lies, one.notes) for one in checked] == [
        (name, [], []) for name in ("header", "commitment", "orders", "left out", "prices", "coin", "openings")
    ]
    assert len(held.epoch.matches) == 1


# ------------------------------------------------------------------ what was committed to


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"number": 4}, "the header of epoch 3 says epoch 4, but it is 3"),
        ({"market": "0x00000000000000000000000000000000000000aA"}, "says market"),
        ({"chain_id": 1}, "says chain 1, but it is 31337"),
        ({"tick": 1000}, "says tick 1000, but it is 1"),
        ({"block_hash": ZERO_HASH}, "says that block 20 has the hash"),
        ({"block": 2000}, "but on the chain there is none"),
        ({"time": 1019}, "says time 1019, but its block 20 is of 1020"),
        ({"time": 1400}, "says time 1400, but it was published at 1025 already"),
        (
            {"block": 26, "block_hash": block_hash(26), "time": 1030},
            "counts block 26, but it was published in block 25",
        ),
        ({"rules": [RULES, RULES]}, "has rules twice"),
    ],
)
def test_a_wrong_header(held: Held, changes: dict[str, Any], sentence: str) -> None:
    held.commit_anew(held.orders.header.model_copy(update=changes))
    assert sentence in held.lie()


def test_other_orders_than_were_committed_to(held: Held) -> None:
    held.orders = replace(held.orders, bids=held.orders.bids[1:])
    assert "they are not what the market committed to" in held.lie()


def test_orders_that_were_never_committed_to(held: Held) -> None:
    held.world.events = [one for one in held.world.events if not isinstance(one, EpochPublished)]
    assert "epoch 3 was never published on chain" in held.lie()


def test_another_seed(held: Held) -> None:
    held.spoil(seed=block_hash(27), seed_block=27)
    assert f"cleared with the seed {block_hash(27)} of block 27, but" in held.lie()


# ------------------------------------------------------------------ orders


def test_a_forged_order(held: Held) -> None:
    bid = held.orders.bids[0]
    forged = bid.model_copy(update={"signature": bid.bid.sign(DOMAIN, held.world.stranger)})
    held.orders = replace(held.orders, bids=[forged, *held.orders.bids[1:]])
    assert held.lie() == f"bid {bid.id} of epoch 3 is not signed by {bid.bid.client}"


def test_a_contract_wallet_may_have_changed_its_mind(held: Held) -> None:
    bid = held.orders.bids[2]
    held.world.node.wallets.add(bid.bid.client)
    forged = bid.model_copy(update={"signature": bid.bid.sign(DOMAIN, held.world.stranger)})
    held.orders = replace(held.orders, bids=[*held.orders.bids[:2], forged])
    assert len(held.notes()) == 1


def test_an_order_with_another_id_or_other_terms(held: Held) -> None:
    bid = held.orders.bids[0]
    changed = bid.model_copy(update={"bid": bid.bid.model_copy(update={"max_price": 1})})
    held.orders = replace(held.orders, bids=[changed, *held.orders.bids[1:]])
    assert f"bid {bid.id} of epoch 3 is not what its id says" in held.lie()


def test_another_job_than_was_signed(held: Held) -> None:
    bid = held.orders.bids[0].model_copy(update={"spec": make_spec(seed=2)})
    held.orders = replace(held.orders, bids=[bid, *held.orders.bids[1:]])
    assert f"signs the job {bid.bid.job}, but the spec given has the hash" in held.lie()


def test_other_resources_than_were_signed(held: Held) -> None:
    ask = held.orders.asks[0]
    faster = ask.model_copy(update={"resources": CPU.model_copy(update={"memory_mb": 9000})})
    held.orders = replace(held.orders, asks=[faster])
    assert f"ask {ask.id} of epoch 3 signs resources {ask.ask.resources}, but" in held.lie()


def test_an_order_that_is_there_twice(held: Held) -> None:
    held.orders = replace(held.orders, asks=held.orders.asks * 2)
    assert "is 2 times in epoch 3" in held.lie()


def test_rules_that_the_header_does_not_have(held: Held) -> None:
    held.commit_anew(held.orders.header.model_copy(update={"rules": []}))
    assert f"signs rules {RULES.struct_hash()}, which the header does not have" in held.lie()


def test_a_receipt_of_somebody_else(held: Held) -> None:
    bid = held.orders.bids[0]
    forged = bid.model_copy(update={"receipt": held.world.receipt(bid.id, key=held.world.stranger)})
    held.orders = replace(held.orders, bids=[forged, *held.orders.bids[1:]])
    assert "is not signed by the market" in held.lie()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda world: world.bid(valid_until=1021), "it ended at 1021, before 1022"),
        (lambda world: world.bid(spec=make_spec(deadline="1970-01-01T00:17:00Z")), "it ended at 1020, before 1022"),
        (lambda world: world.ask(1, valid_from=1023), "it begins at 1023, after 1022"),
        (lambda world: world.ask(1, page=1), "it names page 1, and its owner is at page 0"),
        (lambda world: world.bid(matcher=world.stranger.address), "it names the matcher"),
        (lambda world: world.bid(max_price=7, fee=7), "the escrow opens no lease with such terms"),
        (lambda world: world.bid(stake=1), "its stake 1 does not cover the arbiter's fee 1000000"),
        (lambda world: world.bid(units=0), "it has a 0 where 1 is the least"),
    ],
)
def test_an_order_that_is_not_in_force(world: World, spoil: Callable[[World], Any], sentence: str) -> None:
    order, header = spoil(world), world.header()
    held = Held(world, world.told(header), OrderSet(NUMBER, header, world.bids, world.asks), [])
    held.commit_anew()
    lie = held.lie()
    assert f"{order.id} of epoch 3 is not in force: " in lie
    assert sentence in lie


def test_a_bid_that_has_a_lease_or_is_done(world: World) -> None:
    bid, ask = world.bid(), world.make_ask()
    lease = world.open(bid, ask, 1_000_000, 5)
    held = world.hold()
    assert f"its lease {lease.lease} is live" in held.lie()
    world.events.append(Approved(at(6), lease.lease, 4, TIP))
    assert f"nothing can follow its lease {lease.lease}" in held.lie()


def test_a_bid_whose_nonce_another_order_used(held: Held) -> None:
    bid, word = held.orders.bids[2], AccountWord(FREE, 0, 0, 1 << 2)
    held.world.node.words[bid.bid.client] = word
    assert f"bid {bid.id} of epoch 3 can open no lease: another order has used its nonce" in held.lie()
    held.world.node.forgets = True
    assert ["can't be told" in note for note in held.notes()] == [True]


# ------------------------------------------------------------------ censorship


def promised(one: EpochBid | EpochAsk, due: int = 1, whence: str = "has a receipt for epoch 1") -> Promise:
    order = one.bid if isinstance(one, EpochBid) else one.ask
    return Promise(one.id, order, one.signature, until(one), one.receipt, whence, due)


def test_a_promised_order_that_is_missing(world: World) -> None:
    kept = world.make_bid()
    world.kept.append(promised(kept))
    assert world.hold().lie() == (
        f"bid {kept.id} has a receipt for epoch 1, and is in force at block 20, but it is not in epoch 3, "
        "nor does the header say why"
    )


def test_promises_that_need_not_be_kept_yet_or_any_more(world: World) -> None:
    later, spent, cancelled = world.make_bid(0), world.make_bid(0), world.make_bid(1)
    world.node.words[spent.bid.client] = AccountWord(FREE, 0, 0, 1 << spent.bid.bit)
    world.events.append(PageRaised(at(6), cancelled.bid.client, 1))
    over = world.make_ask(valid_until=1000)
    world.kept += [promised(later, due=4), promised(spent), promised(cancelled), promised(over)]
    assert world.hold().notes() == []


def test_a_promise_that_is_put_off(world: World) -> None:
    """As a market could that promises some orders an epoch far away."""
    kept = world.make_bid()
    receipt = world.receipt(kept.id, epoch=9)
    world.kept.append(promised(kept.model_copy(update={"receipt": receipt}), due=9))
    world.header_changes["time"] = 1061
    assert world.hold().lie() == (
        f"bid {kept.id} was accepted at 1000, and epoch 3 counts from 1061, but its receipt promises epoch 9 only"
    )


def test_an_order_of_the_epoch_before_that_is_missing(world: World) -> None:
    ask = world.make_ask()
    header = world.header().model_copy(update={"number": 2})
    world.before = OrderSet(2, header, [], [ask])
    world.publish(2, epoch_root(header, [ask.id]), 12)
    held = world.hold()
    assert f"ask {ask.id} was in epoch 2, and is in force at block 20, but it is not in epoch 3" in held.lie()
    world.before = OrderSet(2, header, [], [])
    assert "epoch 2's header and orders have the root" in held.lie()


def test_an_epoch_that_is_hidden(world: World) -> None:
    world.publish(2, ZERO_HASH, 12)
    held = world.hold()
    assert held.lie() == (
        f"{world.matcher.address} published epoch 2 with the root {ZERO_HASH} in block 12, "
        "but the market tells nothing of it"
    )
    world.lookup.epochs[2] = world.told(world.header()).model_copy(update={"header": None})
    assert ["has no orders of epoch 2" in note for note in held.notes()] == [True]


def test_an_order_that_is_in_the_set_and_left_out(world: World) -> None:
    bid = world.bid()
    world.header_changes["left_out"] = [LeftOut(order=bid.id, reason=LeftOutReason.STOPPED_EARLY)]
    assert "is in epoch 3, and said to be left out of it" in world.hold().lie()


def left_out(world: World, one: EpochBid | EpochAsk, reason: LeftOutReason, **shown: Any) -> Held:
    world.header_changes["left_out"] = [LeftOut(order=one.id, reason=reason, **shown)]
    world.lookup.orders[one.id] = promised(one, whence="was left out")
    return world.hold()


def test_left_out_because_the_lease_before_is_not_final(world: World) -> None:
    bid, ask = world.make_bid(), world.make_ask()
    lease = world.open(bid, ask, 1_000_000, 15)
    world.give_up(lease, 18, accepted=2)
    world.finality = Finality(base=3, max=3)
    held = left_out(world, bid, LeftOutReason.FINAL, lease=lease.lease)
    assert held.notes() == []
    world.finality = Finality(base=2, max=2)
    assert "in block 18 was 2 blocks deep, and by the market's own finality 2 are enough" in held.lie()


def test_left_out_because_it_failed(world: World) -> None:
    bid, lease, reports = world.make_bid(), None, []
    for n in range(3):
        prev = {"prev": lease.lease} if lease else {}
        lease = world.open(bid, world.make_ask(n), 1_000_000, 5 + 3 * n, **prev)
        world.give_up(lease, 6 + 3 * n)
        report = Report(lease=lease.lease, n=1, kind="failed", content=ZERO_HASH, time=1000)
        reports.append(FailureReport(report=report, signature=report.sign(DOMAIN, world.providers[n])))
    world.header_changes["failures"] = reports
    held = left_out(world, bid, LeftOutReason.FAILED)
    assert held.notes() == []
    held.commit_anew(held.orders.header.model_copy(update={"failures": reports[1:]}))
    assert "the header has reports of 2 leases that failed at checkpoint 1, not of 3" in held.lie()
    forged = reports[0].model_copy(update={"signature": reports[1].signature})
    held.commit_anew(held.orders.header.model_copy(update={"failures": [forged, *reports[1:]]}))
    assert f"is not signed by {world.providers[0].address}" in held.lie()


def test_left_out_because_its_provider_is_silent(world: World) -> None:
    lease = world.open(world.make_bid(), world.make_ask(1), 1_000_000, 5)
    world.give_up(lease, 11, late=True)
    ask = world.make_ask(1, price_per_hour=3_700_000_000)  # received at block 10
    held = left_out(world, ask, LeftOutReason.SILENT, lease=lease.lease)
    assert held.notes() == []
    newer = ask.model_copy(update={"receipt": world.receipt(ask.id, block=12)})
    world.lookup.orders[ask.id] = promised(newer)
    assert f"lease {lease.lease} ended in block 11, and the market received the ask after block 12" in held.lie()
    other = left_out(world, world.make_ask(2), LeftOutReason.SILENT, lease=lease.lease)
    assert f"{lease.lease} is no lease of an ask's provider" in other.lie()


def test_a_silent_friend_that_stays_in(world: World) -> None:
    lease = world.open(world.make_bid(), world.make_ask(1), 1_000_000, 5)
    world.give_up(lease, 11, late=True)
    ask = world.ask(1)
    assert f"ask {ask.id} is in epoch 3, though its provider let lease {lease.lease} time out" in world.hold().lie()


def test_left_out_because_the_escrow_refused_it(world: World) -> None:
    bid, ask = world.make_bid(), world.make_ask()
    refused = MatchOut(bid=bid.id, ask=ask.id, price=1, lease=None, note=Refusal.BALANCE_SHORT.sentence)
    earlier = world.header().model_copy(update={"number": 2, "time": 900})
    world.lookup.epochs[2] = world.told(earlier, matches=[refused])
    held = left_out(world, bid, LeftOutReason.REFUSED, epoch=2)
    assert held.notes() == []
    world.lookup.epochs[2] = world.told(earlier.model_copy(update={"time": 300}), matches=[refused])
    assert "epoch 2 was 722 s before, more than 600" in held.lie()
    world.lookup.epochs[2] = world.told(earlier, matches=[])
    assert "epoch 2 tells of no refused match that was its fault" in held.lie()
    world.lookup.epochs[2] = world.told(
        earlier, matches=[refused.model_copy(update={"note": Refusal.STAKE_SHORT.sentence})]
    )
    assert "epoch 2 tells of no refused match that was its fault" in held.lie()


def test_left_out_because_it_stopped_early_is_the_markets_word(world: World) -> None:
    bid = world.make_bid()
    held = left_out(world, bid, LeftOutReason.STOPPED_EARLY)
    assert "it never had a lease" in held.lie()
    world.give_up(world.open(bid, world.make_ask(), 1_000_000, 5), 6, accepted=2)
    assert ["is for its client to see" in note for note in held.notes()] == [True]


def test_an_order_left_out_that_nobody_knows(world: World) -> None:
    world.header_changes["left_out"] = [LeftOut(order=ZERO_HASH, reason=LeftOutReason.FAILED)]
    assert ["does not tell what it was" in note for note in world.hold().notes()] == [True]


# ------------------------------------------------------------------ the result


def only_match(held: Held) -> MatchOut:
    (match,) = held.epoch.matches
    return match


def test_a_price_that_is_not_the_class_s(held: Held) -> None:
    match = only_match(held)
    held.spoil(matches=[match.model_copy(update={"price": match.price + 1})])
    assert f"bid {match.bid} pays ask {match.ask} {match.price + 1} a checkpoint; its class's price is" in held.lie()


def test_a_price_that_nobody_objects_to_but_is_too_high(world: World) -> None:
    """One bid for one machine: any price between their limits proves itself, and the market owes the least."""
    world.bid()
    world.ask()
    held = world.hold()
    match, (price,) = only_match(held), held.prices
    dear = price.model_copy(update={"price": price.price * 3 // 2})
    held.prices = [dear]
    held.spoil(matches=[match.model_copy(update={"price": match.price * 3 // 2})])
    assert held.lie() == (
        f"bid {match.bid} got ask {match.ask} (place 0) at 1500000 a checkpoint; "
        f"cleared again with the epoch's seed it got ask {match.ask} (place 0) at 1000000 a checkpoint"
    )


def test_a_friend_among_equals(held: Held) -> None:
    match = only_match(held)
    friend = next(bid for bid in held.orders.bids if bid.id != match.bid and bid.bid.max_price == 2_000_000)
    held.spoil(matches=[match.model_copy(update={"bid": friend.id})])
    assert {f"bid {match.bid} got no lease", f"bid {friend.id} got ask {match.ask}"} == {
        lie.split(";")[0].split(" (place")[0]
        for one in held.check(every=True)
        if one.name == "coin"
        for lie in one.lies
    }


def test_a_bid_that_is_told_a_wrong_reason(held: Held) -> None:
    low = held.orders.bids[2]
    held.spoil(unmatched=[UnmatchedOut(bid=low.id, reason=Reason.PRICE)])
    assert held.notes() == []
    held.spoil(unmatched=[UnmatchedOut(bid=low.id, reason=Reason.NO_ASKS)])
    assert held.lie() == (
        f"bid {low.id} is said to be left because {Reason.NO_ASKS}; cleared again it is left because {Reason.PRICE}"
    )
    held.prices = [one.model_copy(update={"epoch": NUMBER - 1}) for one in held.prices]
    assert held.notes() == []  # it was told then


def test_a_dearer_friend(world: World) -> None:
    bid, _, dear = world.bid(), world.ask(0), world.ask(1, price_per_hour=5_000_000_000)
    held = world.hold()
    price = 1_388_889
    held.spoil(matches=[MatchOut(bid=bid.id, ask=dear.id, price=price, lease=None)])
    assert f"bid {bid.id}" in held.lie()
    assert {one.name for one in held.check() if one.lies} == {"prices"}


def test_a_job_goes_on_elsewhere(world: World) -> None:
    """From the checkpoint that it has reached, away from the provider that made none, as the chain says."""
    bid, ask = world.bid(), world.ask(0)
    first = world.open(bid, ask, 1_000_000, 5)
    world.give_up(first, 6, accepted=1)
    second = world.open(bid, ask, 1_000_000, 7, start=1, prev=first.lease)
    world.give_up(second, 8, accepted=1)
    other = world.ask(1, price_per_hour=5_000_000_000)
    world.events.append(PageRaised(at(9), world.clients[0].address, 1))  # which ends no Bid that has had a lease
    held = world.hold()
    assert (only_match(held).ask, held.notes()) == (other.id, [])
    held.spoil(matches=[only_match(held).model_copy(update={"ask": ask.id, "price": 1_000_000})])
    assert "matched with a machine that it does not fit" in held.lie()


# ------------------------------------------------------------------ what was opened


def test_a_lease_that_was_not_matched(held: Held) -> None:
    bid = next(bid for bid in held.orders.bids if bid.id != only_match(held).bid)
    lease = held.world.open(bid, held.orders.asks[0], 900_000, 31)
    assert held.lie() == (
        f"lease {lease.lease} (bid {bid.id}, ask {held.orders.asks[0].id}, 900000 a checkpoint) was opened "
        "after epoch 3 was published, in block 31, but is no match of it"
    )


def test_leases_of_other_markets_are_none_of_ours(held: Held) -> None:
    world = held.world
    bid, ask = world.make_bid(matcher=world.stranger.address), world.make_ask(2, matcher=world.stranger.address)
    lease = world.open(bid, ask, 1, 31)
    world.node.senders[lease.at.transaction] = world.stranger.address
    assert held.notes() == []


def test_a_lease_for_everybody_is_the_sender_s(held: Held) -> None:
    world, nobody = held.world, "0x" + "0" * 40
    world.open(world.make_bid(matcher=nobody), world.make_ask(2, matcher=nobody), 1, 31)
    assert "but is no match of it" in held.lie()


def test_a_lease_at_another_price(held: Held) -> None:
    world, match = held.world, only_match(held)
    opened = next(one for one in world.events if isinstance(one, Opened))
    world.events.remove(opened)
    bid = next(bid for bid in held.orders.bids if bid.id == match.bid)
    world.open(bid, held.orders.asks[0], match.price + 5, 30)
    assert f"which matched it at {match.price}" in held.lie()


def test_a_lease_before_the_seed_was_known(held: Held) -> None:
    world = held.world
    opened = next(one for one in world.events if isinstance(one, Opened))
    world.events[world.events.index(opened)] = replace(opened, at=at(SEED_BLOCK))
    assert "was opened in block 26, when the seed of epoch 3 was not known" in held.lie()


def test_a_match_that_was_not_opened(held: Held) -> None:
    world, match = held.world, only_match(held)
    world.events = [one for one in world.events if not isinstance(one, Opened)]
    assert f"lease {match.lease} is said to be theirs, but it was not opened by it" in held.lie()
    held.spoil(matches=[match.model_copy(update={"lease": None, "note": "the client is short"})])
    assert held.lie() == (
        f"bid {match.bid} and ask {match.ask} were matched in epoch 3, but not opened ('the client is short'), "
        "although nothing had changed for either"
    )
    withdrawn = Withdrawn(at(27), world.providers[0].address, world.providers[0].address, 1)
    world.events.append(withdrawn)
    assert held.notes() == []
    world.events.remove(withdrawn)
    held.spoil(matches=[match.model_copy(update={"lease": None})], transaction=None)
    assert held.notes() == [f"bid {match.bid} and ask {match.ask} were matched in epoch 3, and not opened yet"]
    world.publish(NUMBER + 1, ZERO_HASH, 40)
    assert "but not opened, although nothing had changed" in held.lie()


def test_what_came_of_the_next_epoch_is_none_of_this_one(held: Held) -> None:
    world = held.world
    world.publish(NUMBER + 1, ZERO_HASH, 40)
    world.open(world.make_bid(), world.make_ask(2), 1, 42)
    assert held.notes() == []


def test_an_epoch_that_was_given_up(held: Held) -> None:
    """Its leader may have died, or disliked the coin. Nothing may come of it."""
    held.spoil(status="abandoned", matches=[], seed=None, seed_block=None)
    held.prices = []
    assert "but is no match of it" in held.lie()
    held.world.events = [one for one in held.world.events if not isinstance(one, Opened)]
    (note,) = held.notes()
    assert f"have disliked its coin, which was {block_hash(SEED_BLOCK)}" in note


def test_an_epoch_that_stays_announced(held: Held) -> None:
    held.spoil(status="announced", matches=[])
    held.world.publish(NUMBER + 1, ZERO_HASH, 40)
    assert held.lie() == "epoch 3 is said to be announced, but epoch 4 came after it"


def test_what_follows_from_wrong_orders_is_not_looked_at(held: Held) -> None:
    held.orders = replace(held.orders, asks=held.orders.asks * 2)
    checked = {one.name: one for one in held.check(every=True)}
    assert (len(checked["orders"].lies), checked["coin"].lies, len(checked["coin"].notes)) == (1, [], 1)
