"""Those who would rather have the approver's bond, or be paid for nothing, than train."""

import pytest
import structlog

from contracts.api.auditing.notes import BatchContent, RulingContent
from contracts.api.problems import Problem
from contracts.audits.replays import replay_of
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.sending.sender import Sender
from contracts.terms import Phase
from market.approver.auditing.disputes import WITHHELD, WRONG
from tests.support.audited_market import LIE, NUMERICS, Audited
from tests.support.devnet import TOKEN, rpc
from tests.support.market_parts import TELLS_CLASS, make_ask, signed_ask
from tests.support.whole_market import wait_for

pytestmark = pytest.mark.mostly_sqlite


@pytest.fixture
def market(audited: Audited) -> Audited:
    return audited


def test_what_the_arbiter_finds_true_is_not_challenged_again(market: Audited, devnet: Devnet) -> None:
    """Three auditors of one owner lie about an honest provider: the approver pays for one mistake, and not each time
    that the claim is pending again; the provider is approved.
    """
    lease = market.begin(1, 2, 3)
    market.look()
    (honest,) = market.claim(lease, {})
    market.say(lease, "release", 1)
    for _ in range(9):
        market.look()
        market.answer_all(honest, **LIE)
    assert market.state(lease).phase is Phase.CHALLENGED
    market.ruled(devnet.operator, lease, 1)
    market.claim_on_chain(lease, honest)
    for _ in range(4):
        market.look()
    assert market.grounds(lease) == [WRONG]
    approval = market.api.lease(lease.id).approval
    assert approval is not None and (approval.approval.n, approval.approval.tip) == (1, honest.tip)
    with structlog.testing.capture_logs() as logs:
        market.look()
    assert [line for line in logs if line["log_level"] in ("warning", "error")] == []


def test_a_lease_ends_whose_claims_are_built_on_a_rejected_one(market: Audited) -> None:
    """They are never taken, so nobody waits for them."""
    lease = market.begin()
    market.look()
    first = market.report(lease, 1, lease.state.tip, numerics={**NUMERICS, "torch": "2.13.0+mine"})
    market.report(lease, 2, first.tip)
    market.say(lease, "release", 1)
    for _ in range(2):
        market.look()
    (rejected, waiting) = sorted(market.api.checkpoints(lease.job), key=lambda one: one.claim.n)
    assert rejected.status == "rejected" and "it was made in the numerics class" in (rejected.reason or "")
    assert waiting.status == "reported"
    approval = market.api.lease(lease.id).approval
    assert approval is not None and (approval.approval.n, approval.approval.last) == (0, True)


def test_an_auditor_that_shows_nothing_is_not_paid_by_silence(market: Audited) -> None:
    lease = market.begin(1)
    market.look()
    market.claim(lease, {})
    market.say(lease, "release", 1)
    for _ in range(4):
        market.look()
    (replay,) = market.replays()
    lazy = market.lease_of(replay)
    market.claim_on_chain(lazy, market.record(lazy, 1, lazy.state.tip, **LIE))
    market.look()
    assert market.state(lazy).phase is Phase.ACTIVE
    market.pass_time(market.rules.window // 2 + 5)
    market.look()
    assert market.state(lazy).phase is Phase.CHALLENGED
    assert market.grounds(lazy) == [WITHHELD]


def test_a_replay_in_another_class_than_was_asked_for(market: Audited) -> None:
    """It says nothing of the claim, and is not paid for saying nothing."""
    lease = market.begin(1)
    market.look()
    (honest,) = market.claim(lease, {})
    market.say(lease, "release", 1)
    for _ in range(4):
        market.look()
    (replay,) = market.replays()
    mute = market.lease_of(replay)
    market.answer(replay, honest, numerics=NUMERICS | {"torch": "0.1"})
    market.look()
    rejection = market.api.lease(mute.id).rejection
    assert rejection is not None and "numerics class" in rejection.rejection.reason


def test_a_bond_that_is_short_tells_the_liar_nothing(market: Audited) -> None:
    """Else it would put honest work in the place of the lie, which the arbiter then could not look at."""
    lease = market.begin(1, 2, 3)
    market.look()
    (lie,) = market.claim(lease, LIE)
    market.say(lease, "release", 1)
    for _ in range(6):
        market.look()
        market.answer_all(lie, trace_root="0x" + "77" * 32)
        running = [job for job in market.replays() if job.reported]
        if len(running) == 3:
            break
    sender = Sender(market.chain, market.approver_key)
    free = market.chain.account(sender.address).free
    sender.send(market.chain.withdraw(sender.address, free))
    for _ in range(2):
        market.look()
    assert market.state(lease).phase is Phase.ACTIVE
    assert market.api.lease(lease.id).rejection is None
    with pytest.raises(Problem, match="which binds"):
        market.report(lease, 1, lease.state.tip)
    sender.send(market.chain.approve(free))
    sender.send(market.chain.deposit(sender.address, free))
    for _ in range(2):
        market.look()
    assert market.state(lease).phase is Phase.CHALLENGED
    assert market.api.lease(lease.id).rejection is not None


def test_an_approver_that_was_away_goes_on_where_the_chain_is(market: Audited) -> None:
    lease = market.begin()
    market.look()
    first, second = market.claim(lease, {}, {})
    market.claim_on_chain(lease, first, second)
    market.pass_time(market.rules.window + 5)
    market.report(lease, 3, second.tip)
    market.say(lease, "release", 3)
    patient = market.new_approver(nobody_seconds=0)
    for _ in range(4):
        market.look(patient)
    approval = market.api.lease(lease.id).approval
    assert approval is not None and (approval.approval.n, approval.approval.last) == (3, True)


def test_a_stake_that_nobody_has_weighs_nothing_in_the_draw(market: Audited) -> None:
    """An Ask may name any, while its provider has a lease."""
    lease = market.begin()
    market.offer(market.providers[1])
    market.post_bid()
    assert market.clear() is not None  # the second one works, too
    ask = make_ask(  # cheaper than its other one: of a machine's Asks the cheapest is on offer
        market.providers[1], market.context.matcher, market.rules, TELLS_CLASS, max_stake=10**9 * TOKEN, max_active=9,
        price_per_hour=3_500_000_000,
    )  # fmt: skip
    market.api.post_ask(signed_ask(ask, market.chain.domain, market.providers[1], TELLS_CLASS))
    market.offer(market.providers[2])
    (claim,) = market.claim(lease, {})
    approver = market.new_approver()
    market.look(approver)
    audit = approver._auditing.of(approver._signing.lease(lease.id))
    assert audit is not None
    spec = replay_of(lease.spec, 1, claim.numerics, market.approver_key.address)
    both = {market.providers[1].address, market.providers[2].address}

    def stakes() -> dict[str, int]:
        offers = approver._acting._bids._offers(audit, spec, lease.bid.start_tip, 10**12, market.api.info())
        return {one.offer.provider: one.offer.stake for one in offers if one.is_free}

    wait_for("both to be on offer", lambda: stakes().keys() == both)  # a market looks at its offers now and then
    assert max(stakes().values()) <= 100 * TOKEN


def test_one_action_that_fails_holds_up_no_other(market: Audited) -> None:
    """An approver without gas money can't challenge: auditors have their word all the same, and so has the public."""
    lease = market.begin(1, 2, 3, 4)
    market.look()
    first, lie = market.claim(lease, {}, LIE)
    truth = lie.model_copy(update={"trace_root": "0x" + "77" * 32})
    rpc(market.chain, "anvil_setBalance", market.approver_key.address, "0x0")
    for _ in range(8):
        market.look()
        market.answer_all(first, truth)
    assert market.state(lease).phase is Phase.ACTIVE
    assert {one.ruling for one in market.contents(lease.job, RulingContent)} == {"good", "false"}
    assert [market.api.job(job.id).approved for job in market.replays()] == [1, 1, 1, 1]


def test_who_asks_for_half_of_what_others_do_is_replayed_by_them(market: Audited) -> None:
    """What a replay may cost goes by what the job offers, not by the price of who is audited."""
    market.offer(market.providers[0], price_per_hour=1_800_000_000)
    job = market.post_bid()
    assert market.clear() is not None
    market.offer(market.providers[1])
    lease = market.lease_of(job)
    market.look()
    market.claim(lease, {})
    market.say(lease, "release", 1)
    for _ in range(4):
        market.look()
    (replay,) = market.replays()
    assert replay.leases[0].provider == market.providers[1].address
    assert replay.leases[0].price > lease.price * 5 // 4


def test_a_replay_costs_no_more_than_the_operator_says(market: Audited) -> None:
    """A client that owns an auditor offers what it likes: it pays its own provider, and the approver the other."""
    market.offer(market.providers[0])
    job = market.post_bid(max_price=50 * TOKEN, stake=25 * TOKEN)
    market.clear()
    lease = market.lease_of(job)
    market.offer(market.providers[1], price_per_hour=3_600_000_000 * 40)
    market.look()
    (claim,) = market.claim(lease, {})
    market.say(lease, "release", 1)
    careful = market.new_approver(replay_price_most=2 * TOKEN)
    for _ in range(4):
        market.look(careful)
    assert list(market.api.jobs(client=market.approver_key.address)) == []
    market.offer(market.providers[2])
    wait_for("the offers to be looked at", lambda: market.look(careful) or bool(market.replays()))
    (replay,) = market.replays()
    assert replay.leases[0].provider == market.providers[2].address
    assert replay.bid.max_price == 2 * TOKEN + replay.bid.fee
    market.answer(replay, claim)
    for _ in range(3):
        market.look(careful)
    assert [one.ruling for one in market.contents(job.id, RulingContent)] == ["good"]


@pytest.mark.parametrize("max_price", [2, 20])
def test_a_generous_job_is_audited_as_any_other(market: Audited, max_price: int) -> None:
    """What it offers bounds a replay's price, and is not what there must be to pay one."""
    market.offer(market.providers[0])
    job = market.post_bid(max_price=max_price * TOKEN, stake=25 * TOKEN)
    market.clear()
    lease = market.lease_of(job)
    market.offer(market.providers[1])
    sender = Sender(market.chain, market.approver_key)
    sender.send(market.chain.withdraw(sender.address, market.chain.account(sender.address).free - 20 * TOKEN))
    market.follow()
    market.look()
    market.claim(lease, LIE)
    market.say(lease, "release", 1)
    hasty = market.new_approver(nobody_seconds=0)
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            market.look(hasty)
    assert [line for line in logs if line["event"] == "approver.alarm"] == []
    assert len(market.replays()) == 1


def test_where_all_work_one_of_them_is_drawn(market: Audited) -> None:
    """Else jobs that wait would have each machine that is free, before it could be asked."""
    market.offer(market.providers[0])
    audited = market.post_bid()
    market.clear()
    lease = market.lease_of(audited)
    market.offer(market.providers[1])
    other = market.post_bid()
    market.clear()
    busy = market.lease_of(other)
    assert busy.provider == market.providers[1].address
    market.look()
    (first,) = market.claim(lease, {})
    market.say(lease, "release", 1)
    hasty = market.new_approver(nobody_seconds=0)
    for _ in range(4):
        market.look(hasty)
    assert market.contents(audited.id, RulingContent) == []
    (waiting,) = market.api.jobs(client=market.approver_key.address)
    assert (waiting.status, waiting.leases) == ("pending", [])
    queued = market.post_bid()
    market.say(busy, "release", 0)
    market.new_approver().answer_releases()
    market.new_approver().audit()
    market.redeem(market.lease_of(other))
    market.clear()
    assert market.api.job(queued.id).status == "pending"
    (replay,) = market.replays()
    assert replay.id == waiting.id and replay.leases[0].provider == market.providers[1].address
    assert replay.spec.step_of(1) == first.step


def test_a_draw_waits_until_no_reorganisation_can_change_it(market: Audited) -> None:
    """Blocks that go between the last Claim and the draw: who makes blocks could else choose among draws."""
    lease = market.begin(1)
    settings = market.chain.settings
    market.chain.settings = settings.model_copy(update={"confirmations_base": 6, "confirmations_max": 6})
    try:
        market.look()
        (claim,) = market.claim(lease, {})
        market.say(lease, "release", 1)
        market.look()
        market.look()
        assert market.contents(lease.job, BatchContent) == []
        rpc(market.chain, "anvil_reorg", 3, [])
        for _ in range(9):
            rpc(market.chain, "evm_mine")
        market.follow()
        for _ in range(4):
            market.look()
            market.answer_all(claim)
            for _ in range(7):
                rpc(market.chain, "evm_mine")
            market.follow()
        (batch,) = market.contents(lease.job, BatchContent)
        assert batch.block_hash == market.chain.block_hash(batch.block)
        assert [one.ruling for one in market.contents(lease.job, RulingContent)] == ["good"]
        assert market.problems(lease.job) == []
    finally:
        market.chain.settings = settings


def test_a_home_that_is_lost_stops_its_audits_until_it_is_back(market: Audited) -> None:
    """To draw anew could question honest work, or let a lie go that was drawn."""
    lease = market.begin(1, 2)
    market.look()
    claims = market.claim(lease, {}, {})
    for _ in range(3):
        market.look()
    assert len(market.contents(lease.job, BatchContent)) == 1
    folder = market.folder / "approver" / "audits"
    folder.rename(market.folder / "backup")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            market.look()
            market.answer_all(*claims)
    (told,) = {line["problem"] for line in logs if line["event"] == "approver.skipped" and line["lease"] == lease.id}
    assert told == f"the history of the audit of lease {lease.id} is gone from {folder}"
    assert market.api.lease(lease.id).approval is None and market.grounds(lease) == []
    for made in folder.glob("*"):
        made.unlink()
    if folder.exists():
        folder.rmdir()
    (market.folder / "backup").rename(folder)
    for _ in range(4):
        market.look()
        market.answer_all(*claims)
    approval = market.api.lease(lease.id).approval
    assert approval is not None and approval.approval.n == 2 and market.problems(lease.job) == []
