"""Tells the market of a lease's checkpoints and of its troubles, in a thread: uploads are slow, money must not wait."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from contracts.api.bodies import ProgressIn, ReportIn
from contracts.api.client import MarketClient
from contracts.api.problems import Code, Problem
from contracts.errors import UserError
from contracts.job.sealing import seal_file, seal_text
from contracts.orders import Claim, Report, ReportKind
from worker.lease.folder import LeaseFolder
from worker.lease.job_key import JobKey
from worker.lease.printed import Printed
from worker.lease.tools import LeaseTools

MAX_TEXT = 20_000  # of a report, in characters
MAX_LOG_BYTES = 19_500  # of one report of what a recipe has printed
MAX_SEALED_BYTES = 60_000  # of a report's text in UTF-8, so that in base64 it is no longer than the market takes
RETRY_SECONDS = (0.5, 30.0)
LOG_SECONDS = (60.0, 300.0)  # between two reports of what the recipe printed: at checkpoints, and without any
LOGS_AT_ONCE = 5  # after which is seen whether a checkpoint waits
# A market takes 300 reports of a lease an hour: how it ends must still find room, after an agent's restart, too.
LOGS_PER_HOUR = 90
MOST_LOGS, LAST_LOGS = 45, 20  # that may come in a row, and those of them that are kept for when the recipe has ended


class Reporter(threading.Thread):
    """Uploads each checkpoint that is made and posts the Claim to it, in order, until closed."""

    def __init__(
        self,
        folder: LeaseFolder,
        tools: LeaseTools,
        market: MarketClient,
        job_key: JobKey,
        printed: Printed,
        trains: Callable[[], bool] = lambda: True,
    ) -> None:
        """`printed`: what is to be told of it; at once when the recipe no longer `trains`."""
        super().__init__(name=f"reports {folder.lease[:10]}", daemon=True)
        self._folder, self._tools, self._market = folder, tools, market
        self._log = structlog.get_logger().bind(lease=folder.lease, job=folder.file.parties.bid)
        self._job_key = job_key
        self._changed = threading.Condition()
        self._closed = False
        self._printed, self._trains, self._told_at = printed, trains, float("-inf")
        self._allowance, self._allowed_at = float(MOST_LOGS), time.monotonic()  # reports of what the recipe printed

    def wake(self) -> None:
        """There is a new checkpoint."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the thread after what it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def run(self) -> None:
        pause, longest = RETRY_SECONDS
        while not self._closed:
            try:
                self._report_all()
                pause = RETRY_SECONDS[0]
                self._wait_for_news(longest)
            except Exception as error:  # nothing that the market answers may end this thread
                self._log_trouble(error, pause)
                self._sleep(pause)
                pause = min(2 * pause, longest)

    def _report_all(self) -> None:
        while not self._closed and self._may_report():
            index = self._folder.file.reported + 1
            self._post(index)
            self._folder.note_reported(index)
            self._log.info("checkpoint.reported", n=index)
            self._tell_log(0 if index == self._folder.file.nums.end else LOG_SECONDS[0])
        self._tell_log(LOG_SECONDS[1])

    def _may_report(self) -> bool:
        """Whether there is a checkpoint that the market may be told of now."""
        file = self._folder.file
        return file.reported < file.made and not file.awaits_commitment

    def _tell_log(self, pause: float) -> None:
        """Posts what the recipe has printed since the last time, if that was `pause` seconds ago or it has ended.

        Some of it: a checkpoint's Claim goes first, and of too much the oldest is left out.
        """
        whole = not self._trains()
        if not whole and time.monotonic() < self._told_at + pause:
            return
        for _ in range(LOGS_AT_ONCE):
            allowed = self._allowed(whole)
            if self._closed or allowed < 1:
                return
            if whole and allowed < 2:  # the end of it tells the most
                self._printed.keep_newest(MAX_LOG_BYTES)
            if not (part := self._printed.next(MAX_LOG_BYTES, whole=whole)):
                return
            said = ReportContent(self._folder.file.reported, "log", part.text)
            send_report(self._market, self._tools, self._folder.lease, said, self._job_key.get())
            self._printed.told(part)
            self._told_at = time.monotonic()
            self._allowance -= 1
            if self._folder.file.reported < self._folder.file.made:
                return

    def _allowed(self, whole: bool) -> float:
        """How many reports of what the recipe printed may be posted now."""
        now = time.monotonic()
        self._allowance = min(MOST_LOGS, self._allowance + (now - self._allowed_at) * LOGS_PER_HOUR / 3600)
        self._allowed_at = now
        return self._allowance - (0 if whole else LAST_LOGS)

    def _post(self, index: int) -> None:
        record = self._folder.checkpoint(index)
        path, job_key = self._folder.state_path(index), self._job_key.get()
        if job_key is None:
            self._market.put_blob(path, record.state)
        else:
            path = self._folder.sealed_path(record)
            if not path.exists():  # else it was sealed, but the market not reached
                seal_file(self._folder.state_path(index), path, job_key)
            record = record.model_copy(update={"sealed": self._market.put_blob(path)})
        claim = Claim(lease=self._folder.lease, n=index, tip=record.tip)
        signature = claim.sign(self._tools.domain, self._tools.account)
        try:
            self._market.post_progress(ProgressIn(claim=claim, signature=signature, checkpoint=record))
        except Problem as problem:
            # Accepted on chain while the market was away: it takes no report of that any more.
            if problem.code != Code.PROGRESS_OUT_OF_ORDER or index > self._folder.file.accepted:
                raise
            self._log.warning("checkpoint.not_reported", n=index, problem=problem.message)
        if job_key is not None:
            path.unlink(missing_ok=True)

    def _log_trouble(self, error: Exception, pause: float) -> None:
        if isinstance(error, UserError):
            self._log.warning("report.waits", problem=error.message, retry_in=pause)
        else:
            self._log.exception("report.crashed", retry_in=pause)

    def _wait_for_news(self, seconds: float) -> None:
        with self._changed:
            if not self._closed and not self._may_report():
                self._changed.wait(seconds)

    def _sleep(self, seconds: float) -> None:
        """Whatever is new: the market was in trouble a moment ago."""
        ends = time.monotonic() + seconds
        with self._changed:
            while not self._closed and (left := ends - time.monotonic()) > 0:
                self._changed.wait(left)


@dataclass(frozen=True)
class ReportContent:
    """What a Report says."""

    n: int  # of the checkpoint that it is about
    kind: ReportKind
    text: str


def send_report(
    market: MarketClient, tools: LeaseTools, lease: str, said: ReportContent, job_key: bytes | None
) -> bool:
    """Posts a Report now; False if the market says that there is no use in it. Raises what the market raises.

    With the key of a sealed job its text is sealed.
    """
    text = said.text[-MAX_TEXT:].replace("\0", "\N{REPLACEMENT CHARACTER}")
    if job_key is not None:
        text = seal_text(text.encode()[-MAX_SEALED_BYTES:].decode(errors="ignore"), job_key)
    content = "0x" + hashlib.sha256(text.encode()).hexdigest()
    report = Report(lease=lease, n=said.n, kind=said.kind, content=content, time=int(time.time()))
    try:
        market.post_report(ReportIn(report=report, signature=report.sign(tools.domain, tools.account), text=text))
    except Problem as problem:
        if problem.code in (Code.LEASE_NOT_LIVE, Code.REPORT_STALE):
            return False
        raise
    return True
