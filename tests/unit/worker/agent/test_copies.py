"""What shows that another agent works with a key: what it has signed, and nothing that a market or client makes."""

import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from contracts.api.client import MarketClient
from contracts.api.problems import Code, Problem
from contracts.orders import Approval, Ask, Claim
from tests.support.worker_leases import APPROVER, CLIENT, DOMAIN, OFFER, PROVIDER, make_folder, make_spec, sign
from worker.agent.copies import CopyWatch, PostedAsks
from worker.lease.folder import LeaseFolder, Store

NOW = 1_900_000_000.0
TIP = "0x" + "ab" * 20


def ask_of(nonce: int, *, page: int = 0, received: float = NOW, valid_until: float = 2e9, by: Any = PROVIDER) -> Any:
    ask = Ask(
        provider=PROVIDER.address, matcher=CLIENT.address, resources="0x" + "00" * 32, rules="0x" + "00" * 32,
        price_per_hour=nonce, units_per_hour=1, max_stake=1, max_active=1, max_checkpoints=1, valid_from=0,
        valid_until=int(valid_until), page=page,
    )  # fmt: skip
    id, at = ask.digest(DOMAIN), datetime.fromtimestamp(received, UTC)
    return SimpleNamespace(id=id, ask=ask, signature=sign(by, ask), received=at)


class World:
    """Chain, sender and market of one key; the market shows what it is told to."""

    domain, address = DOMAIN, PROVIDER.address

    def __init__(self) -> None:
        self.page, self.clock = 0, NOW
        self.shown, self.claims = list[Any](), list[Any]()
        self.approval: Any = None
        self.reported = 0

    def account(self, address: str) -> Any:
        return SimpleNamespace(page=self.page)

    def raise_page(self, page: int) -> int:
        return page

    def has_sent(self, page: int) -> bool:
        return False

    def asks(self, *, provider: str, status: str) -> Any:
        return iter(self.shown)

    def ask(self, id: str) -> Any:
        for one in self.shown:
            if one.id == id:
                return one
        raise Problem(404, Code.NOT_FOUND, f"there is no Ask {id}")

    def lease(self, id: str) -> Any:
        return SimpleNamespace(approval=self.approval, reported=self.reported)

    def checkpoints(self, job: str) -> Any:
        return iter(self.claims)

    pending_progress = checkpoints

    def claims_to(self, folder: LeaseFolder, n: int, by: Any = PROVIDER, lease: str | None = None) -> None:
        claim = Claim(lease=lease or folder.lease, n=n, tip=TIP)
        self.reported = n
        self.claims.append(SimpleNamespace(lease=folder.lease, claim=claim, signature=sign(by, claim)))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("GPUMARKET_HOME", str(tmp_path))
    return World()


def watch_of(world: World) -> tuple[CopyWatch, PostedAsks]:
    posted, there = PostedAsks(Store("rig")), cast(Any, world)
    return CopyWatch(there, there, there, posted, OFFER.poll_seconds, lambda: None), posted


def test_an_approval_above_what_is_made_shows_nothing(world: World) -> None:
    """A client that approves for itself redeems one for a tip of its own, and shows another."""
    folder, (watch, _) = make_folder(make_spec()), watch_of(world)
    watch.leases = {folder.lease: folder}
    watch._look()
    for n, last in ((1, False), (1, True), (5, True)):
        approval = Approval(lease=folder.lease, n=n, tip=TIP, last=last)
        world.approval = SimpleNamespace(approval=approval, signature=sign(APPROVER, approval))
        world.reported = n
        watch._look()
    world.claims_to(folder, 5, by=APPROVER)
    world.claims_to(folder, 5, lease="0x" + "77" * 32)
    watch._look()
    assert watch.evidence is None and not watch.left


def test_a_claim_of_this_key_that_was_not_made_here_does(world: World) -> None:
    folder, (watch, _) = make_folder(make_spec()), watch_of(world)
    watch.leases = {folder.lease: folder}
    watch._look()
    world.claims_to(folder, 1)
    watch._look()
    assert watch.evidence and watch.left == {folder.lease}


def test_what_was_made_here_is_no_sign_when_its_files_are_lost(world: World) -> None:
    folder, (watch, _) = make_folder(make_spec()), watch_of(world)
    watch.leases = {folder.lease: folder}
    watch._look()
    folder.update(made=2)
    watch._look()
    world.claims_to(folder, 2)
    folder.step_back(1)
    watch._look()
    assert watch.evidence is None


@pytest.mark.parametrize("fake", ["unsigned", "other id", "old page", "posted here"])
def test_an_ask_that_shows_nothing(world: World, fake: str) -> None:
    watch, posted = watch_of(world)
    watch._look()
    ask = ask_of(1, received=NOW + 1000, by=CLIENT if fake == "unsigned" else PROVIDER)
    if fake == "other id":
        ask.id = "0x" + "12" * 32
    if fake == "old page":
        world.page = 1
        watch._page = 1
    if fake == "posted here":
        posted.note(ask.id, ask.ask.valid_until)
    world.shown = [ask]
    watch._look()
    assert watch.evidence is None
    if fake != "old page":  # under which a lease may have been opened before the page was raised
        assert watch.is_ours(ask.id)


def test_an_ask_that_this_key_has_signed_elsewhere_shows_it(world: World) -> None:
    watch, _ = watch_of(world)
    watch._look()
    world.shown = [ask_of(1, received=NOW + 1)]
    assert not watch.is_ours(world.shown[0].id)
    watch._look()
    assert watch.evidence and "was not posted from here" in watch.evidence


@pytest.mark.parametrize("ahead", [-230.0, 0.0, 230.0])
def test_the_agents_own_ask_of_before_an_upgrade_is_none(world: World, ahead: float) -> None:
    """Its id was not kept then. The market's clock may differ from this machine's."""
    world.clock = time.time() + ahead
    world.shown = [ask_of(1, received=world.clock - 5)]
    before = ask_of(2, received=world.clock - 60)  # it has ended, and a lease comes that was opened under it
    watch, _ = watch_of(world)
    for _ in range(2):
        watch._look()
        assert watch.evidence is None
    watch, _ = watch_of(world)  # after a restart
    watch._look()
    assert watch.evidence is None and watch.is_ours(world.shown[0].id)
    world.shown.append(before)
    assert watch.is_ours(before.id)


def test_a_lease_under_an_ask_that_the_market_does_not_know_is_taken_up(world: World) -> None:
    watch, _ = watch_of(world)
    watch._look()
    assert watch.is_ours("0x" + "34" * 32)


def test_the_agent_goes_on_when_the_other_ones_ask_is_out_of_force(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, _ = watch_of(world)
    watch._look()
    ends = time.time() + 3600
    world.shown = [ask_of(1, received=NOW + 1, valid_until=ends)]
    watch._look()
    world.shown = []
    watch._look()
    assert watch.evidence  # this agent has raised the page, and so ended it: the other one may work all the same
    monkeypatch.setattr(time, "time", lambda: ends + 1)
    watch._look()
    assert watch.evidence is None
    world.page = 7  # by whom?
    watch._look()
    monkeypatch.setattr(time, "time", lambda: ends + 10**6)
    watch._look()
    assert watch.evidence


def test_its_client_is_closed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    market = MarketClient("http://127.0.0.1:1", attempts=1)
    watch = CopyWatch(market, None, None, None, 0.2, lambda: None)  # type: ignore[arg-type]
    monkeypatch.setattr(watch, "_look", watch.close)
    watch.start()
    watch.join(30)
    with pytest.raises(RuntimeError, match="closed"):
        market.info()
