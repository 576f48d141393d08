"""What approvers' rulings leave out of an epoch, by honest markets and by others: who was approved unaudited twice,
while nobody else could audit it; and a job whose honest runs differ.
"""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.api.auditing.notes import RulingContent, signed_note
from contracts.api.bodies import AskResources, LeaseOut
from contracts.api.epochs import EpochHeader
from contracts.audits.levels import OPEN
from contracts.chain.client import Chain
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.sending.sender import Sender
from market.auction import order_book
from market.verify import rulings
from market.verify.verify import verify
from tests.support.devnet import TOKEN, Funded, pass_time
from tests.support.market_parts import TELLS_CLASS
from tests.support.stepped_market import Lives

OTHERS = TELLS_CLASS.model_copy(update={"numerics": "0x" + "77" * 32})
CHEAP, DEAR = 3_600_000_000, 3_700_000_000  # per hour


class Market(Lives):
    """The first provider has a lease; what is said of it comes as a test says it."""

    ask: str  # its

    def offer(self, number: int, resources: AskResources = TELLS_CLASS, price: int = DEAR) -> None:
        self.post_ask(self.providers[number], resources, price_per_hour=price, max_active=4)

    def begin(self) -> LeaseOut:
        self.offer(0, price=CHEAP)
        job = self.post_bid()
        assert self.clear() is not None
        (self.ask,) = [one.id for one in self.api.asks()]
        return self.lease_of(job)

    def rule(self, lease: LeaseOut, n: int, ruling: Any) -> None:
        content = RulingContent(n=n, ruling=ruling)
        note = signed_note(lease.id, content, int(time.time()), self.chain.domain, self.approver_key)
        self.api.post_audit_note(note)

    def begin_unaudited(self) -> LeaseOut:
        lease = self.begin()
        for n in (1, 2):
            self.rule(lease, n, "unaudited")
        return lease

    def next_lease(self) -> tuple[str, EpochHeader]:
        """Who gets the next one, and the header of its epoch."""
        job = self.post_bid()
        epoch = self.clear()
        assert epoch is not None
        header = self.api.epoch(epoch.number).header
        assert header is not None
        return self.lease_of(job).provider, header

    def leave(self, number: int) -> None:
        Sender(self.chain, self.providers[number]).send(self.chain.raise_page(1))
        self.follow()

    def found(self) -> list[str]:
        """Lies in the newest epoch."""
        newest = next(iter(self.api.epochs())).number
        return [lie for one in verify(self.api, self.chain, newest, every=True) for lie in one.lies]


@pytest.fixture
def market(chain: Chain, devnet: Devnet, funded: Funded, tmp_path: Path) -> Iterator[Market]:
    if (behind := int(time.time()) - chain.now()) > 0:  # earlier tests have put the chain's clock back
        pass_time(chain, behind)
    people = funded(2) + funded(5, free=200 * TOKEN)
    rules = devnet.settings.rules["open"].model_copy(update={"verification": OPEN.hash()})
    made = Market(chain, tmp_path, people, rules, f"sqlite:///{tmp_path}/market.sqlite3", OPEN)
    yield made
    made.context.db.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks of the market's processes are one: what came a moment ago has come."""
    monkeypatch.setattr(rulings, "CLOCKS_DIFFER", timedelta(0))


def test_an_honest_market(market: Market, at_once: None) -> None:
    lease = market.begin()
    first = market.providers[0].address
    market.rule(lease, 1, "unaudited")
    market.offer(1, OTHERS)
    provider, header = market.next_lease()
    assert (provider, header.left_out) == (first, [])  # once is not twice
    market.rule(lease, 2, "unaudited")
    provider, header = market.next_lease()
    assert provider == market.providers[1].address
    assert [(one.order, one.reason) for one in header.left_out] == [(market.ask, "unaudited")]
    assert [(one.note.lease, one.content.n) for one in header.unaudited] == [(lease.id, 1), (lease.id, 2)]
    assert market.found() == []

    market.offer(2)  # somebody of its class: an audit can be had
    provider, header = market.next_lease()
    assert (provider, header.left_out, header.unaudited) == (first, [], [])
    assert market.found() == []
    market.leave(2)
    provider, header = market.next_lease()
    assert provider == market.providers[1].address and market.found() == []

    market.rule(lease, 3, "good")  # it was had
    provider, header = market.next_lease()
    assert (provider, header.left_out) == (first, [])
    assert market.found() == []


def test_a_market_that_spares_a_friend(market: Market, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    market.begin_unaudited()
    monkeypatch.setattr(order_book, "unaudited_work", lambda *_: {})
    provider, _ = market.next_lease()
    assert provider == market.providers[0].address
    (lie,) = market.found()
    assert f"ask {market.ask} is in epoch 2, though 2 checkpoints of its provider {provider} were approved" in lie


def test_a_market_that_leaves_out_whom_somebody_could_audit(
    market: Market, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.begin_unaudited()
    market.offer(2)
    monkeypatch.setattr(order_book, "alone", lambda offered: {one.id for one in offered})
    provider, _ = market.next_lease()
    assert provider == market.providers[2].address
    (lie,) = market.found()
    assert f"ask {market.ask} was left out of epoch 2 as 'unaudited', but ask" in lie
    assert "of the same class is in the epoch: its provider could audit it" in lie


def test_a_market_that_forgets_that_an_audit_was_had(
    market: Market, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = market.begin_unaudited()
    before = order_book.unaudited_work

    def without_good(*given: Any) -> Any:
        return shown

    with market.context.db.reading() as session:
        shown = before(session, {lease.provider}, {market.rules.struct_hash()})
    assert shown.keys() == {lease.provider}
    market.rule(lease, 3, "good")
    monkeypatch.setattr(order_book, "unaudited_work", without_good)
    market.offer(1, OTHERS)
    provider, _ = market.next_lease()
    assert provider == market.providers[1].address
    (lie,) = market.found()
    assert f"ask {market.ask} was left out of epoch 2 as 'unaudited', but by the rulings that had come" in lie


def test_a_market_that_shows_no_ruling_or_a_forged_one(
    market: Market, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = market.begin()
    market.rule(lease, 1, "unaudited")
    content = RulingContent(n=2, ruling="unaudited")
    forged = signed_note(lease.id, content, 1, market.chain.domain, market.client)
    market.offer(1, OTHERS)
    monkeypatch.setattr(order_book, "unaudited_work", lambda *_: {lease.provider: [forged]})
    market.next_lease()
    said, left = market.found()
    assert f"the ruling on lease {lease.id} in the header of epoch 2 is not signed by" in said
    assert "but the header has 1 rulings on its provider's work that show it, not 2" in left


def given_up(market: Market, lease: LeaseOut) -> None:
    """Its provider gives it back, unpaid, and the window passes."""
    Sender(market.chain, market.providers[0]).send(market.chain.end(market.terms(lease)))
    market.pass_time(market.rules.window + 1)
    market.keep()
    assert market.lease_of(market.api.job(lease.job)).finished == "closed"


def test_a_job_that_differs_from_itself_ends(market: Market, at_once: None) -> None:
    lease = market.begin()
    market.rule(lease, 2, "unreproducible")
    market.rule(lease, 1, "unreproducible")
    assert market.api.job(lease.job).status == "running"
    given_up(market, lease)
    market.offer(1)
    _, header = market.next_lease()
    assert [(one.order, one.reason) for one in header.left_out] == [(lease.job, "unreproducible")]
    assert [(one.note.lease, one.content.n) for one in header.unreproducible] == [(lease.id, 2)]  # what came first
    job = market.api.job(lease.job)
    assert (job.status, job.accepted) == ("failed", 0)
    assert "training it again comes to something else each time" in job.reason
    assert market.found() == []


def test_a_job_that_goes_on_unaudited(market: Market, at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = market.begin()
    market.rule(lease, 1, "unreproducible")
    given_up(market, lease)
    monkeypatch.setattr(type(market.context), "ending_rules", set())  # as of rules that say so
    market.offer(1)
    _, header = market.next_lease()
    assert header.left_out == [] and len(market.api.job(lease.job).leases) == 2
    assert market.found() == []


@pytest.mark.parametrize("shown", ["nothing", "forged"])
def test_a_market_that_ends_a_job_without_a_ruling(
    market: Market, at_once: None, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    lease = market.begin()
    given_up(market, lease)
    content = RulingContent(n=1, ruling="unreproducible")
    forged = signed_note(lease.id, content, 1, market.chain.domain, market.client)
    note = None if shown == "nothing" else forged
    monkeypatch.setattr(order_book, "unreproducible_jobs", lambda *_: {lease.job: note})
    market.offer(1)
    market.next_lease()
    (lie,) = market.found()
    assert {
        "nothing": f"bid {lease.job} was left out of epoch 2 as 'unreproducible', but the header has no ruling",
        "forged": f"the ruling on lease {lease.id} in the header of epoch 2 is not signed by",
    }[shown] in lie
