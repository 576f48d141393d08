"""The ledger against the escrow: random commands, then equal accounts, states and token balance."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from web3.contract.contract import ContractFunction

from contracts.chain.calls import SignedMatch
from contracts.chain.client import Chain
from contracts.chain.devnet import devnet
from contracts.chain.errors import EscrowError
from contracts.chain.follower import Block, Follower, MemoryStore
from contracts.chain.ledger import GONE, Exit, LeaseView, Ledger
from contracts.chain.reliability import Record, records
from contracts.chain.sending.sender import Sender
from contracts.commitment import next_tip
from contracts.orders import Approval, Ask, Bid, Claim, Rules
from contracts.terms import Phase
from contracts.types import ZERO_ADDRESS, ZERO_HASH, from_hex, to_hex
from market.chain import indexer
from market.store.db import Database
from market.store.queries import reliability
from tests.support.devnet import TOKEN, Funded, pass_time

FOREVER = (1 << 40) - 1
CHECKPOINTS = 7


@dataclass
class Market:
    """Two clients, two providers, an approver, a matcher, a challenger; and the ledger of what they do."""

    chain: Chain
    people: list[LocalAccount]
    rules: Rules
    ledger: Ledger = field(default_factory=Ledger)
    bids: dict[str, tuple[Bid, LocalAccount]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clients, self.providers = self.people[:2], self.people[2:4]
        self.approver, self.matcher, self.challenger = self.people[4:7]
        self.store = MemoryStore()
        self.follower = Follower(self.chain, self.store)
        self.blocks: list[Block] = []
        self.nonce = 0
        self.gone: set[str] = set()  # leases found gone, which nothing brings back

    def send(self, who: LocalAccount, call: Any) -> None:
        Sender(self.chain, who).send(call)
        self.follow()

    def follow(self) -> None:
        for step in self.follower.poll():
            self.store.apply(step)
            assert isinstance(step, Block)
            self.blocks.append(step)
            self.ledger.apply_all(step.events)

    def match(self, client: int, provider: int, *, fee: int = 7, covers: int = CHECKPOINTS) -> SignedMatch:
        price = 1_003
        bid = Bid(
            client=self.clients[client].address,
            matcher=self.matcher.address if fee else ZERO_ADDRESS,
            approver=self.approver.address,
            job=to_hex(random.Random(self.nonce).randbytes(32)),
            rules=self.rules.struct_hash(),
            checkpoints=CHECKPOINTS,
            units=10,
            max_price=price + fee,
            fee=fee,
            stake=2 * TOKEN + 3,
            valid_until=FOREVER,
            nonce=self.nonce,
        )
        self.nonce += 1
        self.bids[bid.digest(self.chain.domain)] = (bid, self.clients[client])
        return self.with_ask(bid, provider, price, covers)

    def with_ask(self, bid: Bid, provider: int, price: int, covers: int) -> SignedMatch:
        seller = self.providers[provider]
        ask = Ask(
            provider=seller.address,
            matcher=ZERO_ADDRESS,
            resources=ZERO_HASH,
            rules=bid.rules,
            price_per_hour=1,
            units_per_hour=10,
            max_stake=10 * TOKEN,
            max_active=3,
            max_checkpoints=covers,
            valid_from=0,
            valid_until=FOREVER,
            page=0,
        )
        domain = self.chain.domain
        client = self.bids[bid.digest(domain)][1]
        return SignedMatch(bid, ask, price, bid.sign(domain, client), ask.sign(domain, seller))

    def open(self, match: SignedMatch) -> str:
        before = set(self.ledger.leases)
        self.send(self.matcher, self.chain.open(self.rules, match))
        [lease] = set(self.ledger.leases) - before
        return lease

    def approval(self, view: LeaseView, n: int, last: bool = False) -> tuple[Approval, str]:
        tip = view.state.tip_hex if n == view.state.claimed else to_hex(random.Random(n).randbytes(20))
        approval = Approval(lease=view.id, n=n, tip=tip, last=last)
        return approval, approval.sign(self.chain.domain, self.approver)

    def provider_of(self, view: LeaseView) -> LocalAccount:
        return next(account for account in self.providers if account.address == view.terms.provider)

    def client_of(self, view: LeaseView) -> LocalAccount:
        return next(account for account in self.clients if account.address == view.terms.parties.client)

    def check(self) -> None:
        """The ledger and the escrow's views say the same."""
        owners = {person.address for person in self.people} | set(self.ledger.accounts)
        for owner in owners:
            word, account = self.chain.account(owner), self.ledger.account(owner)
            assert (account.free, account.active, account.page) == (word.free, word.active, word.page)
        for view in self.ledger.leases.values():
            if view.id in self.gone:
                continue
            if view.state == GONE:
                self.gone.add(view.id)
            assert view.agrees(self.chain.state(view.id)), (view, self.chain.state(view.id))
            assert (view.dispute is None) == (self.chain.dispute(view.id) is None)
        assert self.ledger.held == self.chain.token_balance(self.chain.escrow.address)


@pytest.fixture
def market(chain: Chain, funded: Funded) -> Market:
    rules = Rules(
        arbiter=chain.settings.arbiter,
        arbiter_fee=TOKEN,
        arbiter_timeout=50,
        checkpoint_timeout=40,
        window=20,
        verification=ZERO_HASH,
    )
    made = Market(chain, funded(7, free=1_000 * TOKEN), rules)
    made.follow()
    made.check()
    return made


def roots(count: int, seed: int = 0) -> list[str]:
    return [to_hex(random.Random(seed * 1_000 + i).randbytes(32)) for i in range(count)]


def tip_after(view: LeaseView, new: list[str]) -> str:
    tip = view.state.tip.to_bytes(20, "big")
    for root in new:
        tip = next_tip(tip, from_hex(root))
    return to_hex(tip)


def claim(market: Market, view: LeaseView, new: list[str]) -> ContractFunction:
    return market.chain.claim(view.terms, view.state.claimed + len(new), tip_after(view, new), new)


def test_a_whole_lease_on_the_slow_path(market: Market) -> None:
    lease = market.open(market.match(0, 0))
    view = market.ledger.leases[lease]
    assert view.state.phase is Phase.ACTIVE and view.lock == 7 * (1_003 + 7)
    market.send(market.provider_of(view), claim(market, view, roots(7)))
    market.check()
    assert (view.state.accepted, view.synced(market.chain.now() + 20).accepted) == (0, 7)
    pass_time(market.chain, 20)
    market.send(market.approver, market.chain.collect(view.terms))
    market.check()
    assert (view.exit, view.paid, view.fees, view.refunded) == (Exit.COMPLETE, 7 * 1_003, 7 * 7, 0)
    assert view.held == 0 and not view.continuable


def test_a_convicted_provider_and_the_next_lease(market: Market) -> None:
    chain, rules = market.chain, market.rules
    first = market.match(0, 0)
    view = market.ledger.leases[market.open(first)]
    market.send(market.approver, chain.redeem(view.terms, *market.approval(view, 2)))
    market.send(market.provider_of(view), claim(market, view, roots(3)))
    call = chain.challenge(view.terms, rules, to_hex(view.accepted_tip.to_bytes(20, "big")), roots(3), 4)
    market.send(market.challenger, call)
    market.check()
    assert view.dispute is not None and view.dispute.arbiter_fee == TOKEN
    market.send(devnet.accounts()[0], chain.rule(rules.arbiter, view.dispute.id, 2))
    market.send(market.matcher, chain.resolve(view.terms, rules))
    market.check()
    reward = (2 * TOKEN + 3 - TOKEN) // 5
    assert (view.exit, view.penalty, view.continuable) == (Exit.CLOSED, TOKEN + 3 - reward, True)

    second = market.with_ask(first.bid, 1, 900, 100)._replace(prev=view.terms)
    follower = market.ledger.leases[market.open(second)]
    assert (follower.terms.nums.start, follower.terms.nums.end) == (2, 7)
    assert not view.continuable
    market.check()


def test_closing_with_what_a_window_accepted(market: Market) -> None:
    """`redeem` with `last` of all that the window has accepted pays everything; the books must see it."""
    view = market.ledger.leases[market.open(market.match(0, 0))]
    market.send(market.provider_of(view), claim(market, view, roots(7)))
    pass_time(market.chain, 20)
    market.send(market.provider_of(view), market.chain.redeem(view.terms, *market.approval(view, 7, last=True)))
    market.check()


Command = Callable[[Market, random.Random], None]


def _live(market: Market, rng: random.Random, fits: Callable[[LeaseView], bool] = lambda _: True) -> LeaseView:
    """A lease; mostly one for which the command makes sense."""
    views = [view for view in market.ledger.leases.values() if view.state.phase is not Phase.NONE]
    fitting = [view for view in views if fits(view)]
    if not views:
        raise Impossible
    return rng.choice(fitting if fitting and rng.random() < 0.9 else views)


def _is_owed(market: Market) -> Callable[[LeaseView], bool]:
    now = market.chain.now()
    return lambda view: view.synced(now).accepted > view.state.settled


def _is_in(*phases: Phase) -> Callable[[LeaseView], bool]:
    return lambda view: view.state.phase in phases


class Impossible(Exception):
    """There is nothing that this command could be about."""


def _open(market: Market, rng: random.Random) -> None:
    covers = rng.choice([3, CHECKPOINTS])
    match = market.match(rng.randrange(2), rng.randrange(2), fee=rng.choice([0, 7]), covers=covers)
    market.send(market.matcher, market.chain.open_batch([market.rules], [match, match]))  # the second is skipped


def _continue(market: Market, rng: random.Random) -> None:
    closed = [view for view in market.ledger.leases.values() if view.continuable]
    if not closed:
        raise Impossible
    view = rng.choice(closed)
    bid, _ = market.bids[view.terms.parties.bid]
    match = market.with_ask(bid, rng.randrange(2), rng.randint(500, 1_003), rng.choice([2, 100]))
    market.open(match._replace(prev=view.terms))


def _claim(market: Market, rng: random.Random) -> None:
    view = _live(market, rng, _is_in(Phase.ACTIVE, Phase.CLOSING))
    new = roots(rng.randint(1, 3), rng.randrange(100))
    market.send(market.provider_of(view), claim(market, view, new))


def _claim_signed(market: Market, rng: random.Random) -> None:
    view = _live(market, rng, _is_in(Phase.ACTIVE, Phase.CLOSING))
    new = roots(rng.randint(1, 3), rng.randrange(100))
    signed = Claim(lease=view.id, n=view.state.claimed + len(new), tip=tip_after(view, new))
    signature = signed.sign(market.chain.domain, market.provider_of(view))
    market.send(market.matcher, market.chain.claim_signed(view.terms, new, signature))


def _redeem(market: Market, rng: random.Random) -> None:
    view = _live(market, rng, _is_in(Phase.ACTIVE, Phase.CLOSING))
    n = rng.randint(view.state.accepted, min(view.terms.nums.end, view.state.claimed + 2))
    last = rng.random() < 0.3
    by = rng.choice([market.provider_of(view), market.approver])
    market.send(by, market.chain.redeem(view.terms, *market.approval(view, n, last)))


def _collect(market: Market, rng: random.Random) -> None:
    market.send(market.matcher, market.chain.collect(_live(market, rng, _is_owed(market)).terms))


def _end(market: Market, rng: random.Random) -> None:
    view = _live(market, rng, _is_in(Phase.ACTIVE, Phase.CLOSING, Phase.CHALLENGED))
    by = rng.choice([market.provider_of(view), market.provider_of(view), market.client_of(view), market.matcher])
    market.send(by, market.chain.end(view.terms))


def _close(market: Market, rng: random.Random) -> None:
    market.send(market.matcher, market.chain.close(_live(market, rng, _is_in(Phase.CLOSING)).terms))


def _challenge(market: Market, rng: random.Random) -> None:
    view = _live(market, rng, lambda view: bool(view.pending))
    if not view.pending:
        raise Impossible
    k = rng.randint(view.state.accepted + 1, view.state.claimed)
    tip = to_hex(view.accepted_tip.to_bytes(20, "big"))
    market.send(market.challenger, market.chain.challenge(view.terms, market.rules, tip, view.pending, k, 1))


def _challenge_signed(market: Market, rng: random.Random) -> None:
    """A Claim that follows on what is accepted, whatever is pending."""
    view = _live(market, rng, _is_in(Phase.ACTIVE, Phase.CLOSING))
    now = market.chain.now()
    due = view.synced(now).accepted != view.state.accepted
    pending = () if due else view.pending
    accepted, tip = view.synced(now).accepted, view.accepted_tip if pending else view.state.tip
    new = roots(rng.randint(1, 3), rng.randrange(100))
    reached = tip.to_bytes(20, "big")
    for root in new:
        reached = next_tip(reached, from_hex(root))
    signed = Claim(lease=view.id, n=min(accepted + len(new), 65535), tip=to_hex(reached))
    signature = signed.sign(market.chain.domain, market.provider_of(view))
    k = accepted + rng.randint(1, len(new))
    by = rng.choice([market.challenger, market.approver, market.client_of(view)])
    start = to_hex(tip.to_bytes(20, "big"))
    market.send(
        by,
        market.chain.challenge_signed(view.terms, market.rules, start, pending, new, k, signature, rng.randint(0, 1)),
    )


def _redeem_challenged(market: Market, rng: random.Random) -> None:
    view = _live(market, rng, _is_in(Phase.CHALLENGED))
    if view.state.accepted == view.terms.nums.end:
        raise Impossible
    n = rng.randint(view.state.accepted + 1, min(view.terms.nums.end, view.state.claimed + 2))
    tip = view.state.tip.to_bytes(20, "big")
    for root in view.pending[: n - view.state.accepted]:
        tip = next_tip(tip, from_hex(root))
    approval = Approval(lease=view.id, n=n, tip=to_hex(tip), last=False)
    signature = approval.sign(market.chain.domain, market.approver)
    call = market.chain.redeem_challenged(view.terms, market.rules, approval, signature, view.pending)
    market.send(market.matcher, call)


def _rule(market: Market, rng: random.Random) -> None:
    disputed = [view.dispute for view in market.ledger.leases.values() if view.dispute]
    if not disputed:
        raise Impossible
    market.send(
        devnet.accounts()[0], market.chain.rule(market.rules.arbiter, rng.choice(disputed).id, rng.randint(1, 4))
    )


def _resolve(market: Market, rng: random.Random) -> None:
    market.send(market.matcher, market.chain.resolve(_live(market, rng, _is_in(Phase.CHALLENGED)).terms, market.rules))


def _wait(market: Market, rng: random.Random) -> None:
    pass_time(market.chain, rng.choice([5, 20, 41]))
    market.follow()


def _balance(market: Market, rng: random.Random) -> None:
    who = rng.choice(market.people)
    chain = market.chain
    call = rng.choice(
        [
            chain.withdraw(who.address, rng.randint(1, 10 * TOKEN)),
            chain.raise_page(0),  # refused
        ]
    )
    market.send(who, call)


COMMANDS: list[tuple[Command, int]] = [
    (_open, 5), (_continue, 5), (_claim, 10), (_claim_signed, 5), (_redeem, 7), (_collect, 8), (_end, 9),
    (_challenge_signed, 8), (_redeem_challenged, 4),
    (_close, 8), (_challenge, 12), (_rule, 6), (_resolve, 6), (_wait, 7), (_balance, 2),
]  # fmt: skip


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 20))])
def test_random_commands(market: Market, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    weights = [weight for _, weight in COMMANDS]
    done: dict[str, int] = {}
    while sum(done.values()) < 110:
        [(command, _)] = rng.choices(COMMANDS, weights)
        try:
            command(market, rng)
        except (EscrowError, Impossible):
            continue
        done[command.__name__] = done.get(command.__name__, 0) + 1
        if sum(done.values()) % 4 == 0:
            market.check()
    market.check()
    assert len(done) >= len(COMMANDS) - 2, done  # hardly any was refused throughout
    assert records_of_a_market(market.blocks, tmp_path) == records(market.ledger)


def records_of_a_market(blocks: list[Block], folder: Path) -> dict[str, Record]:
    """Providers' records as a market that followed these blocks has them in its tables."""
    database = Database(f"sqlite:///{folder}/market.sqlite3")
    database.upgrade()
    with database.session() as session:
        indexer.apply_steps(session, blocks)
        found = reliability.stored_records(session)
    database.close()
    return found
