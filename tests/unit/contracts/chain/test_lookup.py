"""What a lease's events say of the tips of its checkpoints, through disputes."""

from itertools import count

from contracts.chain.events import (
    Approved,
    Challenged,
    Claimed,
    Closed,
    Event,
    Opened,
    Place,
    Resolved,
    RulesUsed,
    Settled,
    topic_of,
)
from contracts.chain.lookup import TipsOnChain, tips_on_chain
from contracts.commitment import next_tip
from contracts.terms import Nums, Parties, Terms
from contracts.types import ZERO_ADDRESS, ZERO_HASH, ZERO_TIP, from_hex, to_hex

START, OTHER = "0x" + "aa" * 20, "0x" + "bb" * 20
ROOTS = tuple("0x" + digit * 64 for digit in "123456")
PARTIES = Parties(ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_HASH, ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, 10)
TERMS = Terms(ZERO_ADDRESS, Nums(0, 6, 10, 20, 5, 0, 5), PARTIES)
TIPS = [START]
for _root in ROOTS:
    TIPS.append(to_hex(next_tip(from_hex(TIPS[-1]), from_hex(_root))))

_numbers = count()


def at() -> Place:
    return Place(1, ZERO_HASH, next(_numbers), ZERO_HASH, 0)


def after(*events: Event) -> TipsOnChain:
    return tips_on_chain(Opened(at(), ZERO_HASH, ZERO_ADDRESS, ZERO_ADDRESS, ZERO_HASH, TERMS, START), events)


def claimed(n: int, count: int) -> Claimed:
    return Claimed(at(), ZERO_HASH, n, ROOTS[n - count : n])


def challenged(k: int, accepted: int, signed: str = ZERO_TIP) -> Challenged:
    root = ROOTS[k - 1]
    return Challenged(at(), ZERO_HASH, ZERO_HASH, ZERO_ADDRESS, k, TIPS[accepted], root, 0, signed, 1, ZERO_ADDRESS, 1)


def resolved(verdict: int) -> Resolved:
    return Resolved(at(), ZERO_HASH, ZERO_HASH, verdict)


def test_claims_approvals_and_windows() -> None:
    assert after() == TipsOnChain({0: START}, 0)
    assert after(claimed(2, 2)) == TipsOnChain(dict(enumerate(TIPS[:3])), 0)
    # An Approval takes the place of what is claimed, and what follows is built on it.
    found = after(claimed(2, 2), Approved(at(), ZERO_HASH, 2, OTHER), claimed(3, 1), Settled(at(), ZERO_HASH, 3))
    third = to_hex(next_tip(from_hex(OTHER), from_hex(ROOTS[2])))
    assert found == TipsOnChain({0: START, 2: OTHER, 3: third}, 3)


def test_what_is_approved_in_a_dispute_leaves_the_rest_pending() -> None:
    dispute = (claimed(4, 4), challenged(4, 0), Approved(at(), ZERO_HASH, 2, TIPS[2]))
    whole = TipsOnChain(dict(enumerate(TIPS[:5])) | {2: TIPS[2]}, 2)
    found = after(*dispute, resolved(1))
    assert (found.accepted, {n: found.tips[n] for n in (2, 3, 4)}) == (2, {n: whole.tips[n] for n in (2, 3, 4)})
    # The claim is pending again, and the next one follows on its end.
    assert after(*dispute, resolved(1), claimed(5, 1)).tips[5] == TIPS[5]
    assert after(*dispute, resolved(2), Closed(at(), ZERO_HASH, 2, 0, True)).accepted == 2


def test_an_approval_of_what_is_disputed() -> None:
    dispute = (claimed(3, 3), challenged(1, 0), resolved(5))
    assert after(*dispute, Approved(at(), ZERO_HASH, 2, TIPS[2]), claimed(4, 1)).tips[4] == TIPS[4]
    beyond = after(*dispute, Approved(at(), ZERO_HASH, 3, OTHER), claimed(4, 1))
    assert beyond.tips[4] == to_hex(next_tip(from_hex(OTHER), from_hex(ROOTS[3])))


def test_a_signed_claim_that_is_disputed_is_not_claimed() -> None:
    found = after(claimed(1, 1), challenged(3, 0, OTHER), resolved(1), claimed(2, 1))
    assert found == TipsOnChain(dict(enumerate(TIPS[:3])), 0)
    found = after(challenged(3, 0, OTHER), Approved(at(), ZERO_HASH, 2, OTHER), resolved(1), claimed(3, 1))
    assert (found.accepted, found.tips[3]) == (2, to_hex(next_tip(from_hex(OTHER), from_hex(ROOTS[2]))))


def test_topics_are_those_of_the_abi() -> None:
    assert len({topic_of(kind) for kind in (Opened, RulesUsed, Claimed, Challenged)}) == 4
