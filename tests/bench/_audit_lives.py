"""Liars, honest providers and keyed clients under audit: the real draw, commitments and decisions, a recipe of
microseconds, no chain.

detection_z_max        how far the lives of each kind of liar, at 2, 10 and 25 %, are from 1 - (1-q)^lies of each batch;
                       standard errors, the largest of all
liar_profit_max        what a liar can expect of a batch, in prices: exact, over kinds, mixes and lengths of batches,
                       under the default terms of both levels, when it owns 15 % of the auditors; below 0
honest_stake_lost      of honest providers, all to themselves or with 15 % of lying auditors, in prices; the arbiter
                       trains again
keyed_client_gain_max  checkpoints beyond one batch that a client gets unpaid by a recipe that differs in replays
false_alarms           rejections, challenges, accusations and alarms in honest lives: auditors that vanish, leases that
                       end early, moves, restarts of the approver
audit_cost             tokens paid for replays over tokens paid for training in those lives, at q = 10 %
"""

import hashlib
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from random import Random

from contracts.audits.auditors import AuditorOffer
from contracts.audits.cases import Case, Replayed
from contracts.audits.decision import Audit
from contracts.audits.deterrence import OWN_SHARE, default_stake, penalty_of
from contracts.audits.draw import lease_secret, threshold
from contracts.audits.events import (
    Accuse,
    Alarm,
    Approve,
    Asked,
    AskReplay,
    AuditTerms,
    BlockFinal,
    Challenge,
    ClaimTaken,
    NoMoreClaims,
    Reject,
    ReplayEnded,
)
from contracts.audits.levels import CLOSED, OPEN
from contracts.audits.verification import Verification
from contracts.commitment import start_tip
from contracts.orders import Domain
from contracts.types import to_hex
from tests.bench import Figure
from tests.bench._audit_recipe import BEGINNING, CHECKPOINTS, JOB, LIARS, History, Liar, Made, honest, train
from tests.support.audited_lives import AuditedLife, Luck

LIVES = 1_000
SHARES = (20_000, 100_000, 250_000)  # millionths
PRICE, ARBITER_FEE = 1_000_000, 3_750_000  # of a checkpoint; of three replays at the price cap
DOMAIN = Domain(chain_id=31337, verifying_contract="0x5FbDB2315678afecb367f032d93F642f64180aa3")
KEY = hashlib.sha256(b"approver").digest()
HONEST = [f"0xhonest{n:02d}" for n in range(17)]
LYING = [f"0xlying{n:02d}" for n in range(3)]  # 15 % of twenty of one stake
# From 0.75 to 1.25 of the price, and one beyond the cap that is never asked.
OFFERS = [AuditorOffer(name, 100, PRICE * (75 + 50 * n // 19) // 100) for n, name in enumerate([*HONEST, *LYING])]
OFFERS.append(AuditorOffer("0xdear", 10_000, 2 * PRICE))


def figures(lives: int = LIVES) -> Iterator[Figure]:
    yield "detection_z_max", max(abs(z) for z in detections(lives).values()), "standard errors"
    yield "liar_profit_max", float(max(profits().values())), "prices a batch"
    yield "honest_stake_lost", honest_stake_lost(lives), "prices"
    yield "keyed_client_gain_max", max(keyed_gains(lives)), "checkpoints"
    alarms, cost = honest_lives(lives)
    yield "false_alarms", alarms, "alarms"
    yield "audit_cost", float(cost), "tokens a token"


def _terms(verification: Verification, name: str, end: int, start: int = 0, start_tip_: str = "") -> AuditTerms:
    lease = to_hex(hashlib.sha256(name.encode()).digest())
    tip = start_tip_ or to_hex(start_tip(JOB))
    return AuditTerms(lease, "0xprovider", start, end, tip, lease_secret(KEY, DOMAIN, lease), verification)


# ------------------------------------------------------------------ liars


def detections(lives: int = LIVES) -> dict[tuple[str, int], float]:
    """By kind of liar and share: (caught - expected) / standard error."""
    return {(kind, share): _detection(kind, liar, share, lives) for kind, liar in LIARS.items() for share in SHARES}


def _detection(kind: str, liar: Liar, share: int, lives: int) -> float:
    verification = CLOSED.model_copy(update={"share_ppm": share})
    caught, history = 0, History(())
    for number in range(lives):
        rng = Random(f"{kind} {share} {number}")
        history = liar.history(rng)
        terms = _terms(verification, f"{kind} {share} {number}", max(liar.made, CHECKPOINTS))
        life = AuditedLife(terms, history.tips, lambda n, _, seen=history: seen.replay(n), OFFERS, PRICE, rng).run()
        caught += life.is_caught
        if life.is_caught and history.replay(life.audit.rejected or 0).outcome != "differs":
            raise AssertionError(f"{kind}: checkpoint {life.audit.rejected} was convicted, and is no lie")
    missed = _missed(verification, liar.made, history.lies)  # the same in every life
    return (caught - lives * (1 - missed)) / (lives * missed * (1 - missed)) ** 0.5


def _missed(verification: Verification, made: int, lies: frozenset[int]) -> float:
    """The formula: each lie of a batch of j is missed with (1-q)^(m/j)."""
    every, missed = verification.approve_every, 1.0
    for first in range(1, made + 1, every):
        batch = range(first, min(first + every, made + 1))
        each = (1 - verification.share_ppm / 1e6) ** (every / len(batch))
        missed *= each ** len(lies.intersection(batch))
    return missed


def profits(own: Fraction = OWN_SHARE) -> dict[tuple[str, str, int, int], Fraction]:
    """By level, kind, length of the batch and lies in it: what the liar can expect over an honest provider, in prices.

    Away with it, it has saved the work of its lies; else it has lost the work that it did, and the penalty.
    """
    found = {}
    for verification in (CLOSED, OPEN):
        stake = default_stake(verification, PRICE, ARBITER_FEE)
        penalty = Fraction(penalty_of(verification.level, stake, ARBITER_FEE), PRICE)
        for size in range(1, verification.approve_every + 1):
            for lies in range(1, size + 1):
                away = chance_away(verification, size, lies, own)
                for kind, liar in LIARS.items():
                    done = size - lies + lies * (1 - liar.saves)
                    profit = away * lies * liar.saves - (1 - away) * (done + penalty)
                    found[verification.level, kind, size, lies] = profit
    return found


@lru_cache(maxsize=1024)
def chance_away(verification: Verification, size: int, lies: int, own: Fraction) -> Fraction:
    """That a batch of `size`, of which the first `lies` are lies, is approved: every outcome of the draw by its weight,
    and every answer by the share of who gives it, through the real decisions.
    """
    drawn = Fraction(threshold(verification.share_ppm, verification.approve_every, size), 1 << 256)
    total, known = Fraction(0), dict[tuple[tuple[str, ...], ...], Fraction]()
    for count in range(lies + 1):
        for which in combinations(range(1, lies + 1), count):  # honest ones are found equal by everybody
            weight = drawn**count * (1 - drawn) ** (lies - count)
            total += weight * _approved(_drawn_from(verification, size, which), own, known)
    return total


def _drawn_from(verification: Verification, size: int, which: tuple[int, ...]) -> Audit:
    audit = Audit(_terms(verification, "a batch", size))
    for n in range(1, size + 1):
        audit.apply(ClaimTaken(n, f"0x{n:040x}", n))
    audit.apply(NoMoreClaims())
    audit.apply(BlockFinal(size + 1, "0x" + "00" * 32))
    audit.drawn, audit.cases = which, {n: Case() for n in which}  # in place of what that block would draw
    return audit


def _approved(audit: Audit, own: Fraction, known: dict[tuple[tuple[str, ...], ...], Fraction]) -> Fraction:
    """The chance that all of the batch is approved, if the liar's own auditors say that its lies are equal."""
    due = audit.due()
    if any(isinstance(action, Challenge) for action in due):
        return Fraction(0)
    if any(isinstance(action, Approve) and action.n == audit.claimed for action in due):
        return Fraction(1)
    state = tuple(sorted(tuple(sorted(case.words.values())) for case in audit.cases.values()))
    if state not in known:
        asked = next(action for action in due if isinstance(action, AskReplay))
        auditor, chance = f"auditor {asked.turn}", Fraction(0)
        for weight, answer in ((own, Replayed("equal")), (1 - own, Replayed("differs", "the truth"))):
            branch = audit.copy()
            branch.apply(Asked(asked.n, auditor))
            branch.apply(ReplayEnded(asked.n, auditor, answer))
            chance += weight * _approved(branch, own, known)
        known[state] = chance
    return known[state]


# ------------------------------------------------------------------ honest providers


def honest_stake_lost(lives: int = LIVES) -> float:
    """The arbiter trains the questioned checkpoint again, and takes the stake if that differs from the claim."""
    lost = Fraction(0)
    for verification in (CLOSED, OPEN):
        stake = Fraction(default_stake(verification, PRICE, ARBITER_FEE), PRICE)
        for number in range(lives):
            history = _honest_history()
            liars = LYING if number % 2 else []

            def replay(n: int, auditor: str, seen: History = history, liars: list[str] = liars) -> Replayed:
                return Replayed("differs", "a lie") if auditor in liars else seen.replay(n)

            terms = _terms(verification, f"honest {verification.level} {number}", CHECKPOINTS)
            life = AuditedLife(terms, history.tips, replay, OFFERS, PRICE, Random(number)).run()
            wrong = [action for action in life.of(Challenge) if history.replay(action.n).outcome == "differs"]
            lost += stake * len(wrong)
    return float(lost)


@lru_cache(maxsize=1)
def _honest_history() -> History:
    return Liar(honest, Fraction(0)).history(Random(0))


def keyed_gains(lives: int = LIVES) -> Iterator[int]:
    """Of a client whose recipe gives one thing on the provider's machine and others elsewhere: alike in all replays
    (keyed to a name), or never twice the same (to the clock). A void burns the stake, so that all it has is bytes.
    """
    for number in range(lives):
        rng, past = Random(f"keyed {number}"), list[Made]()
        for n in range(1, CHECKPOINTS + 1):
            past.append(train(past[-1].state if past else BEGINNING, n, where=b"here"))
        history = History(tuple(past))

        def replay(n: int, auditor: str, seen: History = history, clock: bool = number % 2 == 0) -> Replayed:
            return seen.replay(n, where=auditor.encode() if clock else b"elsewhere")

        terms = _terms(OPEN, f"keyed {number}", CHECKPOINTS)
        audit = AuditedLife(terms, history.tips, replay, OFFERS, PRICE, rng).run().audit
        yield audit.claimed - audit.approved - OPEN.approve_every


def honest_lives(lives: int = LIVES) -> tuple[int, Fraction]:
    """How often an honest provider was accused, and tokens for replays over tokens for training."""
    alarms, paid, earned = 0, 0, 0
    history = _honest_history()
    prices = {offer.provider: offer.price for offer in OFFERS}
    luck = Luck(stall=0.1, restart=0.2, early_end=0.02)
    for number in range(lives):
        start, tip = 0, ""
        while start < CHECKPOINTS:  # a lease that ends early goes on elsewhere
            terms = _terms(CLOSED, f"moves {number} {start}", CHECKPOINTS, start, tip)
            rng = Random(f"moves {number} {start}")
            life = AuditedLife(
                terms, history.tips[start:], lambda n, _: history.replay(n), OFFERS, PRICE, rng, luck
            ).run()  # fmt: skip
            alarms += sum(len(life.of(kind)) for kind in (Reject, Challenge, Accuse, Alarm))
            answered = [(n, who) for n, case in life.audit.cases.items() for who in case.words]
            paid += sum(prices[who] for _, who in answered)
            earned += PRICE * (life.audit.approved - start)
            if life.audit.approved != life.audit.claimed:
                raise AssertionError(f"life {number}: {life.audit.approved} of {life.audit.claimed} were approved")
            start = life.audit.approved
            tip = history.tips[start - 1] if start else ""
    return alarms, Fraction(paid, earned)
