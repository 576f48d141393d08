"""The books, event by event. Numbers by hand from docs/protocol.md section 5."""

from dataclasses import replace
from itertools import count

import pytest

from contracts.chain.events import (
    Approved,
    Challenged,
    Claimed,
    Closed,
    Deposited,
    Ended,
    Event,
    Opened,
    PageRaised,
    Place,
    Resolved,
    Settled,
    Withdrawn,
)
from contracts.chain.ledger import GONE, Exit, LeaseView, Ledger, LedgerError
from contracts.commitment import next_tip
from contracts.terms import Flag, Nums, Parties, Phase, StateWord, Terms
from contracts.types import ZERO_ADDRESS, ZERO_HASH, ZERO_TIP, from_hex, to_hex

CLIENT, PROVIDER, MARKET, CHALLENGER, ARBITER = ("0x" + digit * 40 for digit in "12345")
TIP = "0x" + "aa" * 20
OTHER_TIP = "0x" + "bb" * 20
ROOTS = tuple("0x" + digit * 64 for digit in "6789")
DISPUTE = "0x" + "dd" * 32
RULES = "0x" + "ee" * 32
PRICE, FEE, STAKE, ARBITER_FEE = 100, 5, 253, 50
TERMS = Terms(
    PROVIDER,
    Nums(start=0, end=4, window=10, timeout=100, price=PRICE, fee=FEE, ask_price=PRICE),
    Parties(ZERO_HASH, ZERO_HASH, ZERO_HASH, RULES, CLIENT, CLIENT, MARKET, STAKE),
)
LEASE = TERMS.lease
NEXT_TIP = to_hex(next_tip(next_tip(from_hex(TIP), from_hex(ROOTS[0])), from_hex(ROOTS[1])))

_indices = count()


def at(time: int) -> Place:
    return Place(1, ZERO_HASH, next(_indices), ZERO_HASH, time)


def opened(*events: Event) -> tuple[Ledger, LeaseView]:
    """A ledger with one lease, opened at time 0, and these events after it."""
    ledger = Ledger()
    for owner in (CLIENT, PROVIDER, CHALLENGER):
        ledger.apply(Deposited(at(0), owner, owner, 1_000))
    ledger.apply(Opened(at(0), LEASE, PROVIDER, CLIENT, ZERO_HASH, TERMS, TIP))
    ledger.apply_all(events)
    return ledger, ledger.leases[LEASE]


def free(ledger: Ledger) -> dict[str, int]:
    names = {CLIENT: "client", PROVIDER: "provider", MARKET: "market", CHALLENGER: "challenger", ARBITER: "arbiter"}
    names[ZERO_ADDRESS] = "nobody"
    return {names[owner]: account.free for owner, account in ledger.accounts.items() if account.free}


def test_balances() -> None:
    ledger = Ledger()
    ledger.apply(Deposited(at(0), CLIENT, PROVIDER, 10))
    ledger.apply(Withdrawn(at(0), CLIENT, PROVIDER, 4))
    ledger.apply(PageRaised(at(0), CLIENT, 3))
    assert (ledger.accounts[CLIENT].free, ledger.accounts[CLIENT].page, ledger.held) == (6, 3, 6)
    with pytest.raises(LedgerError, match="has 6 free, but 7"):
        ledger.apply(Withdrawn(at(0), CLIENT, CLIENT, 7))


def test_opening_locks() -> None:
    ledger, lease = opened()
    assert free(ledger) == {"client": 1_000 - 4 * 105, "provider": 1_000 - STAKE, "challenger": 1_000}
    assert ledger.accounts[PROVIDER].active == 1
    assert lease.state == StateWord(Phase.ACTIVE, 0, 0, 0, 0, int(TIP, 16))
    assert (lease.lock, lease.held, ledger.held) == (420, 420 + STAKE, 3_000)
    with pytest.raises(LedgerError, match="opened twice"):
        ledger.apply(Opened(at(0), LEASE, PROVIDER, CLIENT, ZERO_HASH, TERMS, TIP))


def test_the_flag_more_is_not_held_against_it_while_unknown() -> None:
    _, lease = opened()
    assert lease.agrees(lease.state) and lease.agrees(lease.state._replace(status=Phase.ACTIVE | Flag.MORE))
    assert not lease.agrees(lease.state._replace(status=Phase.CLOSING))
    _, lease = opened(Ended(at(1), LEASE, PROVIDER, Phase.CLOSING))
    assert lease.agrees(lease.state) and not lease.agrees(lease.state._replace(status=Phase.CLOSING | Flag.MORE))


def test_approved_to_the_end() -> None:
    ledger, lease = opened(Approved(at(5), LEASE, 1, OTHER_TIP))
    assert lease.state == StateWord(Phase.ACTIVE, 1, 1, 1, 5, int(OTHER_TIP, 16))
    ledger.apply(Approved(at(6), LEASE, 4, TIP))
    assert free(ledger) == {"client": 580, "provider": 1_400, "market": 20, "challenger": 1_000}
    assert (lease.state, lease.exit, lease.paid, lease.fees, lease.held) == (GONE, Exit.COMPLETE, 400, 20, 0)
    assert (ledger.accounts[PROVIDER].active, ledger.held) == (0, 3_000)


def test_complete_with_more_of_the_job_to_come() -> None:
    _, lease = opened(Approved(at(6), LEASE, 4, OTHER_TIP), Closed(at(6), LEASE, 4, 0, True))
    assert (lease.exit, lease.continuable, lease.refunded) == (Exit.COMPLETE, True, 0)
    assert lease.state == StateWord(Phase.CLOSED, 4, 4, 4, 6, int(OTHER_TIP, 16))


def test_a_window_accepts() -> None:
    ledger, lease = opened(Claimed(at(5), LEASE, 2, ROOTS[:2]))
    assert lease.state == StateWord(Phase.ACTIVE, 0, 0, 2, 5, int(NEXT_TIP, 16))
    assert (lease.pending, lease.accepted_tip) == (ROOTS[:2], int(TIP, 16))
    assert (lease.synced(14).accepted, lease.synced(15).accepted) == (0, 2)
    # A claim within the window extends what is pending; one after it begins anew.
    ledger.apply(Claimed(at(8), LEASE, 3, ROOTS[2:3]))
    assert (lease.state.accepted, lease.pending) == (0, ROOTS[:3])
    ledger.apply(Claimed(at(18), LEASE, 4, ROOTS[3:]))
    assert (lease.state.accepted, lease.state.settled, lease.pending) == (3, 0, ROOTS[3:])
    ledger.apply(Settled(at(19), LEASE, 3))
    assert (lease.state.settled, lease.paid, ledger.held) == (3, 300, 3_000)


def test_a_settlement_that_no_window_explains() -> None:
    with pytest.raises(LedgerError, match="settled up to 2, but is accepted up to 0"):
        opened(Claimed(at(5), LEASE, 2, ROOTS[:2]), Settled(at(14), LEASE, 2))


def test_a_late_provider() -> None:
    late = Phase.CLOSING | Flag.LATE
    ledger, lease = opened(Ended(at(100), LEASE, CHALLENGER, late))
    assert (lease.state.status, lease.state.t, ledger.accounts[PROVIDER].active) == (late, 100, 0)
    ledger.apply(Closed(at(110), LEASE, 0, PRICE, True))
    assert free(ledger) == {"client": 1_100, "provider": 900, "challenger": 1_000}
    assert (lease.exit, lease.penalty, lease.refunded, lease.continuable) == (Exit.CLOSED, 100, 420, True)
    assert lease.state == StateWord(Phase.CLOSED, 0, 0, 0, 100, int(TIP, 16))
    ledger.apply(Ended(at(120), LEASE, CLIENT, 0))
    assert (lease.state, lease.continuable) == (GONE, False)


def test_progress_while_closing_forgives() -> None:
    closing = Ended(at(100), LEASE, CLIENT, Phase.CLOSING | Flag.LATE | Flag.BY_CLIENT)
    _, lease = opened(closing, Approved(at(105), LEASE, 1, TIP))
    assert lease.state == StateWord(Phase.CLOSING | Flag.BY_CLIENT, 1, 1, 1, 100, int(TIP, 16))
    _, lease = opened(closing, Claimed(at(105), LEASE, 1, ROOTS[:1]))
    assert lease.state.status == Phase.CLOSING | Flag.LATE | Flag.BY_CLIENT | Flag.CLAIMED_IN_CLOSING
    assert not lease.synced(115).status & Flag.LATE


def test_closed_by_the_provider_with_the_last_approval() -> None:
    ledger, lease = opened(Approved(at(5), LEASE, 1, OTHER_TIP), Closed(at(5), LEASE, 1, 0, True))
    assert free(ledger) == {"client": 580 + 315, "provider": 1_100, "market": 5, "challenger": 1_000}
    assert (lease.exit, ledger.accounts[PROVIDER].active, ledger.held) == (Exit.CLOSED, 0, 3_000)


def dispute(time: int, k: int, bond: int, signed_tip: str = ZERO_TIP) -> Challenged:
    root = ROOTS[k - 1]
    return Challenged(at(time), LEASE, DISPUTE, CHALLENGER, k, TIP, root, 0, signed_tip, bond, ARBITER, ARBITER_FEE)


def challenged(*events: Event) -> tuple[Ledger, LeaseView]:
    bond = ARBITER_FEE + 2 * PRICE
    claim = Claimed(at(5), LEASE, 2, ROOTS[:2])
    return opened(claim, dispute(6, 1, bond), *events)


def test_a_challenge() -> None:
    ledger, lease = challenged()
    assert lease.state == StateWord(Phase.CHALLENGED, 0, 0, 2, 6, int(TIP, 16))
    assert lease.dispute is not None and lease.dispute.arbiter_fee == ARBITER_FEE
    assert (ledger.accounts[CHALLENGER].free, lease.held, ledger.held) == (750, 420 + STAKE + 250, 3_000)
    assert lease.synced(10**6) == lease.state


def test_a_challenge_lost() -> None:
    ledger, lease = challenged(Resolved(at(20), LEASE, DISPUTE, 1))
    assert lease.state == StateWord(Phase.ACTIVE, 0, 0, 2, 20, int(NEXT_TIP, 16))
    assert free(ledger) == {"client": 580, "provider": 747 + 200, "challenger": 750, "arbiter": 50}
    assert (lease.pending, lease.dispute, ledger.held) == (ROOTS[:2], None, 3_000)


def test_a_challenge_won() -> None:
    # Of the stake of 253: 50 to the arbiter, 20 % of 203 = 40 to the challenger, 163 to the client.
    ledger, lease = challenged(Resolved(at(20), LEASE, DISPUTE, 2), Closed(at(20), LEASE, 0, 163, True))
    assert free(ledger) == {"client": 1_163, "provider": 747, "challenger": 1_040, "arbiter": 50}
    assert lease.state == StateWord(Phase.CLOSED, 0, 0, 0, 6, int(TIP, 16))
    assert (ledger.accounts[PROVIDER].active, ledger.held) == (0, 3_000)


def test_a_silent_arbiter() -> None:
    ledger, _ = challenged(Resolved(at(20), LEASE, DISPUTE, 0), Closed(at(20), LEASE, 0, 0, True))
    assert free(ledger) == {"client": 1_000, "provider": 1_200, "challenger": 800}
    assert ledger.held == 3_000


def test_a_void_burns_what_the_fee_leaves_of_the_stake() -> None:
    ledger, lease = challenged(Resolved(at(20), LEASE, DISPUTE, 3), Closed(at(20), LEASE, 0, 0, True))
    assert free(ledger) == {"client": 1_000, "provider": 747, "challenger": 1_000, "arbiter": 50, "nobody": 203}
    assert (lease.void, lease.convicted, lease.burnt, lease.penalty) == (True, False, 203, 0)
    assert (ledger.accounts[PROVIDER].active, ledger.held) == (0, 3_000)


def test_what_nobody_can_reproduce_costs_the_fee_only() -> None:
    ledger, lease = challenged(Resolved(at(20), LEASE, DISPUTE, 4), Closed(at(20), LEASE, 0, 0, True))
    assert free(ledger) == {"client": 1_000, "provider": 1_000, "challenger": 950, "arbiter": 50}
    assert (lease.unreproducible, lease.convicted, ledger.held) == (True, False, 3_000)


def test_an_approval_before_the_disputed_checkpoint_pays_and_the_dispute_goes_on() -> None:
    claim = Claimed(at(5), LEASE, 3, ROOTS[:3])
    ledger, lease = opened(claim, dispute(6, 3, 350), Approved(at(7), LEASE, 1, OTHER_TIP))
    assert lease.state == StateWord(Phase.CHALLENGED, 1, 1, 3, 6, int(OTHER_TIP, 16))
    assert (lease.pending, lease.accepted_tip, lease.paid) == (ROOTS[1:3], int(OTHER_TIP, 16), 100)
    ledger.apply(Resolved(at(20), LEASE, DISPUTE, 1))
    assert (lease.state.phase, lease.state.claimed, lease.state.t) == (Phase.ACTIVE, 3, 20)
    assert lease.state.tip != int(OTHER_TIP, 16)  # that of the claim, which is pending again
    assert ledger.held == 3_000


def test_an_approval_of_the_disputed_checkpoint_ends_the_dispute() -> None:
    withdrawn = Resolved(at(7), LEASE, DISPUTE, 5)
    ledger, lease = challenged(withdrawn, Approved(at(7), LEASE, 3, OTHER_TIP))
    assert lease.state == StateWord(Phase.ACTIVE, 3, 3, 3, 7, int(OTHER_TIP, 16))
    assert free(ledger) == {"client": 580, "provider": 1_047, "challenger": 950, "arbiter": 50, "market": 15}
    assert (lease.dispute, lease.pending, ledger.held) == (None, (), 3_000)
    ledger, lease = challenged(withdrawn, Approved(at(7), LEASE, 1, OTHER_TIP))
    assert lease.state == StateWord(Phase.ACTIVE, 1, 1, 2, 7, int(NEXT_TIP, 16))
    assert (lease.pending, lease.accepted_tip) == (ROOTS[1:2], int(OTHER_TIP, 16))


def test_a_signed_claim_is_challenged_and_what_was_pending_comes_back() -> None:
    claim = Claimed(at(5), LEASE, 1, ROOTS[:1])
    ledger, lease = opened(claim, dispute(6, 3, 350, OTHER_TIP))
    first_tip = next_tip(from_hex(TIP), from_hex(ROOTS[0]))
    assert lease.state == StateWord(Phase.CHALLENGED, 0, 0, 1, 6, int(TIP, 16))
    ledger.apply(Resolved(at(20), LEASE, DISPUTE, 1))
    assert lease.state == StateWord(Phase.ACTIVE, 0, 0, 1, 20, int.from_bytes(first_tip, "big"))
    # The window of what was pending had passed: that is accepted first.
    ledger, lease = opened(claim, dispute(16, 3, 350, OTHER_TIP))
    assert (lease.state.accepted, lease.state.claimed, lease.pending) == (1, 1, ())
    ledger.apply(Approved(at(17), LEASE, 2, OTHER_TIP))
    ledger.apply(Resolved(at(20), LEASE, DISPUTE, 1))
    assert lease.state == StateWord(Phase.ACTIVE, 2, 2, 2, 20, int(OTHER_TIP, 16))


@pytest.mark.parametrize("flags", [0, Flag.LATE])
def test_a_client_wants_no_other_lease_to_follow(flags: int) -> None:
    ended = Ended(at(100), LEASE, PROVIDER, Phase.CLOSING | flags)
    ledger, lease = opened(ended, Ended(at(105), LEASE, CLIENT, Phase.CLOSING | flags | Flag.BY_CLIENT))
    assert lease.state == StateWord(Phase.CLOSING | flags | Flag.BY_CLIENT, 0, 0, 0, 100, int(TIP, 16))
    assert (ledger.accounts[PROVIDER].active, lease.late, lease.ended) == (0, bool(flags), 100)


def test_a_client_wants_no_other_lease_to_follow_a_dispute() -> None:
    ledger, lease = challenged(Ended(at(8), LEASE, CLIENT, Phase.CHALLENGED | Flag.BY_CLIENT))
    assert (lease.state.t, lease.ended, ledger.accounts[PROVIDER].active) == (6, None, 1)
    ledger.apply(Resolved(at(20), LEASE, DISPUTE, 1))
    assert lease.state.status == Phase.ACTIVE | Flag.BY_CLIENT


def test_challenged_while_closing_and_back() -> None:
    closing = Ended(at(5), LEASE, PROVIDER, Phase.CLOSING)
    claim = Claimed(at(6), LEASE, 1, ROOTS[:1])
    ledger, lease = opened(closing, claim, dispute(7, 1, 150))
    assert lease.state.status == Phase.CHALLENGED | Flag.WAS_CLOSING | Flag.CLAIMED_IN_CLOSING
    ledger.apply(Resolved(at(9), LEASE, DISPUTE, 1))
    assert lease.state.status == Phase.CLOSING | Flag.CLAIMED_IN_CLOSING
    assert ledger.accounts[PROVIDER].active == 0


def test_the_next_lease_of_a_bid() -> None:
    ledger, first = opened(Closed(at(5), LEASE, 0, 0, True))
    parties = TERMS.parties._replace(prev=LEASE)
    following = replace(TERMS, provider=CHALLENGER, parties=parties)
    ledger.apply(Opened(at(6), following.lease, CHALLENGER, CLIENT, ZERO_HASH, following, TIP))
    assert (first.state, first.continuable) == (GONE, False)
    assert (ledger.accounts[CHALLENGER].active, ledger.held) == (1, 3_000)


def test_an_event_of_a_lease_nobody_opened() -> None:
    with pytest.raises(LedgerError, match="was never opened"):
        Ledger().apply(Settled(at(0), LEASE, 1))
