"""A lease's money: sees to the chain's clock, redeems, claims, ends, collects."""

import time
from dataclasses import dataclass

import structlog
from web3.contract.contract import ContractFunction

from contracts.chain.errors import NODE_AWAY, EscrowError
from contracts.chain.events import Approved, Closed, Resolved, Settled
from contracts.chain.lookup import lease_events
from contracts.errors import UserError
from contracts.finality import KEPT_BLOCKS, at_stake
from contracts.program.logs import Trouble
from contracts.terms import Phase, StateWord, Verdict
from worker.lease.folder import LeaseFile, LeaseFolder
from worker.lease.schedule import Action, LeaseTiming, Progress, next_action
from worker.lease.tools import LeaseTools

LONGEST_PAUSE = 15.0  # seconds between two tries of what was refused
# Refusals that a later block will take back: its time is not there yet, or the arbiter has not ruled.
PATIENCE = ("Escrow_TooEarly", "Escrow_NothingPending", "Escrow_NoVerdict")


@dataclass(frozen=True)
class Turn:
    """How a lease stood at one look at the chain, and what was due."""

    now: float  # the chain's time
    state: StateWord
    action: Action


class Settlement:
    """One lease's dealings with the escrow. One thread calls `turn` again and again."""

    def __init__(self, folder: LeaseFolder, tools: LeaseTools, timing: LeaseTiming) -> None:
        self._folder, self._usual_timing = folder, timing
        self._chain, self._clock, self._sender = tools.chain, tools.clock, tools.sender
        self._log = structlog.get_logger().bind(lease=folder.lease, job=folder.file.parties.bid)
        self._trouble = Trouble(self._log)
        self._not_before = 0.0  # monotonic
        self._refusals = 0
        self._useless: tuple[int, str] | None = None  # an Approval's index, and the intent that came to nothing
        self._missing_since: float | None = None  # the chain's time
        self.missing_seconds = 0.0  # for which the chain has known nothing of the lease

    @property
    def timing(self) -> LeaseTiming:
        file = self._folder.file
        return self._usual_timing.audited(file.nums.window) if file.audits else self._usual_timing

    def turn(self) -> Turn | None:
        """Looks at the chain and does what is due. None if the chain does not answer."""
        file = self._folder.file
        try:
            now = self._clock.now()
            state = self._chain.state(self._folder.lease)
            self._note(state, now)
            if self._useless is not None and self._useless[1] != self._intent(Action.REDEEM_CHALLENGED, state):
                self._useless = None
            action = next_action(state, file.nums, self.progress(), self.timing, now)
            if action == Action.OVER:
                action = self._finish(now)
            elif self._may_act(action):
                self._do(action, now, state)
            self._trouble.over("chain")
        except NODE_AWAY as error:
            self._trouble.at("chain", f"{type(error).__name__}: {error}"[:300])
            return None
        return Turn(now, state, action)

    def progress(self) -> Progress:
        """Where the worker stands, by its files."""
        file = self._folder.file
        claimable = file.made if file.rejected is None else min(file.made, file.rejected - 1)
        if file.awaits_commitment:
            claimable = file.base
        due = word_due(file, claimable)
        return Progress(
            claimable=claimable,
            approved=file.approval.approval.n if file.approval else 0,
            last=bool(file.approval and file.approval.approval.last),
            waited=None if due is None else _since(self._folder.made_at(due)),
            finished=file.made == file.nums.end,
            releasing=None if file.releasing_since is None else _since(file.releasing_since),
            full=file.full,
            undisputed=not (file.approval and self._useless and file.approval.approval.n == self._useless[0]),
        )

    def _note(self, state: StateWord, now: float) -> None:
        """Remembers what the chain says, while it says something."""
        if state.phase in (Phase.NONE, Phase.CLOSED):
            return
        self._missing_since, self.missing_seconds = None, 0.0
        accepted = state.synced(self._folder.file.nums, now).accepted
        if accepted > self._folder.file.accepted:
            self._log.info("checkpoint.accepted", n=accepted)
        self._folder.update(accepted=accepted, settled=state.settled)
        self._folder.drop_old_states()

    def _may_act(self, action: Action) -> bool:
        if (
            action in (Action.RESOLVE, Action.REDEEM_CHALLENGED) and self._folder.file.job is None
        ):  # its rules are not known yet
            return False
        return action != Action.WAIT and time.monotonic() >= self._not_before

    def _do(self, action: Action, now: float, state: StateWord) -> None:
        call, facts = self._call(action, state.synced(self._folder.file.nums, now))
        key = self._intent(action, state)
        try:
            receipt = self._sender.send(call, key=key)
        except EscrowError as error:
            if action == Action.REDEEM_CHALLENGED:
                assert self._folder.file.approval is not None
                self._useless = (self._folder.file.approval.approval.n, key)
            if error.name not in PATIENCE:
                self._trouble.at(action, error.message)
            self._pause()
        except UserError as error:  # no money for gas, or not mined
            self._trouble.at(action, error.message)
            self._pause()
        else:
            self._trouble.over(action)
            self._refusals = 0
            self._log.info(f"lease.{action}", transaction=receipt["transactionHash"].to_0x_hex(), **facts)
            self._note(self._chain.state(self._folder.lease), now)

    def _intent(self, action: Action, state: StateWord) -> str:
        return self._chain.intent(action, self._folder.lease, state)

    def _pause(self) -> None:
        self._refusals = min(self._refusals + 1, 10)
        self._not_before = time.monotonic() + min(0.25 * 2**self._refusals, LONGEST_PAUSE)

    def _call(self, action: Action, state: StateWord) -> tuple[ContractFunction, dict[str, object]]:
        """The call, and what to log of it."""
        file, chain, progress = self._folder.file, self._chain, self.progress().within(state)
        if action == Action.REDEEM:
            assert file.approval is not None
            call = chain.redeem(file.terms, file.approval.approval, file.approval.signature)
            return call, {"n": progress.approved, "last": progress.last}
        if action == Action.CLAIM:
            n = progress.claimable
            return chain.claim(file.terms, n, self._folder.tip(n), self._folder.roots(state.claimed, n)), {"n": n}
        if action == Action.REDEEM_CHALLENGED:
            assert file.job is not None and file.approval is not None
            n = progress.approved
            # Of an earlier machine's claims the roots are not here; then the market redeems, which has them.
            known = n < state.claimed and file.base <= state.accepted and state.claimed <= file.made
            pending = self._folder.roots(state.accepted, state.claimed) if known else []
            signed = (file.approval.approval, file.approval.signature)
            return chain.redeem_challenged(file.terms, file.job.rules, *signed, pending), {"n": n}
        if action == Action.RESOLVE:
            assert file.job is not None
            return chain.resolve(file.terms, file.job.rules), {}
        simple = {Action.COLLECT: chain.collect, Action.END: chain.end, Action.CLOSE: chain.close}
        return simple[action](file.terms), {}

    def _finish(self, now: float) -> Action:
        """The escrow has no such lease any more: its events say how it came out."""
        file = self._folder.file
        reached, penalty, ended, stake_lost, said = file.nums.start, 0, None, False, ""
        # It may have been opened again, further down, since it was found.
        first = max(self._chain.settings.deploy_block, file.opened_block - KEPT_BLOCKS)
        for event in lease_events(self._chain, self._folder.lease, first):
            match event:
                case Approved(n=n) | Settled(n=n):
                    reached = max(reached, n)
                    ended = event.at.block if n == file.nums.end else ended
                case Resolved(verdict=verdict):
                    said = Verdict(verdict).said
                    stake_lost = verdict in (Verdict.FALSE, Verdict.VOID)
                case Closed(accepted=accepted, penalty=lost):
                    penalty = file.parties.stake if stake_lost else lost
                    reached, ended = max(reached, accepted), event.at.block
        done = self._missing_for_long(now) if ended is None else self._is_final(ended)
        if not done:
            return Action.WAIT
        file = self._folder.update(
            goal="over",
            accepted=reached,
            settled=reached,
            penalty=penalty,
            verdict=said,
            vanished=ended is None,
            over_since=file.over_since or time.time(),
        )
        proven = ended is not None
        log = self._log.warning if penalty or not proven else self._log.info
        log(
            "lease.over",
            paid=reached - file.nums.start,
            of=file.nums.end - file.nums.start,
            penalty=penalty,
            verdict=said,
        )
        return Action.OVER

    def _missing_for_long(self, now: float) -> bool:
        """A node may lag behind, or the chain may have been rolled back: then the lease comes again, or never."""
        self._missing_since = self._missing_since or now
        self.missing_seconds = now - self._missing_since
        self._trouble.at("chain", "the node knows nothing of this lease; has the chain been rolled back?")
        return self.missing_seconds > self._folder.file.nums.timeout

    def _is_final(self, block: int) -> bool:
        """Whether what was paid in a block can't be taken back any more, for all that anybody would spend on that."""
        file = self._folder.file
        head = int(self._chain.w3.eth.block_number)
        return self._chain.settings.finality.is_final(block, head, at_stake(file.nums, file.parties.stake))


def word_due(file: LeaseFile, claimable: int) -> int | None:
    """The checkpoint from whose making on the approver owes a word; None while it owes none.

    Of audited checkpoints that is the last of a batch: they are drawn from, and judged, together. Pure.
    """
    first_open = max(file.approved, file.base) + 1
    if first_open > claimable:
        return None
    if file.audits is None:
        return first_open
    start, size = file.nums.start, file.audits.approve_every
    closes = start + -(-(first_open - start) // size) * size
    if closes <= claimable:
        return closes
    return None if file.goal == "training" and file.made < file.nums.end else claimable  # a short batch


def _since(moment: float) -> float:
    """Seconds from a moment of this machine's clock, which may have been set meanwhile."""
    return max(0.0, time.time() - moment)
