"""After an arbiter's word a job goes on elsewhere, by itself, from the last accepted checkpoint; and it is told."""

import pytest
from eth_account.signers.local import LocalAccount

from contracts.api.bodies import JobOut, LeaseOut
from contracts.chain.devnet import devnet
from contracts.chain.reliability import ClientRecord, standing
from contracts.chain.sending.sender import Sender
from contracts.commitment import next_tip
from contracts.orders import Claim
from contracts.terms import Phase, Verdict
from contracts.types import from_hex, to_hex
from market.client.cli.common import progress_of
from market.maintenance.reconcile import read_books
from market.matching import Reason
from market.store.queries.reliability import stored_client_records
from market.verify.verify import verify
from tests.support.devnet import rpc
from tests.support.market_parts import CPU
from tests.support.stepped_market import Lives, differences

pytestmark = pytest.mark.mostly_sqlite


def lease_on(market: Lives, job: JobOut, provider: LocalAccount) -> LeaseOut:
    market.post_ask(provider)
    lease = next_lease(market, job)
    assert lease.provider == provider.address
    return lease


def next_lease(market: Lives, job: JobOut) -> LeaseOut:
    epoch = market.clear()
    assert epoch is not None
    assert [lie for one in verify(market.api, market.chain, epoch.number) for lie in one.lies] == []
    return market.lease_of(job)


def ruled(market: Lives, lease: LeaseOut, verdict: Verdict, honest: int = 0) -> None:
    """Its provider makes some checkpoints that are approved and redeemed, and signs one more; the client has that
    challenged, the arbiter rules, and the market's keeper does the rest.
    """
    tip = market.make(lease, honest)
    if honest:
        market.redeem(lease)
    n = lease.start + honest + 1
    lie = market.record(lease, n, tip, state_root="0x" + "66" * 32)
    claim = Claim(lease=lease.id, n=n, tip=lie.tip)
    signature = claim.sign(market.chain.domain, market.key(lease.provider))
    call = market.chain.challenge_signed(market.terms(lease), market.rules, tip, [], [lie.root], n, signature)
    Sender(market.chain, market.client).send(call)
    market.follow()
    assert market.api.job(lease.job).reason == "a checkpoint is challenged; the arbiter decides"
    assert market.state(lease).phase is Phase.CHALLENGED
    market.keep()  # nobody has ruled yet
    assert market.state(lease).phase is Phase.CHALLENGED
    dispute = read_books(market.chain).ledger.leases[lease.id].dispute
    assert dispute is not None
    Sender(market.chain, devnet.accounts()[0]).send(market.chain.rule(market.rules.arbiter, dispute.id, verdict))
    market.keep()


@pytest.mark.parametrize("verdict", [Verdict.FALSE, Verdict.VOID])
def test_the_job_goes_on_with_another_from_what_is_accepted(market: Lives, verdict: Verdict) -> None:
    liar, other = market.providers
    job = market.post_bid()
    first = lease_on(market, job, liar)
    before = market.chain.account(liar.address).free
    ruled(market, first, verdict, honest=2)
    said = market.lease_of(job)
    assert (said.id, said.verdict, said.finished) == (first.id, verdict.said, "closed")
    assert market.chain.account(liar.address).free == before + 2 * first.price  # paid, and the stake is lost
    told = market.api.job(job.id)
    assert (told.status, told.accepted) == ("pending", 2)
    assert f"lease {first.id[:10]}: verdict {verdict.said}" in progress_of(told)

    # It may sell to others again, with another stake; this job it does not get, though there is nobody else.
    market.post_ask(liar)
    assert next_lease(market, job).id == first.id
    assert market.api.job(job.id).reason == Reason.PROVIDERS
    second = lease_on(market, job, other)
    assert (second.start, second.prev, second.verdict) == (2, first.id, None)
    market.make(second, 2)
    market.redeem(second)
    assert market.api.job(job.id).status == "done"
    assert differences(market) == []


def test_two_disputes_of_one_second_both_end(market: Lives) -> None:
    """The lease is in the same state each time, to the second; a keeper that takes them for one leaves it for ever."""
    job = market.post_bid()
    lease = lease_on(market, job, market.providers[0])
    root = "0x" + "77" * 32
    terms, provider, client = market.terms(lease), Sender(market.chain, market.providers[0]), market.client
    first = lease.start + 1
    provider.send(market.chain.claim(terms, first, to_hex(next_tip(from_hex(lease.state.tip), from_hex(root))), [root]))
    rpc(market.chain, "anvil_setBlockTimestampInterval", 0)
    try:
        states = []
        for _ in range(2):
            call = market.chain.challenge(terms, market.rules, lease.state.tip, [root], first)
            Sender(market.chain, client).send(call)
            states.append(market.state(lease))
            dispute = market.chain.dispute(lease.id)
            assert dispute is not None
            rule = market.chain.rule(market.rules.arbiter, dispute.id, Verdict.TRUE)
            Sender(market.chain, devnet.accounts()[0]).send(rule)
            market.keep()
            assert market.state(lease).phase is Phase.ACTIVE
        assert states[0] == states[1]
    finally:
        rpc(market.chain, "anvil_removeBlockTimestampInterval")


@pytest.mark.parametrize("verdict", [Verdict.TRUE, Verdict.UNREPRODUCIBLE])
def test_other_verdicts_are_told(market: Lives, verdict: Verdict) -> None:
    job = market.post_bid()
    lease = lease_on(market, job, market.providers[0])
    ruled(market, lease, verdict)
    assert market.lease_of(job).verdict == verdict.said
    assert differences(market) == []


def test_a_job_ends_that_the_arbiters_own_runs_differ_on(market: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(market.context), "ending_rules", {market.rules.struct_hash()})
    job = market.post_bid()
    ruled(market, lease_on(market, job, market.providers[0]), Verdict.UNREPRODUCIBLE)
    market.post_ask(market.providers[1])
    epoch = market.clear()
    told = market.api.job(job.id)
    assert (told.status, len(told.leases), epoch) == ("failed", 1, None)
    assert "training it again comes to something else each time" in told.reason


def test_a_client_with_many_voids_is_refused_until_a_provider_wants_it(market: Lives) -> None:
    for provider in market.providers:
        market.post_ask(provider)
    for number in range(1, 4):  # jobs: the two providers get none twice
        ruled(market, next_lease(market, market.post_bid()), Verdict.VOID)
        with market.context.db.reading() as session:
            assert stored_client_records(session)[market.client.address].void == number
    assert standing(ClientRecord(paid=9, leases=22, void=3)) == (3, True)
    assert standing(ClientRecord(paid=10, leases=23, void=3)) == (2, False)
    other = market.post_bid()
    market.clear()
    assert market.api.job(other.id).reason == Reason.WANTED
    wants = CPU.wants.model_copy(update={"client_voids_at_most": 3})
    resources = CPU.model_copy(update={"wants": wants})
    Sender(market.chain, market.providers[1]).send(market.chain.raise_page(1))  # its former Ask shares its stake
    market.follow()
    market.post_ask(market.providers[1], resources, max_active=4, max_stake=20_000_000, page=1)
    assert next_lease(market, other).provider == market.providers[1].address
    assert differences(market) == []
