"""One epoch and its market, for tests of what `epoch verify` finds: held as an honest market does, then spoilt."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from contracts.api.auditing.notes import AuditNoteOut
from contracts.api.bodies import AskResources, ReceiptOut
from contracts.api.epochs import (
    ClassPrice,
    EpochAsk,
    EpochBid,
    EpochHeader,
    EpochOut,
    MatchOut,
    epoch_root,
)
from contracts.chain.events import (
    Approved,
    Closed,
    Deposited,
    Ended,
    EpochPublished,
    Event,
    Opened,
    Place,
)
from contracts.finality import Finality
from contracts.orders import Receipt, SignedType, new_account
from contracts.terms import AccountWord, Flag, Nums, Parties, Phase, Terms
from contracts.types import ZERO_HASH, from_hex, to_hex
from market.matching import clear
from market.matching.inputs import to_published
from market.verify.findings import Checked
from market.verify.history import BlockFacts, Past, look_back
from market.verify.published import OrderSet, Promise, Published
from market.verify.result import rebuild_book
from market.verify.verify import Verifier
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
    sold: dict[str, AskResources] = field(default_factory=dict)
    notes: dict[str, list[AuditNoteOut]] = field(default_factory=dict)

    def epoch(self, number: int) -> EpochOut | None:
        return self.epochs.get(number)

    def promise(self, order: str) -> Promise | None:
        return self.orders.get(order)

    def resources(self, ask: str) -> AskResources | None:
        return self.sold.get(ask)

    def rulings(self, provider: str) -> list[AuditNoteOut]:
        return self.notes.get(provider, [])


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
        floor = -(-ask.ask.price_per_hour * order.units // ask.ask.units_per_hour)
        nums = Nums(start, end, RULES.window, RULES.checkpoint_timeout, price, order.fee, floor)
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
        result = clear(rebuild_book(orders, past), from_hex(block_hash(SEED_BLOCK)), header.tick)
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
        prices = [ClassPrice(of=to_published(of), price=price, epoch=NUMBER) for of, price in result.prices.items()]
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
        return look_back(ordered, BLOCK)


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


def only_match(held: Held) -> MatchOut:
    (match,) = held.epoch.matches
    return match
