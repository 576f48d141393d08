"""One lease from its opening to its end: training, reports and money side by side, and when to stop early."""

import time

import structlog

from contracts.chain.lookup import MarketLied
from contracts.errors import UserError
from contracts.job.provider_wants import Wants
from contracts.job.sealing import NotOpened, is_sealed_text, open_text, seal_text
from contracts.orders import FAILURES, ReportKind
from contracts.program.logs import Trouble
from contracts.terms import Flag, Phase
from worker.driver.xids import with_xids
from worker.lease.approvals import Approvals
from worker.lease.discovery import Unwanted
from worker.lease.first_steps import NotReproducible
from worker.lease.folder import LeaseFolder
from worker.lease.inputs import BadStartState
from worker.lease.job_key import JobKey, NoKey
from worker.lease.printed import Printed
from worker.lease.reporting import ReportContent, Reporter, send_report
from worker.lease.schedule import Action, must_give_up
from worker.lease.settlement import Settlement, Turn
from worker.lease.tools import LeaseTools, lease_timing
from worker.lease.trainer import Training
from worker.lease.work_meter import TooMuchWork
from worker.machine.troubles import MachineTrouble
from worker.pauses import Pause, can_hold
from worker.training.failures import Failure
from worker.training.messages import Done, Stopped

STOPPED = "the provider stops"
MARKET_SECONDS = 10.0  # for an answer
MAX_KILLS = 3  # of its process at one checkpoint, after which the recipe is taken to do it to itself
WORKING = (Phase.ACTIVE, Phase.CHALLENGED)


class LeaseRun:
    """Drives one lease; `turn` is called again and again until it is over, and never blocks for long.

    Training, uploads and the approver's answers have threads of their own. All progress is on disk: another
    LeaseRun of the same folder goes on from it.
    """

    def __init__(self, folder: LeaseFolder, tools: LeaseTools, wants: Wants) -> None:
        """`wants`: leases to take, as the Asks say that this one may have come by."""
        self.folder, self._tools, self._settings, self._wants = folder, tools, tools.settings, wants
        self._log = structlog.get_logger().bind(lease=folder.lease, job=folder.file.parties.bid)
        self._trouble = Trouble(self._log)
        self.poll_seconds = min(self._settings.poll_seconds, folder.file.nums.timeout / 20)
        timing = lease_timing(self._settings, folder.file.nums.timeout)
        self._clients = {name: tools.market() for name in ("training", "reports")}
        # These two run beside the chain's clock: a market that hangs may cost a part of the margin only.
        patience = min(MARKET_SECONDS, max(1.0, timing.margin / 4))
        self._clients |= {name: tools.quick_market(patience) for name in ("approvals", "main")}
        self._job_key = JobKey(folder, tools)
        self.settlement = Settlement(folder, tools, timing)
        self.printed = Printed(folder.printed, self._job_key.get)
        self.reporter = Reporter(
            folder, tools, self._clients["reports"], self._job_key, self.printed, lambda: self.training.is_alive()
        )
        self.approvals = Approvals(folder, tools, self._clients["approvals"], self.poll_seconds)
        self.training = self._new_training()
        self._kills: list[int] = []  # what had been made each time that something killed the process
        self._next_report = 0.0  # monotonic
        self._stopping = False
        self._pause: Pause | None = None
        self._absent = False  # a reorganisation has taken the lease away
        self.refused = False  # given back, so that another one of its kind must not come at once
        self._last: Turn | None = None

    def _new_training(self) -> Training:
        """A pause ends the process, for what it holds of the GPU's memory; a new one goes on after it."""
        return Training(
            self.folder, self._tools, self._wants, self._clients["training"], self._job_key, self._news, self.printed
        )

    def start(self) -> None:
        self.folder.drop_rehearsal()
        file = self.folder.file
        if file.goal == "training" and file.made == file.nums.end:
            self.folder.update(goal="finished")
        self._log.info("lease.starts", goal=self.folder.file.goal, **self._place())
        if self.folder.file.goal == "training":
            self.training.start()
        self.reporter.start()
        self.approvals.start()

    def close(self) -> None:
        """Ends all threads; what has not been done yet is done by the next LeaseRun."""
        self.training.kill()
        self.reporter.close()
        self.approvals.close()
        for thread in (self.reporter, self.approvals):
            thread.join(timeout=1)
        for client in self._clients.values():
            client.close()

    def stop(self) -> None:
        """Stops at a step or a checkpoint close by, then releases the lease. Safe to call in a signal handler."""
        self._stopping = True
        self.training.stop(self._settings.finish_seconds)

    def hurry(self) -> None:
        """There is no time left to finish a step, or to wait for the approver."""
        self.training.kill()
        if self.folder.file.goal == "training":
            self.folder.release(STOPPED, since=0)
        elif self.folder.file.goal == "releasing":
            self.folder.update(releasing_since=0)

    def give_back(self, trouble: MachineTrouble) -> None:
        """Ends a lease that this machine can't work on any more."""
        if self.folder.file.goal == "training":
            self.training.kill()
            self.refused = True
            self._release(f"machine: {trouble.what}", stops="machine")

    def pause(self, why: Pause) -> None:
        """Stops training as `stop` does, but keeps the lease if its clock allows for that."""
        if self._pause is None:
            self._log.info("lease.pauses", reason=why.reason, **self._place())
            self.training.stop(self._settings.finish_seconds)
        self._pause = why

    def resume(self) -> None:
        """The pause is over: what was held goes on, once its process has ended."""
        if self._pause is not None:
            self._log.info("lease.resumes", **self._place())
        self._pause = None

    @property
    def over(self) -> bool:
        return self.folder.file.goal == "over"

    @property
    def idle(self) -> bool:
        """Nothing is left to do but to wait for a window to pass, or until the end is deep enough in the chain."""
        last = self._last
        waits = last is not None and last.action == Action.WAIT and last.state.phase not in WORKING
        return self.over or (waits and not self.training.is_alive())

    @property
    def active(self) -> bool:
        """Whether it counts for the Ask's limit on leases at a time."""
        last = self._last
        return not self.over and (last is None or last.state.phase in WORKING)

    def turn(self) -> None:
        """One look at everything."""
        self._heed_other_approval()
        self._heed_training()
        self._heed_rejection()
        self._heed_resume()
        self._tell_trouble()
        self._last = self.settlement.turn()
        if self._last is not None:
            self._heed_absence()
            self._heed_commitment(self._last)
            self._heed_clock(self._last)
        self.reporter.wake()

    # ------------------------------------------------------------- why to stop early

    def _heed_training(self) -> None:
        """What the end of training means for the lease."""
        ended, file = self.training.ended, self.folder.file
        if ended is None or file.goal != "training":
            return
        if self.training.early_stop and isinstance(ended, Stopped):
            self._release(self.training.early_stop)
        elif isinstance(ended, Done):
            self._log.info("training.done", n=file.made)
            self.folder.update(goal="finished")
        elif isinstance(ended, MarketLied):
            # Whoever approves for such a market is not worth waiting for. Ending now costs nothing.
            self._log.error("lease.refused", problem=ended.message)
            self.folder.release(f"the market lied: {ended.message}", since=0)
        elif isinstance(ended, Unwanted):
            self._log.warning("lease.refused", problem=ended.message)
            self.refused = True
            self._release(ended.message)
        elif isinstance(ended, Failure) and ended.kind == "killed" and self._may_start_again():
            self._log.warning("training.killed", problem=ended.message, hint=ended.hint, **self._place())
            self.training.ended = Stopped(step=0)
        elif isinstance(ended, TooMuchWork):
            self._log.warning("training.too_much_work", problem=ended.message)
            self._release(_reason(ended), stops="units")
        elif isinstance(ended, NotReproducible):
            self._give_up("training.not_reproducible", ended, "random")
        elif isinstance(ended, Failure) and ended.kind == "machine":
            self.refused = True
            self._give_up("lease.given_back", ended, "machine")
        elif isinstance(ended, BadStartState):
            self.refused = True
            self._give_up("lease.given_back", ended, "release")
        elif isinstance(ended, UserError):
            self._give_up("training.failed", ended, "failed")
        elif self._stopping:
            self._release(STOPPED)

    def _give_up(self, event: str, error: UserError, stops: ReportKind) -> None:
        """Releases for what came of the recipe: of a sealed job neither logs nor files of this machine tell more."""
        file, reason = self.folder.file, _reason(error)
        details = f"{error.trace.rstrip()}\n{reason}".lstrip()
        if file.job is not None and file.job.spec.sealed:
            kind = error.kind if isinstance(error, Failure) else "recipe"
            reason = f"{kind}: the job is sealed, so only its readers are told more"
            try:
                key = self._job_key.get()
                details = seal_text(details, key) if key else ""
            except (NoKey, NotOpened):
                details = ""
        (self._log.error if stops == "failed" else self._log.warning)(event, problem=reason)
        self._release(reason, stops=stops, details=details)

    def _may_start_again(self) -> bool:
        """After the process was killed: that is this machine's trouble, as long as it does not go on."""
        self._kills.append(self.folder.file.made)
        return self._kills.count(self.folder.file.made) < MAX_KILLS

    def _heed_rejection(self) -> None:
        file = self.folder.file
        if file.rejected is not None and file.goal in ("training", "finished"):
            self.training.stop()
            self._release(f"the approver rejected checkpoint {file.rejected}: {file.reason}", stops="failed")

    def _heed_other_approval(self) -> None:
        """A Claim of ours is approved that this machine knows nothing of any more, or has replaced since.

        That one is paid and no other, so it goes on from there, unless the chain has seen what is here.
        """
        other, last = self.approvals.other, self._last
        if other is None or last is None or last.state.phase not in (Phase.ACTIVE, Phase.CLOSING):
            return
        state, n = last.state.synced(self.folder.file.nums, last.now), other.approval.n
        if n <= state.accepted or state.claimed > state.accepted:
            return
        if self.training.is_alive():
            self.training.stop()
            return
        self.folder.go_on_from(other)
        self.approvals.other = None
        self._log.warning("lease.goes_on_from_another", n=n, tip=other.approval.tip)
        self.training = self._new_training()
        self.training.ended = Stopped(step=0)  # so that it is resumed, if it may be

    def _heed_resume(self) -> None:
        paused = isinstance(self.training.ended, Stopped) and not self._stopping
        if paused and self._pause is None and not self._absent and self.folder.file.goal == "training":
            self.training = self._new_training()
            self.training.start()

    def _heed_absence(self) -> None:
        """Nobody would pay for a lease that the chain has taken back: it is worked for when it comes again."""
        away = self.settlement.missing_seconds > self.settlement.timing.margin
        if away and not self._absent:
            self._log.warning("lease.vanished", **self._place())
            self.training.stop()
        elif self._absent and not away:
            self._log.info("lease.came_back", **self._place())
        self._absent = away

    def _heed_commitment(self, turn: Turn) -> None:
        """An approver that does not commit itself to its draws could aim them: the lease is given back."""
        file, wait = self.folder.file, self._settings.commitment_wait
        late = file.opened_time + (file.nums.timeout / 3 if wait is None else wait)
        if file.awaits_commitment and file.goal in ("training", "finished") and turn.now > late:
            self._log.warning("lease.no_commitment", approver=file.parties.approver, **self._place())
            self.refused = True
            self.training.stop()
            self._release(f"the approver {file.parties.approver} has published no commitment to what it draws")

    def _heed_clock(self, turn: Turn) -> None:
        """Ends training that the chain has no use for any more, or that would come too late."""
        file = self.folder.file
        if file.goal == "training" and turn.state.phase == Phase.CLOSING:
            by_client = bool(turn.state.flags & Flag.BY_CLIENT)
            self._log.warning("lease.ended_by_other", by_client=by_client, **self._place())
            self.training.stop()
            self._release("its client ended it" if by_client else "its time ran out")
        left = self.training.seconds_left()
        if left is not None and self.training.held and turn.state.claimed > file.accepted:
            left += max(0.0, turn.state.t + file.nums.window - turn.now)  # what silence will have accepted
        if self._pause is not None and self.training.ended is not None and file.goal == "training":
            left = self._heed_pause(self._pause)
        if file.goal == "training" and must_give_up(
            turn.state, file.nums, self.settlement.progress(), self.settlement.timing, turn.now, left
        ):
            self._log.warning("lease.gives_up", seconds_to_checkpoint=left and round(left, 1), **self._place())
            silence, trouble = self.training.hang(file.nums.timeout), self._tools.machine_trouble()
            if self.training.waits_for:
                self.training.stop()
                self._release(f"machine: can't begin: {self.training.waits_for}", stops="machine")
            elif silence is not None and trouble is not None:
                self.give_back(trouble)
            elif silence is None:
                self.training.stop()
                # Not `failed`: the recipe is not to blame. A market offers the job to others first.
                self._release("the next checkpoint would come after the deadline")
            else:
                self.training.kill()  # it would not heed a stop
                heard = self._tools.xids.since(self.training.began)
                what = with_xids(f"hang: the recipe has been silent for {silence:.0f} s", heard)
                self._release(what, stops="failed")

    def _heed_pause(self, pause: Pause) -> float:
        """Seconds until the next checkpoint may be there. Releases now what can't be held until then at all."""
        seconds, step = pause.seconds(time.time()), self.training.checkpoint_seconds() or 0.0
        if not can_hold(seconds, step, self.folder.file.nums.timeout, self.settlement.timing.margin):
            self._release(f"{STOPPED}: {pause.reason}")
        return seconds + step

    def _release(self, reason: str, *, stops: ReportKind = "release", details: str = "") -> None:
        self.folder.release(reason, time.time(), stops, details)
        self._log.info("lease.releases", reason=reason, kind=stops, **self._place())

    # ------------------------------------------------------------- reports

    def _tell_trouble(self) -> None:
        """Tells the approver why the lease stops, and asks for its last word until there is one."""
        file = self.folder.file
        if file.goal != "releasing" or file.releasing_since == 0 or time.monotonic() < self._next_report:
            return
        if file.told and self._is_answered():
            return
        kind: ReportKind = "release" if file.told else file.stops
        if self._must_report_first(kind) and not self._waited_for_reports():
            return
        index = min(file.made, (file.rejected or file.made + 1) - 1)
        try:
            text, key = self._text_and_key()
            said = ReportContent(index + 1 if kind in FAILURES else index, kind, text)
            send_report(self._clients["main"], self._tools, self.folder.lease, said, key)
            self.folder.update(told=True)
            self._log.info("report.sent", kind=kind)
            self._trouble.over("report")
        except UserError as error:
            self._trouble.at("report", error.message)
        # An answer may have crossed with a checkpoint that came in late: ask again.
        self._next_report = time.monotonic() + max(1.0, self.settlement.timing.release_wait / 3)

    def _must_report_first(self, kind: ReportKind) -> bool:
        """What has been made, and what an ended recipe has printed, comes before the last word on it."""
        file = self.folder.file
        printed = not self.training.is_alive() and not self.printed.empty
        return printed or (kind not in FAILURES and file.reported < file.made)

    def _waited_for_reports(self) -> bool:
        """Half of the wait for the approver may go by until all checkpoints are with the market."""
        since = self.folder.file.releasing_since or 0
        return time.time() > since + self.settlement.timing.release_wait / 2

    def _is_answered(self) -> bool:
        progress = self.settlement.progress()
        return progress.last and progress.approved >= progress.claimable

    def _text_and_key(self) -> tuple[str, bytes | None]:
        """Of a sealed job nothing is told in plain: a reason may hold what its recipe has said."""
        file = self.folder.file
        text = file.reason if file.told else file.details or file.reason
        if file.job is None:  # so nothing of it can have been opened
            return text, None
        try:
            key = self._job_key.get()
            return (open_text(text, key) if key and is_sealed_text(text) else text), key
        except (NoKey, NotOpened) as error:
            return error.message, None

    def _news(self) -> None:
        """Training has made a checkpoint, or has ended."""
        self.reporter.wake()
        self._tools.wake()

    def _place(self) -> dict[str, int]:
        file = self.folder.file
        return {"made": file.made, "accepted": file.accepted, "end": file.nums.end}


def _reason(error: UserError) -> str:
    kind = f"{error.kind}: " if isinstance(error, Failure) else ""
    return f"{kind}{error.message}" + (f" ({error.hint})" if error.hint else "")
