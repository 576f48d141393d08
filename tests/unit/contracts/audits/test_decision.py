"""Audits of whole leases over random histories, and each rule by itself."""

from random import Random

import pytest
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.audits.auditors import AuditorOffer
from contracts.audits.cases import FAILED, OWN, Case, Replayed, Ruling
from contracts.audits.decision import Audit, audited
from contracts.audits.draw import Drawable, drawn, lease_secret
from contracts.audits.events import (
    Accuse,
    Alarm,
    ApprovalSigned,
    Approve,
    Asked,
    AskReplay,
    AuditTerms,
    BlockFinal,
    Challenge,
    ChallengeSent,
    ClaimTaken,
    NoMoreClaims,
    OnChain,
    Refuse,
    Reject,
    ReplayEnded,
    TellUnaudited,
    TellUnreproducible,
    TimeUp,
    Told,
    Upheld,
    WantBlock,
)
from contracts.audits.levels import OPEN, UNCHECKED
from contracts.audits.verification import PPM, Verification
from contracts.orders import Domain
from contracts.types import to_hex
from tests.support.audited_lives import AuditedLife, Luck

DOMAIN = Domain(chain_id=1, verifying_contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
PROVIDER, CLIENT = "0xProvider", "0xClient"
AUDITORS = [f"0xAuditor{n:02d}" for n in range(14)]
OFFERS = [AuditorOffer(name, 100 + n, 100) for n, name in enumerate((*AUDITORS, PROVIDER, CLIENT))]
EQUAL = Replayed("equal")


def differs(root: str = "truth") -> Replayed:
    return Replayed("differs", root)


def tip(n: int, how: str = "true") -> str:
    return to_hex(keccak(f"{how} {n}".encode())[:20])


def terms(
    share_ppm: int = PPM, every: int = 4, *, end: int = 12, start: int = 0, own: bool = False, name: str = "lease",
    **more: object,
) -> AuditTerms:  # fmt: skip
    verification = Verification.model_validate(
        OPEN.model_dump(mode="json") | {"share_ppm": share_ppm, "approve_every": every} | more
    )
    lease = to_hex(keccak(name.encode()))
    secret = lease_secret(keccak(b"approver"), DOMAIN, lease)
    return AuditTerms(lease, PROVIDER, start, end, tip(start), secret, verification, frozenset({CLIENT}), own)


# ------------------------------------------------------------------ whole lives


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_lives(data: st.DataObject) -> None:
    """What holds whatever happens: any liars among provider and auditors, stalls, restarts, time that runs out."""
    seed = data.draw(st.integers(0, 2**32))
    every, end = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 14))
    share, own = data.draw(st.sampled_from([50_000, 300_000, PPM])), data.draw(st.booleans())
    rule = data.draw(st.sampled_from(["end", "unaudited"]))
    agreed = terms(share, every, end=end, name=str(seed), own=own, unreproducible=rule)
    lies = {n for n in range(1, end + 1) if data.draw(st.sampled_from([False, False, True]))}
    liars = set(data.draw(st.lists(st.sampled_from(AUDITORS), max_size=6)))
    luck = Luck(*(data.draw(st.sampled_from([0, 0, 0.2])) for _ in range(4)))

    def replay(n: int, auditor: str) -> Replayed:
        says_equal = (n not in lies) != (auditor in liars)
        return EQUAL if says_equal else differs("truth" if n in lies else "a lie")

    tips = [tip(n, "false" if n in lies else "true") for n in range(1, end + 1)]
    life = AuditedLife(agreed, tips, replay, OFFERS, 100, Random(seed), luck).run()
    audit = life.audit
    assert audit.due() == []  # nothing is left to do
    assert audited(agreed, life.events) == audit  # a restart forgets nothing
    assert audited(agreed, [event for event in life.events for _ in (0, 1)]) == audit  # nor does it hear twice

    due = {n for batch in audit.batches for n in drawn(agreed.secret, agreed.lease, batch, share, every)}
    assert set(audit.drawn) == due
    answered = {n for n, case in audit.cases.items() if case.words}
    told = {action.n for action in life.done if isinstance(action, TellUnaudited | TellUnreproducible)}
    for one in life.done:
        if isinstance(one, Approve):
            first_told = min(told, default=end + 1) if rule == "unaudited" else end + 1
            assert all(n in answered | told or n > first_told for n in due if n <= one.n)  # nothing drawn is skipped
            assert one.tip == (tips[one.n - 1] if one.n else agreed.start_tip)
            assert one.n % every == 0 or one.n == end or audit.ended or one.last  # a batch at a time
    if audit.rejected is not None:
        assert audit.approved < audit.rejected  # what was rejected is never approved
        assert Reject(audit.rejected, tips[audit.rejected - 1]) in life.done
        assert not audit.closed
    assert all(auditor not in (PROVIDER, CLIENT) for _, auditor in life.replays)
    for n, auditor in life.replays:  # neighbours, and who was asked before, do not replay
        assert auditor == OWN or life.replays.count((n, auditor)) == 1
        assert auditor == OWN or (n + 1, auditor) not in life.replays
    if not lies and not liars:
        assert not life.of(Challenge) and not life.of(Alarm) and not life.of(Accuse)
    if not lies and len(liars) <= 1:  # one that lies convicts nobody
        assert not life.of(Challenge)
        assert {action.auditor for action in life.done if isinstance(action, Accuse)} <= liars
    if not liars and not luck.time_up:
        assert not life.of(Alarm)
        assert audit.rejected == min(lies & due & set(audit.claims), default=None) or audit.rejected in lies & due


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 14), st.sampled_from([0.0, 0.3]))
def test_honest_lives_are_paid_in_full(seed: int, every: int, end: int, restart: float) -> None:
    agreed = terms(300_000, every, end=end, name=str(seed))
    tips = [tip(n) for n in range(1, end + 1)]
    luck = Luck(restart=restart, early_end=0.1)
    life = AuditedLife(agreed, tips, lambda n, auditor: EQUAL, OFFERS, 100, Random(seed), luck).run()
    assert life.audit.approved == life.audit.claimed
    assert life.troubles == []
    assert sorted(n for n, _ in life.replays) == sorted(life.audit.drawn)  # one replay each
    assert life.audit.closed == life.audit.ended


# ------------------------------------------------------------------ rule by rule


def started(agreed: AuditTerms, claims: int, *more: object) -> Audit:
    """With all blocks that a draw could want."""
    audit = Audit(agreed)
    for n in range(agreed.start + 1, agreed.start + claims + 1):
        audit.apply(ClaimTaken(n, tip(n), n))
        audit.apply(BlockFinal(n + 1, to_hex(keccak(b"%d" % n))))
    for event in more:
        audit.apply(event)  # type: ignore[arg-type]
    return audit


def asked(audit: Audit, n: int, **answers: Replayed) -> None:
    for auditor, answer in answers.items():
        audit.apply(Asked(n, auditor))
        audit.apply(ReplayEnded(n, auditor, answer))


def test_nothing_is_drawn_before_a_batch_is_full() -> None:
    audit = started(terms(), 3)
    assert (audit.due(), audit.drawn, audit.unjudged) == ([], (), 3)
    audit.apply(ClaimTaken(4, tip(4), 7))
    assert audit.due() == [WantBlock(8)]
    audit.apply(BlockFinal(8, to_hex(keccak(b"8"))))
    assert [action.n for action in audit.due() if isinstance(action, AskReplay)] == [1, 2, 3, 4]
    for n in (1, 2, 3):
        asked(audit, n, a=EQUAL)
    assert not any(isinstance(action, Approve) for action in audit.due())  # all draws of it are judged first
    asked(audit, 4, b=EQUAL)
    assert audit.due() == [Approve(4, tip(4), False)]
    audit.apply(ApprovalSigned(4, False))
    assert (audit.due(), audit.unjudged) == ([], 0)


def test_a_short_batch_and_the_last_approval() -> None:
    audit = started(terms(), 2, NoMoreClaims())
    assert [type(action) for action in audit.due()] == [AskReplay, AskReplay]
    asked(audit, 1, a=EQUAL)
    asked(audit, 2, b=EQUAL)
    assert audit.due() == [Approve(2, tip(2), True)]
    nothing_done = started(terms(start=5), 0, NoMoreClaims())
    assert nothing_done.due() == [Approve(5, tip(5), True)]


def test_the_first_claim_binds() -> None:
    audit = started(terms(), 2, ClaimTaken(2, tip(2), 99), ClaimTaken(2, tip(2, "better"), 99))
    assert audit.claims[2].block == 2
    assert audit.due() == [Refuse(2, tip(2, "better"))]
    audit.apply(Told(Refuse(2, tip(2, "better"))))
    audit.apply(NoMoreClaims())
    audit.apply(ClaimTaken(3, tip(3), 3))
    assert Refuse(3, tip(3)) in audit.due() and audit.claimed == 2  # after the end no Claim is taken
    with pytest.raises(ValueError, match="checkpoint 4 is claimed, and 3 was not yet"):
        started(terms(), 2, ClaimTaken(4, tip(4), 4))
    with pytest.raises(ValueError, match="checkpoint 13 is not of this lease, 1 to 12"):
        started(terms(), 2, ClaimTaken(13, tip(13), 4))


def test_three_voices_convict() -> None:
    audit = started(terms(), 4)
    asked(audit, 1, a=EQUAL)
    asked(audit, 2, b=differs())
    (again,) = (action for action in audit.due() if isinstance(action, AskReplay) and action.n == 2)
    assert (again.turn, again.excluded) == (1, frozenset({PROVIDER, CLIENT, "a", "b"}))
    asked(audit, 2, c=differs())
    assert audit.rejected is None  # two of three; before it bonds, one more
    asked(audit, 2, d=differs())
    assert audit.due()[0] == Challenge(2, tip(2), "truth")
    assert Reject(2, tip(2)) not in audit.due()  # its maker could take away what the arbiter is to look at
    assert [action.n for action in audit.due() if isinstance(action, AskReplay)] == []  # the rest is void with it
    audit.apply(ChallengeSent(2))
    assert audit.due() == [Reject(2, tip(2))]
    audit.apply(Told(Reject(2, tip(2))))
    assert audit.due() == []
    audit.apply(ClaimTaken(5, tip(5), 5))
    assert audit.due() == [Refuse(5, tip(5))]
    audit.apply(OnChain({1: tip(1), 2: tip(2, "better")}))  # another one of checkpoint 2
    assert audit.due() == [Refuse(5, tip(5))]
    audit.apply(OnChain({1: tip(1), 2: tip(2), 3: tip(3)}))  # never paid by silence
    assert Challenge(2, tip(2), "truth") in audit.due()


def test_the_arbiters_word_is_above_all_replays() -> None:
    audit = started(terms(every=1), 1)
    asked(audit, 1, liar=differs(), other=differs(), third=differs())
    audit.apply(ChallengeSent(1))
    audit.apply(Told(Reject(1, tip(1))))
    audit.apply(Upheld(1))
    audit.apply(OnChain({1: tip(1)}))  # as it was before the challenge
    assert audit.due() == [Approve(1, tip(1), False), *(Accuse(1, name) for name in ("liar", "other", "third"))]
    assert audit.cases[1].right == ()


def test_who_answers_late_is_paid_or_accused_as_any_other() -> None:
    audit = started(terms(every=1), 1)
    slow = Replayed("stalled")
    asked(audit, 1, a=slow, b=slow, c=EQUAL)
    audit.apply(ApprovalSigned(1, False))
    audit.apply(ReplayEnded(1, "a", EQUAL))
    audit.apply(ReplayEnded(1, "b", differs()))
    audit.apply(ReplayEnded(1, "c", differs()))  # its first word counts
    assert set(audit.cases[1].right) == {"a", "c"}
    assert audit.due() == [Accuse(1, "b")]


def test_an_earlier_lie_that_is_found_later() -> None:
    audit = started(terms(), 4)
    asked(audit, 3, a=differs(), b=differs(), c=differs())
    audit.apply(ChallengeSent(3))
    asked(audit, 1, d=differs(), e=differs(), f=differs())
    assert (audit.rejected, audit.challenge_due) == (1, True)


def test_what_was_judged_before_a_lie_is_approved() -> None:
    audit = started(terms(every=2), 4)  # two batches, as of a provider that claims on chain at once
    asked(audit, 1, a=EQUAL)
    asked(audit, 3, b=differs(), c=differs(), d=differs())
    assert not any(isinstance(action, Approve) for action in audit.due())
    asked(audit, 2, e=EQUAL)
    assert [action for action in audit.due() if isinstance(action, Approve)] == [Approve(2, tip(2), False)]


def test_who_lied_against_an_honest_provider_is_accused() -> None:
    audit = started(terms(every=1), 1)
    asked(audit, 1, liar=differs("a lie"), b=EQUAL)
    assert [type(action) for action in audit.due()] == [AskReplay]  # the claim and b, against one: one more
    asked(audit, 1, c=EQUAL)
    assert audit.due() == [Approve(1, tip(1), False), Accuse(1, "liar")]


def test_own_replays_come_first_and_weigh_two() -> None:
    audit = started(terms(every=1, own=True), 1)
    (first,) = audit.due()
    assert isinstance(first, AskReplay) and first.own
    asked(audit, 1, own=differs())
    (then,) = audit.due()
    assert isinstance(then, AskReplay) and not then.own
    asked(audit, 1, a=differs())
    assert audit.rejected == 1
    agrees = started(terms(every=1, own=True), 1)
    asked(agrees, 1, own=EQUAL)
    assert agrees.due() == [Approve(1, tip(1), False)]


def test_a_replay_that_fails() -> None:
    """By the own machine it is a word; of a stranger, who signs no Claim for it, it is none, yet no silence."""
    audit = started(terms(every=1), 1)
    asked(audit, 1, own=Replayed("differs", FAILED))
    assert audit.cases[1].ruling == "open"  # others are asked, as of any difference
    audit.apply(TimeUp(1))
    assert (audit.cases[1].ruling, audit.rejected) == ("false", 1)

    held = started(terms(every=1), 1)
    asked(held, 1, a=Replayed("failed"))
    assert held.cases[1].ruling == "open" and not held.cases[1].words
    held.apply(TimeUp(1))
    (alarm,) = held.due()
    assert isinstance(alarm, Alarm) and "disagree or fail" in alarm.text
    held.apply(Asked(1, "b"))
    held.apply(ReplayEnded(1, "b", EQUAL))
    assert held.cases[1].ruling == "good"


@pytest.mark.parametrize("outcome", ["stalled", "unavailable", "not_covered"])
def test_no_word_is_asked_for_elsewhere_at_once(outcome: str) -> None:
    audit = started(terms(every=1), 1)
    asked(audit, 1, a=Replayed(outcome))  # type: ignore[arg-type]
    (again,) = audit.due()
    assert isinstance(again, AskReplay) and "a" in again.excluded and again.turn == 1


def test_no_auditor_in_time() -> None:
    audit = started(terms(every=1), 1, TimeUp(1))
    assert audit.due() == [Approve(1, tip(1), False), TellUnaudited(1)]
    held = started(terms(every=1), 1)
    asked(held, 1, a=differs())
    held.apply(TimeUp(1))
    (alarm,) = held.due()  # one against one: neither approved nor challenged
    assert isinstance(alarm, Alarm) and "replays of checkpoint 1 disagree" in alarm.text
    two = started(terms(every=1), 1)
    asked(two, 1, a=differs(), b=differs())
    two.apply(TimeUp(1))
    assert two.rejected == 1  # two of three, and no time for one more


def test_an_answer_that_comes_late() -> None:
    held = started(terms(every=1), 1)
    asked(held, 1, a=differs(), b=Replayed("stalled"))
    held.apply(TimeUp(1))
    held.apply(ReplayEnded(1, "b", EQUAL))
    assert held.due() == [Approve(1, tip(1), False), Accuse(1, "a")]
    held.apply(ApprovalSigned(1, False))
    held.apply(Asked(1, "c"))
    held.apply(ReplayEnded(1, "c", differs()))  # too late: it is approved
    assert held.rejected is None
    held.apply(ReplayEnded(1, "nobody asked", differs()))
    assert "nobody asked" not in held.cases[1].answers


def test_a_late_word_about_what_was_approved_unaudited() -> None:
    audit = started(terms(every=1), 1)
    asked(audit, 1, a=Replayed("stalled"))
    audit.apply(TimeUp(1))
    audit.apply(ApprovalSigned(1, False))
    audit.apply(ReplayEnded(1, "a", differs()))
    assert audit.due() == [TellUnaudited(1)]  # nothing can be taken back, so nobody is alarmed


def test_who_stalls_after_the_decision_is_not_waited_for() -> None:
    audit = started(terms(every=1, own=True), 1)
    audit.apply(Asked(1, OWN))
    audit.apply(ReplayEnded(1, OWN, differs()))
    audit.apply(Asked(1, "a"))
    audit.apply(TimeUp(1))
    assert audit.rejected == 1
    audit.apply(ReplayEnded(1, "a", Replayed("stalled")))
    assert not audit.cases[1].is_waiting and audit.rejected == 1
    late = started(terms(every=1, own=True), 1, Asked(1, OWN), TimeUp(1), ApprovalSigned(1, False))
    late.apply(ReplayEnded(1, OWN, EQUAL))
    assert late.cases[1].has_answered(OWN)  # else it would be replayed again, and again
    audit.apply(ReplayEnded(7, "a", Replayed("stalled")))  # of a checkpoint that was not drawn


def test_runs_that_all_differ() -> None:
    for rule, ends in (("end", True), ("unaudited", False)):
        audit = started(terms(every=2, unreproducible=rule), 4)
        asked(audit, 1, f=EQUAL)
        asked(audit, 2, g=EQUAL)
        audit.apply(ApprovalSigned(2, False))
        asked(audit, 3, **{name: differs(name) for name in "abcde"})
        assert audit.cases[3].ruling is Ruling.UNREPRODUCIBLE
        due = audit.due()
        assert TellUnreproducible(3, ends) in due
        assert [action for action in due if isinstance(action, Approve)] == [
            Approve(2, tip(2), True) if ends else Approve(4, tip(4), False)
        ]
        assert not any(isinstance(action, AskReplay | Challenge) for action in due)


def test_what_can_not_be() -> None:
    with pytest.raises(ValueError, match="a root is told if it differs"):
        Replayed("equal", "x")
    with pytest.raises(ValueError, match="nothing is drawn"):
        AuditTerms("0x", PROVIDER, 0, 1, tip(0), bytes(32), UNCHECKED)
    assert Case().ask("a").ask("a").asked == ("a",)
    assert Drawable(1, tip(1)) == Drawable(1, tip(1))
