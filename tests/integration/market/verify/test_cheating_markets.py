"""Markets that cheat, on a real chain, and one that does not: `gpumarket epoch verify` names what each did."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eth_account.signers.local import LocalAccount
from typer.testing import CliRunner

from contracts.api import receipts
from contracts.api.bodies import AskOut, JobOut
from contracts.chain.calls import SignedMatch
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.errors import UserError
from contracts.types import to_hex
from market.auction import clearing
from market.auction.order_book import OrderBook
from market.matching import Book, Result
from market.matching import clear as solve
from market.store.models import AskRow, BidRow
from market.verify import cli
from market.verify.verify import verify
from tests.support.devnet import TOKEN, Funded, pass_time
from tests.support.market_parts import make_ask, make_bid, signed_ask, signed_bid
from tests.support.stepped_market import Lives, lives

CHEAP, DEAR = 3_600_000_000, 5_400_000_000  # per hour: 1 and 1.5 tokens a checkpoint


@pytest.fixture
def market(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path) -> Iterator[Lives]:
    # Earlier tests have put the chain back, and its clock with it.
    if (behind := int(time.time()) - chain.now()) > 0:
        pass_time(chain, behind)
    people = funded(2) + funded(4, free=100 * TOKEN)
    url = f"sqlite:///{tmp_path}/market.sqlite3"
    with lives(chain, tmp_path, people, devnet.settings.rules["unchecked"], url) as made:
        yield made


def post_bid(market: Lives, **changes: Any) -> JobOut:
    """As a client does: it keeps the receipt."""
    fields = {"approver": market.approver_key.address, "nonce": market.nonce} | changes
    market.nonce += 1
    bid = make_bid(market.client, market.context.matcher, market.rules, market.spec, **fields)
    body = signed_bid(bid, market.chain.domain, market.client, market.spec)
    job = market.api.post_bid(body)
    receipts.keep_receipt(market.chain.domain, market.context.matcher, body, job.receipt)
    return job


def post_ask(market: Lives, provider: LocalAccount, price: int = CHEAP, **changes: Any) -> AskOut:
    ask = make_ask(provider, market.context.matcher, market.rules, price_per_hour=price, **changes)
    return market.api.post_ask(signed_ask(ask, market.chain.domain, provider))


def found(market: Lives, number: int = 1) -> list[str]:
    return [lie for one in verify(market.api, market.chain, number) for lie in one.lies]


def two_epochs(market: Lives) -> JobOut:
    """The Bid that stays in both."""
    waits = post_bid(market, max_price=900_000)
    for provider, price in zip(market.providers, (CHEAP, DEAR), strict=False):
        post_bid(market)
        post_ask(market, provider, price)
        assert market.clear() is not None
    return waits


def test_an_honest_market(market: Lives) -> None:
    """Through a life: a job that moves on, orders that rest, a provider that is left out and one that withdraws."""
    first, second = post_bid(market), post_bid(market, max_price=900_000)
    post_ask(market, market.providers[0])
    assert market.clear() is not None
    assert found(market) == []
    lease = market.lease_of(first)
    market.make(lease, 2)
    market.say(lease, "release", 2)
    market.approver.answer_releases()
    market.redeem(lease)
    post_ask(market, market.providers[1], DEAR)
    market.clear()
    following = market.lease_of(first)
    assert following.provider != lease.provider or following.id != lease.id
    checked = verify(market.api, market.chain, 2)
    assert [(one.name, one.lies, one.notes) for one in checked if one.lies or one.notes] == []
    assert {one.name: one.count for one in checked}["orders"] == 4
    assert second.id in {bid.id for bid in market.api.epoch_bids(2)}


@pytest.mark.parametrize("at", [1, 2])
def test_an_epoch_with_an_order_that_only_a_newer_program_reads(
    market: Lives, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nobody's lie, and not what it should be either. For epoch 2 the one before counts, too."""
    odd = two_epochs(market)
    assert found(market, at) == []
    request = market.api._request

    def newer(method: str, path: str, **given: Any) -> Any:
        response = request(method, path, **given)
        if path != "/v1/epochs/1/bids":
            return response
        body = response.json()
        (item,) = [one for one in body["items"] if one["id"] == odd.id]
        item["spec"]["flavour"] = "of a later version"
        return SimpleNamespace(content=json.dumps(body).encode())

    monkeypatch.setattr(market.api, "_request", newer)
    says = f"epoch {at} can't be checked: this program can't read id {odd.id} of /v1/epochs/1/bids: spec.flavour: Extra"
    with pytest.raises(UserError, match=says):
        verify(market.api, market.chain, at)


@pytest.mark.parametrize("at", [1, 2])
def test_an_epoch_with_an_order_that_its_market_can_not_read_any_more(market: Lives, at: int) -> None:
    odd = two_epochs(market)
    ask = next(iter(market.api.epoch_asks(1)))
    with market.context.db.session() as session:
        session.get_one(AskRow, ask.id).resources = {}
    with pytest.raises(UserError, match=rf"epoch {at} can't be checked: .* of epoch [12]: ask {ask.id} can't be read"):
        verify(market.api, market.chain, at)
    with market.context.db.session() as session:
        session.get_one(BidRow, odd.id).spec = {}
    with pytest.raises(UserError, match=rf"epoch {at} can't be checked: .* of epoch [12]: bid {odd.id} can't be read"):
        verify(market.api, market.chain, at)


def test_a_market_that_censors(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    unwanted, _ = post_bid(market), post_bid(market)
    post_ask(market, market.providers[0])
    look = OrderBook.look

    def without(self: OrderBook, *given: Any) -> Any:
        snapshot = look(self, *given)
        snapshot.bids.pop(unwanted.id)
        return snapshot

    monkeypatch.setattr(OrderBook, "look", without)
    market.clear()
    (lie,) = found(market)
    assert f"bid {unwanted.id} has a receipt for epoch 1, and is in force at block" in lie
    assert "but it is not in epoch 1" in lie


def test_a_market_that_forgets_an_order_of_the_epoch_before(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a receipt at hand: the data of the epoch before show it."""
    market.post_bid(max_price=900_000)
    unwanted = post_ask(market, market.providers[1], DEAR)
    market.post_bid()
    post_ask(market, market.providers[0])
    market.clear()
    market.post_bid()
    look = OrderBook.look

    def without(self: OrderBook, *given: Any) -> Any:
        snapshot = look(self, *given)
        snapshot.asks.pop(unwanted.id)
        return snapshot

    monkeypatch.setattr(OrderBook, "look", without)
    post_ask(market, market.providers[2])
    market.clear()
    (lie,) = found(market, 2)
    assert f"ask {unwanted.id} was in epoch 1, and is in force at block" in lie


Solver = Callable[..., Result]


def lie_with(monkeypatch: pytest.MonkeyPatch, how: Callable[[Book, bytes, Solver], Result]) -> None:
    """The market solves like this, and opens what comes of it."""

    def spoilt(book: Book, seed: bytes = b"", tick: int = 1, before: Any = None) -> Result:
        return how(book, seed, lambda book=book, seed=seed: solve(book, seed, tick, before))

    monkeypatch.setattr(clearing, "clear", spoilt)


def test_a_market_that_misprices(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    job, ask = post_bid(market), post_ask(market, market.providers[0])

    def dearer(book: Book, seed: bytes, honestly: Solver) -> Result:
        result = honestly()
        return replace(result, matches=tuple(replace(one, price=one.price + 7) for one in result.matches))

    lie_with(monkeypatch, dearer)
    market.clear()
    assert market.lease_of(job).price == 1_000_007
    assert found(market) == [f"bid {job.id} pays ask {ask.id} 1000007 a checkpoint; its class's price is 1000000"]


def test_a_market_that_favours_a_friend_among_equals(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    friend, other = post_bid(market), post_bid(market)
    ask = post_ask(market, market.providers[0])
    fair: list[str] = []

    def until_it_wins(book: Book, seed: bytes, honestly: Solver) -> Result:
        fair.extend(one.bid.id for one in honestly().matches)
        mine = other.id if fair == [friend.id] else friend.id
        coins = (honestly(seed=bytes([n])) for n in range(100))
        return next(result for result in coins if [one.bid.id for one in result.matches] == [mine])

    lie_with(monkeypatch, until_it_wins)
    market.clear()
    lies = [lie for one in verify(market.api, market.chain, 1, every=True) for lie in one.lies]
    (winner,) = fair[:1]
    (loser,) = {friend.id, other.id} - {winner}
    got = f"got ask {ask.id} (place 0) at"
    assert any(
        lie.startswith(f"bid {winner} got no lease; cleared again with the epoch's seed it {got}") for lie in lies
    )
    assert any(lie.startswith(f"bid {loser} {got}") for lie in lies)


def test_a_market_that_gives_the_lease_to_a_dearer_friend(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    job = post_bid(market)
    cheap, friend = post_ask(market, market.providers[0]), post_ask(market, market.providers[1], DEAR)

    def only_friends(book: Book, seed: bytes, honestly: Solver) -> Result:
        fair = honestly()
        result = honestly(replace(book, asks=tuple(ask for ask in book.asks if ask.id == friend.id)))
        return replace(result, prices={**fair.prices, **result.prices})

    lie_with(monkeypatch, only_friends)
    market.clear()
    assert market.lease_of(job).provider == market.providers[1].address
    (lie,) = found(market)
    assert job.id in lie or cheap.id in lie, lie


def test_a_market_that_publishes_another_root(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    post_bid(market), post_ask(market, market.providers[0])
    other = to_hex(bytes(31) + b"\x01")
    honest = market.chain.publish_epoch
    monkeypatch.setattr(market.chain, "publish_epoch", lambda number, root: honest(number, other))
    market.clear()
    (lie,) = found(market)
    assert f"but {other} was published in block" in lie


def test_a_market_that_tosses_another_coin(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    post_bid(market), post_ask(market, market.providers[0])
    honest = clearing.draw_coin

    def other(*given: Any) -> tuple[int, str]:
        block, _ = honest(*given)
        return block, to_hex(bytes(32))

    monkeypatch.setattr(clearing, "draw_coin", other)
    market.clear()
    (lie,) = found(market)
    assert f"epoch 1 was cleared with the seed {to_hex(bytes(32))} of block" in lie


def test_a_market_that_opens_what_was_not_matched(market: Lives) -> None:
    loser, winner = post_bid(market, max_price=1_100_000), post_bid(market)
    ask = post_ask(market, market.providers[0])
    market.clear()
    assert market.lease_of(winner).provider == ask.ask.provider
    other = make_ask(market.providers[1], market.context.matcher, market.rules)
    signed = signed_ask(other, market.chain.domain, market.providers[1])
    pair = SignedMatch(loser.bid, other, 1_100_000, loser.signature, signed.signature)
    market.context.sending.send(market.chain.open(market.rules, pair))
    (lie,) = found(market)
    assert f"(bid {loser.id}, ask {other.digest(market.chain.domain)}, 1100000 a checkpoint) was opened after" in lie
    assert "but is no match of it" in lie


def test_the_command(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    post_bid(market), post_ask(market, market.providers[0])
    market.clear()
    monkeypatch.setattr(cli, "MarketClient", lambda url: market.api)
    monkeypatch.setattr(type(market.api), "close", lambda self: None)
    given = ["--url", "http://market.test"]

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli.app, [*arguments, *given], catch_exceptions=False)

    assert run("verify", "1").stdout.endswith("Epoch 1 is what it should be.\n")
    assert "cleared" in run("list").stdout
    assert run("show", "1").exit_code == 0
    told = run("verify", "1", "-o", "json").stdout  # the market, which logs to stdout, is in this process
    assert json.loads(told[told.index("{\n") :])["holds"] is True
    with pytest.raises(UserError, match="there is no epoch 7"):
        run("verify", "7")
    with pytest.raises(UserError, match="there is no epoch 7"):
        run("show", "7")
    honest = market.api.epoch
    monkeypatch.setattr(
        market.api, "epoch", lambda number: honest(number).model_copy(update={"seed": to_hex(bytes(32))})
    )
    spoilt = run("verify", "1")
    assert (spoilt.exit_code, "was cleared with the seed" in spoilt.stdout) == (1, True)
