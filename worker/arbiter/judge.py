"""Looks at one dispute: trains the questioned stretch, or fetches the questioned bytes. contracts/audits/ruling.py
decides what follows."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.auditing.sold_class import sold_class
from contracts.api.bodies import CheckpointOut, CheckpointStatus, JobOut
from contracts.api.client import MarketClient, Unreachable
from contracts.api.grants import Check, granted_job_key
from contracts.api.problems import Code, Problem
from contracts.api.records import root_of
from contracts.audits.cases import FAILED
from contracts.audits.coverage import problem_with_class
from contracts.audits.recipes import why_open
from contracts.audits.ruling import (
    Found,
    Ground,
    Stretch,
    control_stretches,
    rule_bytes,
    rule_root,
    wants_control,
)
from contracts.audits.verification import Verification
from contracts.chain.client import Chain
from contracts.chain.events import Claimed
from contracts.chain.lookup import lease_events, verify_lease
from contracts.errors import UserError
from contracts.job.sealing import NotOpened
from contracts.orders import Rules
from contracts.program.progress_bar import Watch
from contracts.terms import Verdict
from contracts.types import to_hex
from worker.arbiter.disputes import DisputedStretch
from worker.replay.findings import Withheld
from worker.replay.levels import find_verification
from worker.replay.replay import Replayer
from worker.replay.stretch import ReplayOptions
from worker.sandbox.hiding.variation import PLAIN, Variation, varied


class CantTell(UserError):
    """Why there is no verdict: it is told to the operator, and to nobody else."""


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    why: str
    control_differs: bool = False  # the provider has lied before, or this machine is not to be trusted


class Judge:
    def __init__(
        self,
        market: MarketClient,
        chain: Chain,
        account: LocalAccount,
        own: PrivateKey,
        is_signed: Check,
        options: ReplayOptions,
        runs: int,
    ) -> None:
        """`market` signs with `account`, whose encryption key is `own`. `runs`: own ones, of a stretch."""
        self._market, self._chain, self._account, self._own = market, chain, account, own
        self._is_signed, self._options, self._runs = is_signed, options, runs

    def judge(self, dispute: DisputedStretch, folder: Path, now: int, check: Callable[[], None]) -> Judgement:
        """What there is to be said `now` (UTC seconds); `folder` is for this alone. `check` is called now and then, and
        may raise. Raises CantTell, and UserError for what may be over when it is tried again.
        """
        job = self._job(dispute)
        replayer = partial(self._replayer, job, self._job_key(job), folder, check)
        if dispute.question.ground == Ground.WITHHELD:
            return self._judge_bytes(dispute, replayer, now)
        return self._judge_root(dispute, job, replayer, folder)

    # ------------------------------------------------------------- the job

    def _job(self, dispute: DisputedStretch) -> JobOut:
        """As the lease on chain commits to it."""
        lease = self._market.lease(dispute.question.lease)
        verify_lease(self._chain, lease, dispute.opening)
        job = self._market.job(lease.job)
        if job.id != lease.job or job.bid.digest(self._chain.domain) != lease.job or job.spec != lease.spec:
            raise CantTell(f"{self._market.url} gives another job than lease {lease.id} is of", "the market lies")
        return job

    def _job_key(self, job: JobOut) -> bytes | None:
        if not job.spec.sealed:
            return None
        return granted_job_key(self._market, self._chain.domain, job, self._account, self._own, self._is_signed)

    def _replayer(
        self,
        job: JobOut,
        job_key: bytes | None,
        folder: Path,
        check: Callable[[], None],
        said: str,
        variation: Variation = PLAIN,
    ) -> Replayer:
        def watch(what: str, done: int = 0, total: int | None = None) -> None:
            check()
            self._options.watch(f"{said}: {what}", done, total)

        telling: Watch = watch
        options = replace(self._options, watch=telling, variation=variation)
        return Replayer(self._market, job, self._chain.domain, self._is_signed, job_key, folder, options)

    # ------------------------------------------------------------- ground: withheld

    def _judge_bytes(self, dispute: DisputedStretch, replayer: Callable[..., Replayer], now: int) -> Judgement:
        found, why = self._find_bytes(dispute, replayer("the bytes"))
        timeout = dispute.rules.arbiter_timeout
        verdict = rule_bytes(found, now - dispute.since, timeout)
        if verdict is None:
            raise CantTell(why, f"they may still come: it is ruled on {timeout // 2} s after the challenge")
        return Judgement(verdict, why)

    def _find_bytes(self, dispute: DisputedStretch, replayer: Replayer) -> tuple[Found, str]:
        question = dispute.question
        if replayer.job.spec.sealed:
            replayer.fetch_job()  # which proves the key: else a client could withhold what is there
        try:
            claim = replayer.claim(question.k, question.tip)
        except Unreachable:
            raise
        except UserError as error:
            if not self._is_on_chain(dispute):
                hint = "its maker may have handed in another one in its place: nobody is convicted by that"
                raise CantTell(f"a signed Claim, not claimed on chain: {error.message}", hint) from error
            return "missing", error.message
        _check_root(claim, replayer, question.claimed)
        try:
            replayer.fetch_claimed(claim)
        except Withheld as error:
            match error.__cause__:
                case Problem(status=404):
                    return "missing", error.message
                case Problem(code=Code.BLOB_MISMATCH) | NotOpened():
                    return "wrong", error.message
            raise CantTell(error.message, error.hint) from error
        except ValueError as error:
            return "wrong", str(error)
        return "there", f"the state of checkpoint {question.k} is there, and is what was claimed"

    def _is_on_chain(self, dispute: DisputedStretch) -> bool:
        """Whether the questioned root was claimed there; else it is of a Claim that was signed only."""
        question, opening = dispute.question, dispute.opening
        return any(
            question.claimed == root and question.k == event.n - len(event.roots) + number
            for event in lease_events(self._chain, question.lease, opening.at.block)
            if isinstance(event, Claimed)
            for number, root in enumerate(event.roots, 1)
        )

    # ------------------------------------------------------------- ground: wrong

    def _judge_root(
        self, dispute: DisputedStretch, job: JobOut, replayer: Callable[..., Replayer], folder: Path
    ) -> Judgement:
        question, roots, verification = dispute.question, list[str](), self._verification(dispute.rules)
        if problem := self._problem_with_class(dispute, replayer("the claim"), verification):
            return Judgement(Verdict.VOID, problem)
        open_because = why_open(verification, job.spec)
        for run in range(self._runs):
            each = replayer(f"run {run + 1} of {self._runs}", varied(run))
            claim = each.claim(question.k, question.tip)
            _check_root(claim, each, question.claimed)
            roots.append(_root(each, claim, folder))
            if roots[-1] != roots[0]:
                break
        control = None
        if wants_control(question.claimed, roots, open_because is None):
            control = self._control(replayer, claim, folder)
        verdict = rule_root(question.claimed, roots, closed=open_because is None, control=control)
        return Judgement(verdict, _why(verdict, roots, open_because, control), control is False)

    def _problem_with_class(
        self, dispute: DisputedStretch, replayer: Replayer, verification: Verification
    ) -> str | None:
        """A claim of a class that its provider does not sell, or that the rules' audits don't cover, is no work under
        these rules: to be silent on what can't be run here would pay whoever makes a class up. Rules without audits
        promise nothing of a class.
        """
        if verification.level == "unchecked":
            return None
        claim = replayer.claim(dispute.question.k, dispute.question.tip)
        _check_root(claim, replayer, dispute.question.claimed)
        told = sold_class(self._market.ask(dispute.opening.ask), self._chain.domain, dispute.opening.ask)
        asked = replayer.job.spec.resources.threads
        return problem_with_class(claim.checkpoint.numerics, verification, told, asked)

    def _control(self, replayer: Callable[..., Replayer], claim: CheckpointOut, folder: Path) -> bool | None:
        """Whether another stretch of the job is equal here; None if none can be trained."""
        control = replayer("a control stretch")
        earlier = {one.checkpoint.index: one for one in control.earlier(claim)}
        stretches = [Stretch(n, one.provider, one.status is CheckpointStatus.APPROVED) for n, one in earlier.items()]
        found = None
        for n in control_stretches(stretches, claim.provider):
            try:
                if _root(control, earlier[n], folder) == earlier[n].checkpoint.root:
                    return True
                found = False
            except CantTell:
                continue
        return found

    def _verification(self, rules: Rules) -> Verification:
        """What the rules commit to. Raises CantTell if nobody shows it."""
        found = find_verification(self._market, self._chain.settings, rules)
        if found is not None:
            return found
        raise CantTell(
            f"the lease's rules commit to the verification {rules.verification}, and nobody shows its JSON",
            "put it into config.toml, as a text in [verifications], under the name of a rule-set with that hash",
        )


def _check_root(claim: CheckpointOut, replayer: Replayer, claimed: str) -> None:
    """The market's record must be what was claimed on chain. Raises CantTell."""
    if (root := to_hex(root_of(claim.checkpoint, replayer.job.spec))) != claimed:
        raise CantTell(f"the market's record comes to the root {root}, claimed on chain was {claimed}")


def _root(replayer: Replayer, claim: CheckpointOut, folder: Path) -> str:
    """What training the stretch of a claim gives here, or FAILED. Raises CantTell."""
    try:
        found = replayer.verify(claim.checkpoint.index, claim.checkpoint.tip)
    finally:
        shutil.rmtree(folder / "work", ignore_errors=True)
    if found.verdict == "failed" and found.spoiled:
        return FAILED
    if found.verdict not in ("equal", "differs") or found.rerun is None:
        raise CantTell(f"checkpoint {claim.checkpoint.index}: {found.verdict}: {found.why}", found.hint)
    return to_hex(found.rerun.root)


def _why(verdict: Verdict, roots: list[str], open_because: str | None, control: bool | None) -> str:
    if verdict is Verdict.TRUE:
        return f"{len(roots)} runs of the stretch gave the claimed root"
    if verdict is Verdict.UNREPRODUCIBLE:
        return f"runs of the stretch differ from each other: {', '.join(roots)}"
    gave = f"{len(roots)} runs of the stretch gave {roots[0]}"
    if roots[0] == FAILED:
        gave = f"in {len(roots)} runs of the stretch the recipe fails, and from the job's start it does not"
    if open_because is not None:
        return f"{gave}; the job is open: {open_because}"
    told = {True: "is equal here", False: "differs here, too", None: "can't be had"}[control]
    return f"{gave}; the job is closed, and a control stretch of it {told}"
