"""What replays are paid from: filled up by the matcher, every token accounted for; while it is short nothing audited
is opened, and that is no lie.
"""

import threading
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from contracts.api.info import RuleSet
from contracts.api.quotes import QuoteIn
from contracts.audits.levels import OPEN
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from market.chain.replay_reserve import TopUp, is_short, keep_reserve, run_replay_reserve, top_up
from market.maintenance.remaining import paid_in
from market.verify.verify import verify
from tests.support.devnet import TOKEN
from tests.support.market_parts import TELLS_CLASS
from tests.support.stepped_market import Lives, differences

pytestmark = pytest.mark.mostly_sqlite


def test_how_much_is_due() -> None:
    assert top_up(100, 150, 1_000, 0) == TopUp()
    assert top_up(100, 149, 1_000, 0) == TopUp(0, 51, 0)
    assert top_up(100, 20, 100, 500) == TopUp(80, 180, 0)
    assert top_up(100, 20, 30, 10) == TopUp(10, 40, 40)  # all there is, and it is not enough
    assert top_up(100, 20, 5, 5) == TopUp(0, 0, 80)  # a drop
    assert top_up(100, 95, 5, 5) == TopUp(5, 10, 0)  # that makes it enough


def test_without_a_reserve_the_market_goes_on(market: Lives) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=run_replay_reserve, args=(market.context, stop))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()  # a market ends with any of its threads
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def audited(market: Lives, reserve: int | None) -> None:
    """The market, under audited rules, with such a reserve; its matcher has no tokens yet."""
    context, chain = market.context, market.chain
    context.sending.send(chain.transfer(market.client.address, chain.token_balance(context.matcher)))
    market.rules = market.rules.model_copy(update={"verification": OPEN.hash()})
    rule_set = RuleSet(name="open", hash=market.rules.struct_hash(), rules=market.rules, verification=OPEN)
    context.rules["open"] = context.rules_by_hash[rule_set.hash] = rule_set
    context.settings = context.settings.model_copy(
        update={"replay_reserve": reserve, "recommended_approver": market.approver_key.address}
    )


def fund(market: Lives, amount: int) -> None:
    """The matcher's key gets tokens, from a client."""
    client, chain = Sender(market.chain, market.client), market.chain
    client.send(chain.withdraw(market.context.matcher, amount))
    market.follow()


def held(market: Lives) -> tuple[int, int, int]:
    """The matcher's own, what it has in the escrow, and what the approver has there."""
    chain, matcher = market.chain, market.context.matcher
    return chain.token_balance(matcher), chain.account(matcher).free, chain.account(market.approver_key.address).free


def test_it_is_filled_from_fees_and_tokens_and_the_books_agree(market: Lives) -> None:
    audited(market, 3 * TOKEN)
    own, _, before = held(market)
    fund(market, 2 * TOKEN)
    Sender(market.chain, market.client).send(market.chain.withdraw(market.client.address, 5 * TOKEN))
    allow_and_pay_fees(market, 5 * TOKEN)
    assert held(market) == (own + 2 * TOKEN, 5 * TOKEN, before)
    done = keep_reserve(market.context)
    market.follow()
    due = 6 * TOKEN - before
    assert done == TopUp(due - own - 2 * TOKEN, due, 0)
    assert held(market) == (0, 5 * TOKEN - done.withdraw, 6 * TOKEN)
    assert keep_reserve(market.context) == TopUp()  # and no transaction
    with market.context.db.reading() as session:
        assert paid_in(session, market.approver_key.address, market.context.matcher) == due
    assert not market.context.reserve_short and not is_short(market.context)
    assert differences(market) == []


def allow_and_pay_fees(market: Lives, amount: int) -> None:
    """As fees of leases come to the matcher's account in the escrow."""
    client = Sender(market.chain, market.client)
    client.send(market.chain.approve(amount))
    client.send(market.chain.deposit(market.context.matcher, amount))
    market.follow()


def test_while_it_is_short_nothing_audited_is_opened_and_that_is_told(market: Lives) -> None:
    audited(market, 1_000 * TOKEN)
    with capture_logs() as logs:
        assert keep_reserve(market.context).missing > 0
    market.follow()
    assert [one["log_level"] for one in logs if one["event"] == "replay_reserve.short"] == ["error"]
    job = market.post_bid(stake=40 * TOKEN)
    market.post_ask(market.providers[0], TELLS_CLASS, price_per_hour=1_000_000)
    epoch = market.clear()
    waits = market.api.job(job.id)
    assert waits.leases == [] and "nothing to pay replays" in waits.reason
    quoted = market.api.quote(QuoteIn(client=market.client.address, spec=market.spec, units=1_000_000, rules="open"))
    assert any("nothing to pay replays" in warning for warning in quoted.warnings)
    if epoch is not None:
        checked = verify(market.api, market.chain, epoch.number)
        assert [lie for one in checked for lie in one.lies] == []

    # A client that is its own approver pays itself.
    own = market.post_bid(approver=market.client.address, stake=40 * TOKEN)
    epoch = market.clear()
    assert epoch is not None and market.lease_of(own).provider == market.providers[0].address
    checked = verify(market.api, market.chain, epoch.number)
    assert [lie for one in checked for lie in one.lies] == []
    notes = [note for one in checked for note in one.notes]
    assert any(job.id in note and "reserve" in note and "free in the escrow" in note for note in notes)

    market.context.settings = market.context.settings.model_copy(update={"replay_reserve": None})
    market.context.reserve_short = False
    market.post_ask(market.providers[1], TELLS_CLASS, price_per_hour=1_000_000)
    assert market.clear() is not None and len(market.api.job(job.id).leases) == 1


def test_a_reserve_without_an_approver_is_an_error(market: Lives) -> None:
    audited(market, 3 * TOKEN)
    context = market.context
    context.settings = context.settings.model_copy(update={"recommended_approver": context.matcher})
    with pytest.raises(UserError, match="its matcher as approver"):
        keep_reserve(replace(context))
