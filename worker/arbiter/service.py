"""The arbiter's loop: look at what was asked, and rule. What it can't tell it leaves, loudly, and tries again."""

import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from contracts.chain.arbiter import OperatorArbiter
from contracts.chain.errors import NODE_AWAY, EscrowError
from contracts.chain.sending.sender import Sender
from contracts.errors import UserError
from contracts.settings import home
from contracts.terms import Verdict
from worker.arbiter.disputes import DisputedStretch, Docket
from worker.arbiter.judge import CantTell, Judge, Judgement
from worker.arbiter.metrics import ArbiterMetrics

# Of a dispute's time, after which it is looked at again; and that it takes at most, in seconds.
PAUSE_SHARE, MOST_PAUSE = 20, 600.0

log = structlog.get_logger()


class Stopping(Exception):
    """This program was asked to end."""


@dataclass(frozen=True)
class Hearing:
    """Of one look at one dispute."""

    dispute: DisputedStretch
    verdict: Verdict | None  # None: silent, as yet
    why: str
    hint: str | None = None


class Arbiter:
    """Rules at one contract: one dispute after the other, in the order in which their times end."""

    def __init__(
        self,
        contract: OperatorArbiter,
        judge: Judge,
        sender: Sender,
        metrics: ArbiterMetrics | None = None,
        *,
        dry_run: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        """`sender` signs with the operator's key; in a dry run nothing is sent."""
        self._contract, self._judge, self._sender = contract, judge, sender
        self._metrics, self._dry_run = metrics or ArbiterMetrics(), dry_run
        self._stop = stop or threading.Event()
        self._docket = Docket(contract)
        self._again: dict[str, float] = {}  # when a dispute is looked at next, monotonic
        self._told: dict[str, str] = {}  # why there is no verdict, as it was logged last
        self._missed: set[str] = set()

    def run(self, poll_seconds: float) -> None:
        """Rounds until it is asked to stop. What fails is logged and tried again."""
        while not self._stop.is_set():
            try:
                for _ in self.look():
                    pass
                self._metrics.looked.set_to_current_time()
            except Stopping:
                return
            except (UserError, *NODE_AWAY) as error:
                self._metrics.troubles.inc()
                log.warning("arbiter.retry", problem=str(error))
            except Exception:  # a bug in one round must not end the service
                self._metrics.troubles.inc()
                log.exception("arbiter.failed")
            self._stop.wait(poll_seconds)

    def look(self) -> Iterable[Hearing]:
        """What comes of each dispute whose turn it is. Raises Stopping, and what a silent chain raises."""
        disputes = self._docket.open()
        self._metrics.waiting.set(len(disputes))
        known = {dispute.id for dispute in disputes}
        self._again = {id: at for id, at in self._again.items() if id in known}
        self._told = {id: why for id, why in self._told.items() if id in known}
        self._missed &= known
        for dispute in disputes:
            if time.monotonic() >= self._again.get(dispute.id, 0.0):
                question = dispute.question
                with structlog.contextvars.bound_contextvars(dispute=dispute.id, lease=question.lease, k=question.k):
                    yield self._take(dispute)

    def _take(self, dispute: DisputedStretch) -> Hearing:
        """One dispute's trouble is not another's."""
        pause = min(MOST_PAUSE, dispute.rules.arbiter_timeout / PAUSE_SHARE)
        try:
            self._check(dispute)
            log.info("arbiter.looks", ground=dispute.question.ground, until=dispute.until)
            answer = self._answer(dispute)
            self._rule(dispute, answer)
            if self._dry_run:
                self._again[dispute.id] = time.monotonic() + pause
            return Hearing(dispute, answer.verdict, answer.why)
        except (Stopping, *NODE_AWAY):
            raise
        except UserError as error:
            outcome = Hearing(dispute, None, error.message, error.hint)
        except Exception as error:  # made to find a bug, perhaps
            log.exception("arbiter.failed")
            outcome = Hearing(dispute, None, f"{type(error).__name__}: {error}")
        self._again[dispute.id] = time.monotonic() + pause
        self._tell_silence(outcome)
        return outcome

    def _answer(self, dispute: DisputedStretch) -> Judgement:
        parent = home() / "arbiter"
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        ends = time.monotonic() + dispute.until - self._now()

        def check() -> None:
            if self._stop.is_set():
                raise Stopping
            if time.monotonic() > ends:
                raise CantTell("the arbiter's time is over", "rules should give it that of three replays")

        with tempfile.TemporaryDirectory(dir=parent) as folder:
            return self._judge.judge(dispute, Path(folder), self._now(), check)

    def _check(self, dispute: DisputedStretch) -> None:
        left = dispute.until - self._now()
        if left > 0:
            return
        if dispute.id not in self._missed:
            self._missed.add(dispute.id)
            self._metrics.missed.inc()
        raise CantTell("the arbiter's time is over: anybody may resolve the dispute as one of a silent arbiter")

    def _rule(self, dispute: DisputedStretch, answer: Judgement) -> None:
        if answer.control_differs:
            self._metrics.differing.inc()
            log.error("arbiter.control_differs", hint="has its provider lied before, or is it this machine?")
        if self._dry_run:
            log.info("arbiter.would_rule", verdict=answer.verdict.said, why=answer.why)
            return
        if not self._docket.is_waiting(dispute):
            raise CantTell("the dispute is over: it was withdrawn, or resolved meanwhile")
        call = self._sender.chain.rule(self._contract.address, dispute.id, answer.verdict)
        try:
            self._sender.send(call, key=f"rule {dispute.id}")
        except EscrowError as error:
            raise CantTell(f"the verdict {answer.verdict} was refused: {error.message}", error.hint) from error
        self._metrics.ruled.labels(answer.verdict.said).inc()
        log.info("arbiter.ruled", verdict=answer.verdict.said, why=answer.why)

    def _tell_silence(self, outcome: Hearing) -> None:
        self._metrics.troubles.inc()
        id = outcome.dispute.id
        if self._told.get(id) != outcome.why:  # said once: it may be so in each round
            self._told[id] = outcome.why
            left = outcome.dispute.until - self._now()
            log.error("arbiter.silent", problem=outcome.why, hint=outcome.hint, seconds_left=left)

    def _now(self) -> int:
        """UTC seconds, as the escrow sees them: devnets can run ahead."""
        return max(int(time.time()), self._sender.chain.now())
