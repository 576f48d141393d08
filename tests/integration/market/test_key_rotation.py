"""The matcher's key is replaced: what the old one has opened goes on, what names it waits for its client."""

from contracts.chain.sending.sender import Sender
from market.auction.clearing import Clearing
from market.chain import keeper
from market.store.models import AskRow
from tests.support.devnet import TOKEN, Funded, pass_time
from tests.support.market_parts import make_ask, signed_ask
from tests.support.served_market import Stage
from tests.support.stepped_market import clear


def test_a_market_with_a_new_key(stage: Stage, funded: Funded) -> None:
    (new,), (other,) = funded(1), funded(1, free=100 * TOKEN)
    running, waiting = stage.api.post_bid(stage.bid()), stage.api.post_bid(stage.bid(nonce=1))
    lease = stage.open(running, stage.api.post_ask(stage.ask()))

    stage.context.matcher, stage.context.sender = new.address, Sender(stage.chain, new)
    stage.sender = stage.context.sender
    clearing = Clearing(stage.context)
    assert clear(clearing) is None
    assert "former key" in stage.api.job(waiting.id).reason

    # It is not in the way of those that name the new key, nor is the old Ask, which is cheaper.
    stage.api.post_ask(signed_ask(make_ask(other, new.address, stage.rules), stage.domain, other))
    mine = stage.api.post_bid(stage.bid(nonce=2))
    assert stage.count(AskRow) == 2
    assert clear(clearing) is not None
    stage.followed()
    (opened,) = stage.api.job(mine.id).leases
    assert opened.provider == other.address

    # The old lease: its provider is silent, and the new key takes the exits that anybody may take.
    pass_time(stage.chain, stage.rules.checkpoint_timeout + 1)
    stage.followed()
    keeper.keep_leases(stage.context)
    pass_time(stage.chain, stage.rules.window + 1)
    stage.followed()
    keeper.keep_leases(stage.context)
    stage.followed()
    assert stage.api.lease(lease.id).finished == "closed"
    clear(clearing)
    assert "former key" in stage.api.job(running.id).reason
