"""An approver under audited rules, step by step: a real chain and market, and providers that sign what a test says."""

import pytest
import structlog

from contracts.api.auditing.notes import ReplayContent, RulingContent
from contracts.api.bodies import AskResources
from contracts.api.epochs import LeftOutReason
from contracts.api.offers import OffersIn
from contracts.api.problems import Problem
from contracts.chain.devnet.devnet import Devnet
from contracts.chain.sending.sender import Sender
from contracts.terms import Phase
from market.approver.auditing import replay_bids
from market.approver.auditing.disputes import WITHHELD
from market.services import asks
from market.verify.verify import verify
from tests.support.audited_market import LIE, Audited
from tests.support.devnet import TOKEN
from tests.support.market_parts import CPU, TELLS_CLASS, signed_progress
from tests.support.stepped_market import differences
from tests.support.whole_market import wait_for

pytestmark = pytest.mark.mostly_sqlite


@pytest.fixture
def market(audited: Audited) -> Audited:
    return audited


def test_replays_of_others_agree_and_all_are_paid(market: Audited) -> None:
    lease = market.begin(1, 2)
    market.look()
    first, second = market.claim(lease, {}, {})
    for _ in range(3):
        market.look()
    assert market.api.lease(lease.id).approval is None
    assert {replay.spec.resources.providers[0] for replay in market.replays()} == {
        market.providers[1].address, market.providers[2].address,
    }  # fmt: skip  # neighbours are replayed by others
    assert len(market.answer_all(first, second)) == 2
    for _ in range(2):
        market.look()
    approval = market.api.lease(lease.id).approval
    assert approval is not None and (approval.approval.n, approval.approval.tip) == (2, second.tip)
    assert [one.ruling for one in market.contents(lease.job, RulingContent)] == ["good", "good"]
    assert [job.approved for job in map(market.api.job, (job.id for job in market.replays()))] == [1, 1]
    assert market.problems(lease.job) == []
    market.redeem(lease)
    for replay in market.replays():
        market.redeem(market.lease_of(replay))
    assert differences(market) == []


def test_a_lie_is_rejected_and_challenged_before_it_is_claimed(market: Audited, devnet: Devnet) -> None:
    lease = market.begin(1, 2, 3, 4)
    market.look()
    first, lie = market.claim(lease, {}, LIE)
    truth = lie.model_copy(update={"trace_root": "0x" + "77" * 32})
    for _ in range(8):
        market.look()
        market.answer_all(first, truth)
    out = market.api.lease(lease.id)
    assert out.approval is None
    assert out.rejection is not None and out.rejection.rejection.n == 2
    assert market.state(lease).phase is Phase.CHALLENGED
    with pytest.raises(Problem, match="which binds while it is disputed"):  # the arbiter has yet to look at it
        market.report(lease, 2, first.tip)
    dispute = market.chain.dispute(lease.id)
    assert dispute is not None and dispute.challenger == market.approver_key.address
    found = {(one.n, one.auditor, one.outcome) for one in market.contents(lease.job, ReplayContent)}
    assert {(n, outcome) for n, _, outcome in found} == {(1, "equal"), (2, "differs")}
    assert len({auditor for n, auditor, _ in found if n == 2}) == 3  # three equal voices
    Sender(market.chain, devnet.operator).send(market.chain.rule(market.rules.arbiter, dispute.id, 3))
    market.follow()
    market.keep()
    assert market.state(lease).phase is Phase.CLOSED
    assert differences(market) == []


def test_a_lie_and_then_the_end(market: Audited) -> None:
    """Nothing of it is on chain, and the provider ends the lease: its signed Claim is challenged all the same."""
    lease = market.begin(1, 2, 3, 4)
    market.look()
    (lie,) = market.claim(lease, LIE)
    truth = lie.model_copy(update={"trace_root": "0x" + "77" * 32})
    Sender(market.chain, market.key(lease.provider)).send(market.chain.end(market.terms(lease)))
    market.follow()
    for _ in range(8):
        market.look()
        market.answer_all(truth)
    assert market.state(lease).phase is Phase.CHALLENGED


def test_what_was_rejected_for_its_bytes_is_not_paid_by_silence(market: Audited, devnet: Devnet) -> None:
    lease = market.begin()
    market.look()
    good = market.record(lease, 1, lease.state.tip)
    bad = market.report(lease, 1, lease.state.tip, state_root="0x" + "11" * 32)
    market.look()
    rejected = market.api.lease(lease.id).rejection
    assert rejected is not None and rejected.rejection.tip == bad.tip != good.tip
    market.claim_on_chain(lease, bad)
    market.look()
    assert market.state(lease).phase is Phase.CHALLENGED
    market.ruled(devnet.operator, lease, 2)
    assert market.api.job(lease.job).paid == 0
    assert differences(market) == []


def test_a_claim_on_chain_that_nobody_was_shown(market: Audited) -> None:
    lease = market.begin()
    market.look()
    hidden = market.record(lease, 1, lease.state.tip)
    market.claim_on_chain(lease, hidden)
    market.look()
    assert market.state(lease).phase is Phase.ACTIVE  # its maker may be about to tell
    market.pass_time(market.rules.window // 2 + 5)
    market.look()
    assert market.state(lease).phase is Phase.CHALLENGED


def test_one_of_two_claims_of_a_checkpoint_is_a_lie(market: Audited) -> None:
    """The first binds. The other one, on chain, is on no market: nobody could train it again, but ask for its bytes."""
    lease = market.begin(1, 2)
    market.look()
    market.claim(lease, {})
    market.look()
    other = market.record(lease, 1, lease.state.tip, **LIE)
    market.claim_on_chain(lease, other)
    market.look()
    assert market.state(lease).phase is Phase.CHALLENGED
    dispute = market.chain.dispute(lease.id)
    assert dispute is not None and dispute.claimed_tip == other.tip
    assert market.grounds(lease) == [WITHHELD]


def test_a_second_claim_is_refused(market: Audited) -> None:
    """By the market; and by an approver whose market lets it pass."""
    lease = market.begin(1, 2)
    market.look()
    (lie,) = market.claim(lease, LIE)
    with pytest.raises(Problem, match=f"claimed with the tip {lie.tip}, which binds"):
        market.report(lease, 1, lease.state.tip)
    market.look()
    right = market.record(lease, 1, lease.state.tip)
    body = signed_progress(lease.id, right, market.chain.domain, market.key(lease.provider))
    with market.context.db.session() as session:
        market.context.accept(session, "progress", body, bid=lease.job, provider=lease.provider)
    market.look()
    rejection = market.api.lease(lease.id).rejection
    assert rejection is not None and rejection.rejection.tip == right.tip
    assert f"{lie.tip} was claimed first" in rejection.rejection.reason


def test_an_auditor_that_lies_is_challenged_in_its_turn(market: Audited) -> None:
    lease = market.begin(1, 2, 3, 4)
    market.look()
    first, second = market.claim(lease, {}, {})
    for _ in range(4):
        market.look()
    liar = next(replay for replay in market.replays() if replay.spec.step_of(1) == first.step)
    market.answer(liar, first, **LIE)
    for _ in range(8):
        market.look()
        market.answer_all(first, second)
    approval = market.api.lease(lease.id).approval
    assert approval is not None and approval.approval.n == 2
    accused = market.lease_of(liar)
    assert accused.rejection is not None and market.state(accused).phase is Phase.CHALLENGED
    assert market.state(lease).phase is Phase.ACTIVE


def test_an_auditor_that_vanishes_is_redrawn(market: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = market.begin(1, 2)
    market.look()
    (first,) = market.claim(lease, {})
    market.say(lease, "release", 1)
    with monkeypatch.context() as patch:
        patch.setattr(replay_bids, "replay_patience", lambda *_: 0.0)
        for _ in range(2):
            market.look()
    (gone,) = market.replays()
    market.look()
    market.look()
    (other,) = (replay for replay in market.replays() if replay.id != gone.id)
    market.answer(other, first)
    market.look()
    market.look()
    approval = market.api.lease(lease.id).approval
    assert approval is not None and (approval.approval.n, approval.approval.last) == (1, True)
    outcomes = {(one.auditor, one.outcome) for one in market.contents(lease.job, ReplayContent)}
    assert outcomes == {(gone.leases[0].provider, "stalled"), (other.leases[0].provider, "equal")}


def test_nobody_to_ask(market: Audited) -> None:
    """It is approved, and told as what it is."""
    lease = market.begin()
    market.look()
    market.claim(lease, {}, {})
    for _ in range(3):
        market.look()
    assert market.api.lease(lease.id).approval is None
    patient = market.new_approver(nobody_seconds=0)
    for _ in range(3):
        market.look(patient)
    approval = market.api.lease(lease.id).approval
    assert approval is not None and approval.approval.n == 2
    assert [one.ruling for one in market.contents(lease.job, RulingContent)] == ["unaudited", "unaudited"]


def test_whom_nobody_audits_gets_no_further_lease(market: Audited) -> None:
    """Until somebody of its class is there; then its work is audited, and it may be alone again."""
    liar, other, neighbour = market.providers[:3]
    lease = market.begin()
    market.look()
    market.claim(lease, {}, {})
    patient = market.new_approver(nobody_seconds=0)
    for _ in range(6):
        market.look(patient)
    assert [one.ruling for one in market.contents(lease.job, RulingContent)] == ["unaudited", "unaudited"]
    market.offer(liar, max_active=3)
    job = market.post_bid(stake=20 * TOKEN)
    market.clear()
    assert market.api.job(job.id).leases == []
    wait_for("the offers to be looked at", lambda: shown(market) == set())
    market.offer(other, TELLS_CLASS.model_copy(update={"numerics": "0x" + "77" * 32}), price_per_hour=4_000_000_000)
    epoch = market.clear()
    assert epoch is not None and market.lease_of(job).provider == other.address
    header = market.api.epoch(epoch.number).header
    assert header is not None and {one.reason for one in header.left_out} == {LeftOutReason.UNAUDITED}
    assert len(header.unaudited) == 2
    checked = verify(market.api, market.chain, epoch.number)
    assert [lie for one in checked for lie in one.lies] == []

    market.offer(neighbour, price_per_hour=4_400_000_000)
    wait_for("the offers to be looked at", lambda: {liar.address, neighbour.address} <= shown(market))
    again = market.post_bid(stake=20 * TOKEN)
    market.clear()
    second = market.lease_of(again)
    assert second.provider == liar.address
    market.look(patient)
    third, fourth = market.claim(second, {}, {})
    for _ in range(4):
        market.look()
        market.answer_all(third, fourth)
    assert "good" in [one.ruling for one in market.contents(again.id, RulingContent)]


def shown(market: Audited) -> set[str]:
    """Providers of the machines that a client is shown; a market looks at them now and then."""
    return {one.provider for one in market.api.offers(OffersIn())}


def test_an_ask_that_tells_no_class(market: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a market that takes one: nobody could replay its work, so none of it is approved."""
    with monkeypatch.context() as patch:
        patch.setattr(asks, "_check_level", lambda *_: None)
        market.offer(market.providers[0], CPU)
    job = market.post_bid()
    assert market.clear() is not None
    lease = market.lease_of(job)
    market.look()
    market.claim(lease, {})
    market.look()
    rejection = market.api.lease(lease.id).rejection
    assert rejection is not None and "its Ask tells none" in rejection.rejection.reason


def test_a_market_that_does_not_show_the_ask(market: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """Honest work waits for it, and is not rejected for a market's fault."""
    lease = market.begin(1, 2)
    market.look()
    first, second = market.claim(lease, {}, {})
    with monkeypatch.context() as patch:
        patch.setattr(AskResources, "hash", lambda self: "0x" + "00" * 32)  # it shows other resources
        with structlog.testing.capture_logs() as logs:
            market.look()
        assert any("something else than the Ask" in str(line) for line in logs)
    assert market.api.lease(lease.id).rejection is None
    for _ in range(4):
        market.look()
        market.answer_all(first, second)
    approval = market.api.lease(lease.id).approval
    assert approval is not None and approval.approval.n == 2


def test_a_bond_that_is_short_is_told_and_the_challenge_comes_when_it_is_there(market: Audited) -> None:
    lease = market.begin()
    market.look()
    bad = market.report(lease, 1, lease.state.tip, state_root="0x" + "11" * 32)
    market.look()
    market.claim_on_chain(lease, bad)
    sender = Sender(market.chain, market.approver_key)
    free = market.chain.account(sender.address).free
    sender.send(market.chain.withdraw(sender.address, free))
    approver = market.new_approver()
    with structlog.testing.capture_logs() as logs:
        market.look(approver)
    assert any("takes a bond of" in str(line) for line in logs)
    assert market.state(lease).phase is Phase.ACTIVE
    assert approver._metrics.bond_missing.labels(sender.address)._value.get() > 0
    sender.send(market.chain.approve(free))
    sender.send(market.chain.deposit(sender.address, free))
    market.look(approver)
    assert market.state(lease).phase is Phase.CHALLENGED
    assert approver._metrics.bond_missing.labels(sender.address)._value.get() == 0
