"""Claims that are on chain inside their window, trained again by anybody who may read the job; what differs can be
challenged, for a fifth of the stake where the job is closed.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from eth_account.signers.local import LocalAccount
from nacl.public import PrivateKey

from contracts.api.bodies import JobOut, LeaseOut
from contracts.api.client import MarketClient, Unreachable
from contracts.api.grants import Check, granted_job_key
from contracts.audits.recipes import why_open
from contracts.audits.ruling import LEAST_RUNS
from contracts.chain.client import Chain
from contracts.chain.errors import NODE_AWAY
from contracts.chain.events import Opened
from contracts.chain.ledger import REWARD_DIVISOR
from contracts.chain.lookup import lease_events, opened, pending_roots, tips_on_chain, verify_lease
from contracts.chain.sending.sender import Sender
from contracts.commitment import next_tip
from contracts.errors import UserError
from contracts.terms import Phase, StateWord
from contracts.types import from_hex, to_hex
from worker.replay.levels import find_verification
from worker.replay.replay import Replayer
from worker.replay.stretch import ReplayOptions
from worker.sandbox.hiding.variation import varied

CHALLENGEABLE = (Phase.ACTIVE, Phase.CLOSING)
MARGIN_SHARE = 10  # of a window, that a challenge must have to get in

log = structlog.get_logger()


class WindowOver(UserError):
    """It is too late to challenge a claim: it is accepted, or about to be."""


@dataclass(frozen=True)
class PendingClaim:
    """What of a lease is claimed on chain and not accepted."""

    lease: LeaseOut
    opening: Opened
    state: StateWord
    accepted_tip: str
    roots: Sequence[str]  # from accepted + 1 to claimed

    @property
    def until(self) -> int:
        """UTC seconds; from then on it is accepted."""
        return self.state.t + self.opening.terms.nums.window

    def tips(self) -> Iterator[tuple[int, str]]:
        tip = from_hex(self.accepted_tip)
        for n, root in enumerate(self.roots, self.state.accepted + 1):
            tip = next_tip(tip, from_hex(root))
            yield n, to_hex(tip)

    def bond(self, challenger: str) -> int:
        """What a challenge of it takes, in the token's smallest unit."""
        terms = self.opening.terms
        rest = terms.nums.price * len(self.roots)
        if challenger in (terms.parties.client, terms.parties.approver):
            rest = min(rest, terms.parties.stake)
        return self.lease.rules.arbiter_fee + rest


@dataclass(frozen=True)
class Watched:
    """One checkpoint that was looked at."""

    pending: PendingClaim
    n: int
    tip: str
    verdict: str  # as a replay's
    why: str
    bond: int
    reward: int  # for who is found right; 0: the job is open, or by its rules nobody gains
    challenged: str | None = None  # the dispute's id


class Watcher:
    """Looks at each checkpoint once."""

    def __init__(
        self,
        market: MarketClient,
        sender: Sender,
        own: PrivateKey,
        is_signed: Check,
        options: ReplayOptions,
        folder: Path,
        *,
        challenges: bool,
        stop: threading.Event | None = None,
    ) -> None:
        """`market` signs with `sender`'s key, whose encryption key is `own`; replays work below `folder`."""
        self._market, self._sender, self._own, self._is_signed = market, sender, own, is_signed
        self._options, self._folder, self._challenges = options, folder, challenges
        self._stop = stop or threading.Event()
        self._openings: dict[str, Opened] = {}
        self._found: dict[tuple[str, str], tuple[str, str]] = {}  # verdict and why, by lease and tip
        self._done: set[tuple[str, str]] = set()  # those of which there is no more to be done
        self._told: dict[str, str] = {}  # what was said last, by lease and by tip

    @property
    def _chain(self) -> Chain:
        return self._sender.chain

    @property
    def _account(self) -> LocalAccount:
        return self._sender.account

    def look(self, jobs: Sequence[str] = ()) -> Iterator[Watched]:
        """What is new in claims of these jobs (ids; none: all), those first whose window ends first."""
        for pending in sorted(self._pending(jobs), key=lambda one: one.until):
            with structlog.contextvars.bound_contextvars(lease=pending.lease.id, job=pending.lease.job):
                try:
                    yield from self._look_at(pending)
                except NODE_AWAY:
                    raise
                except UserError as error:  # one lease's trouble is not another's
                    self._tell(pending.lease.id, error)

    def _pending(self, jobs: Sequence[str]) -> list[PendingClaim]:
        found = []
        for listed in self._market.leases(live=True):
            if (jobs and listed.job not in jobs) or self._stop.is_set():
                continue
            try:
                if pending := self._read(listed.id, listed.opened_block):
                    found.append(pending)
            except NODE_AWAY:
                raise
            except UserError as error:
                self._tell(listed.id, error)
        return found

    def _read(self, lease: str, near: int) -> PendingClaim | None:
        """A lease's claims as the chain has them; None if nothing is pending that can be challenged."""
        chain = self._chain
        state = chain.state(lease)
        if state.phase not in CHALLENGEABLE or state.claimed == state.accepted:
            return None
        if lease not in self._openings:
            self._openings[lease] = opened(chain, lease, near)
        opening = self._openings[lease]
        if state.synced(opening.terms.nums, chain.now()) != state:
            return None  # accepted, though nobody has said so on chain yet
        out = self._market.lease(lease)
        verify_lease(chain, out, opening)
        events = lease_events(chain, lease, opening.at.block)
        roots = pending_roots(events, state)
        pending = PendingClaim(
            out, opening, state, tips_on_chain(opening, events).tips[state.accepted], [roots[n] for n in sorted(roots)]
        )
        last = [tip for _, tip in pending.tips()][-1]
        if last != state.tip_hex:
            raise UserError(f"the claims of lease {lease} lead to {last}, the chain has {state.tip_hex}")
        return pending

    # ------------------------------------------------------------- one lease

    def _look_at(self, pending: PendingClaim) -> Iterator[Watched]:
        lease = pending.lease.id
        wanted = [(n, tip) for n, tip in pending.tips() if (lease, tip) not in self._done]
        if not wanted:
            return
        job = self._market.job(pending.lease.job)
        if job.id != pending.lease.job or job.spec != pending.lease.spec:
            raise UserError(f"{self._market.url} gives another job than lease {lease} is of")
        job_key = None
        if job.spec.sealed:
            job_key = granted_job_key(self._market, self._chain.domain, job, self._account, self._own, self._is_signed)
        for n, tip in wanted:
            is_known = (lease, tip) in self._found
            verdict, why = self._found.get((lease, tip)) or self._replay(pending, job, job_key, n, tip)
            watched = self._watched(pending, job, n, tip, verdict, why)
            if verdict != "withheld":  # which may come yet
                self._found[lease, tip] = (verdict, why)
            is_new = not is_known and self._told.get(tip) != why
            self._told[tip] = why
            if verdict == "differs" and self._challenges:
                if is_new:
                    yield watched
                yield replace(watched, challenged=self._challenge(watched))
                self._done.add((lease, tip))
                return  # all that is pending is set aside
            if verdict != "withheld":
                self._done.add((lease, tip))
            if is_new:
                yield watched

    def _replay(self, pending: PendingClaim, job: JobOut, job_key: bytes | None, n: int, tip: str) -> tuple[str, str]:
        """Verdict and why. Twice, and varied, before a difference is held against anybody."""
        self._check_time(pending)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        roots = list[bytes]()
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            for run in range(LEAST_RUNS):
                replayer = self._replayer(pending, job, job_key, n, Path(name), run)
                try:
                    replayer.claim(n, tip)
                except Unreachable:
                    raise
                except UserError as error:
                    return "withheld", error.message
                found = replayer.verify(n, tip)
                if found.verdict != "differs" or found.rerun is None:
                    return found.verdict, found.why
                roots.append(found.rerun.root)
                shutil.rmtree(Path(name) / "work", ignore_errors=True)
        if len(set(roots)) > 1:
            return "failed", "replays of it differ from each other: it is not reproducible, or not here"
        return found.verdict, found.why

    def _replayer(
        self, pending: PendingClaim, job: JobOut, job_key: bytes | None, n: int, folder: Path, run: int
    ) -> Replayer:
        ends = time.monotonic() + pending.until - self._now()

        def watch(what: str, done: int = 0, total: int | None = None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            if time.monotonic() > ends:
                raise WindowOver(f"the window of checkpoint {n} was over before its replay")
            self._options.watch(f"checkpoint {n} of lease {pending.lease.id[:12]}: {what}", done, total)

        options = replace(self._options, watch=watch, variation=varied(run))
        return Replayer(self._market, job, self._chain.domain, self._is_signed, job_key, folder, options)

    def _watched(self, pending: PendingClaim, job: JobOut, n: int, tip: str, verdict: str, why: str) -> Watched:
        level = find_verification(self._market, self._chain.settings, pending.lease.rules)
        closed = level is not None and why_open(level, job.spec) is None
        at_stake = pending.opening.terms.parties.stake - pending.lease.rules.arbiter_fee
        reward = at_stake // REWARD_DIVISOR if closed else 0
        return Watched(pending, n, tip, verdict, why, pending.bond(self._account.address), reward)

    # ------------------------------------------------------------- a challenge

    def _challenge(self, watched: Watched) -> str:
        """The dispute's id. Raises UserError if the account can't bond it, and WindowOver."""
        chain, before = self._chain, watched.pending
        now = self._read(before.lease.id, before.opening.at.block)
        if now is None or (watched.n, watched.tip) not in now.tips():
            raise WindowOver(f"checkpoint {watched.n} is accepted, or claimed otherwise, meanwhile")
        self._check_time(now)
        needed, free = now.bond(self._account.address), chain.account(self._account.address).free
        if free < needed:
            raise UserError(
                f"a challenge of checkpoint {watched.n} takes a bond of {chain.format_amount(needed)}, and "
                f"{self._account.address} has {chain.format_amount(free)} free in the escrow",
                f"gpumarket wallet deposit, {chain.format_amount(needed - free)} more",
            )
        terms, rules = now.opening.terms, now.lease.rules
        call = chain.challenge(terms, rules, now.accepted_tip, now.roots, watched.n)
        self._sender.send(call, key=f"challenge {now.lease.id} {watched.n} {watched.tip} {now.state.t}")
        dispute = chain.dispute(now.lease.id)
        log.warning("watch.challenged", n=watched.n, bond=needed, dispute=dispute and dispute.id)
        return dispute.id if dispute else ""

    def _check_time(self, pending: PendingClaim) -> None:
        left = pending.until - self._now()
        if left * MARGIN_SHARE < pending.opening.terms.nums.window:
            raise WindowOver(f"only {left} s are left to challenge what is claimed of lease {pending.lease.id}")

    def _now(self) -> int:
        return max(int(time.time()), self._chain.now())

    def _tell(self, lease: str, error: UserError) -> None:
        if self._told.get(lease) != error.message:  # once: it may be so in each round
            self._told[lease] = error.message
            log.warning("watch.skipped", lease=lease, problem=error.message, hint=error.hint)
