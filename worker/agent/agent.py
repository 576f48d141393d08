"""The worker agent of one provider key: keeps an Ask standing, and works off the leases that it is given."""

import threading
import time
from collections.abc import Callable

import structlog
from eth_account.signers.local import LocalAccount
from filelock import Timeout
from nacl.public import PrivateKey

from contracts.api.client import MarketClient
from contracts.api.throttle import Throttle
from contracts.chain.client import Chain
from contracts.chain.clock import ChainClock
from contracts.chain.errors import NODE_AWAY
from contracts.chain.sending.sender import Sender
from contracts.chain.standings import ClientStandings
from contracts.errors import UserError
from contracts.program.logs import Trouble
from worker.agent.asks import CurrentAsk
from worker.agent.copies import CopyWatch, PostedAsks
from worker.agent.readiness import Readiness
from worker.agent.sweep import Sweeper
from worker.lease.discovery import discover
from worker.lease.folder import LeaseFile, LeaseFolder, Store
from worker.lease.run import MARKET_SECONDS, LeaseRun
from worker.lease.tools import LeaseTools
from worker.machine.presence import Presence
from worker.machine.troubles import by_uuid
from worker.pauses import Pause
from worker.settings import ProviderSettings

log = structlog.get_logger()
SLICE_SECONDS = 0.2  # within which a signal is noticed
SENDER_SECONDS = 60.0  # for a transaction to be mined
COLLECT_SECONDS = 600.0  # between two looks for old traces
BLIND_SECONDS = 60.0  # without a look at the chain, after which the standing Ask is withdrawn
TELL_SECONDS = 30.0  # between two words on a long search
HURRY_SHARE = 0.4  # of the grace time, left for transactions alone


class Agent:
    """Runs until `stop`, or until the first lease is over with `once`. Neither market nor chain can make it crash."""

    def __init__(
        self,
        key: str,
        settings: ProviderSettings,
        chain: Chain,
        account: LocalAccount,
        own: PrivateKey,
        *,
        once: bool = False,
    ) -> None:
        """`own` is the encryption key that sealed jobs' keys are granted to."""
        settings = by_uuid(settings)
        self._settings, self._chain, self._account, self._once = settings, chain, account, once
        self._store = Store(key)
        self._wake = threading.Event()
        self._sender = Sender(chain, account, timeout=min(SENDER_SECONDS, max(5.0, settings.grace_seconds / 3)))
        self._market = MarketClient(settings.market_url, timeout=MARKET_SECONDS, attempts=1)
        posted = PostedAsks(self._store)
        self._ask = CurrentAsk(settings, chain, self._sender, self._market, account, self._store, posted, own)
        line = MarketClient(settings.market_url, timeout=MARKET_SECONDS, attempts=1)
        self._copies = CopyWatch(line, chain, self._sender, posted, settings.poll_seconds, self._wake_up)
        self._readiness = Readiness(settings, self._store, account.address, self._wake_up)
        self._chain_trouble: str | None = None  # why leases can't be looked for
        self._runs: dict[str, LeaseRun] = {}
        self._stop_asked: float | None = None  # monotonic
        self._withdrawn = self._hurried = False
        self._other_knows = False  # another agent with this key, that there are two of them
        self._done = 0
        self._collect_at = 0.0  # monotonic
        self._blind_since: float | None = None  # monotonic: since when leases can't be looked for
        self._tell_search_at = time.monotonic() + TELL_SECONDS
        self._backed_off: set[str] = set()  # leases that were refused
        self._trouble = Trouble(log.bind(provider=account.address))
        self._tools = LeaseTools(
            settings=settings,
            chain=chain,
            clock=ChainClock(chain),
            sender=self._sender,
            account=account,
            encryption_key=own,
            wake=self._wake_up,
            uploads=_throttle(settings.upload_bytes),
            downloads=_throttle(settings.download_bytes),
            machine_trouble=self._readiness.gpu_trouble,
            xids=self._readiness.xids,
            standing=ClientStandings(
                chain,
                lambda: self._store.read_state().get("clients", {}),
                lambda found: self._store.write_state(clients=found),
            ).of,
        )
        self._presence = Presence(key, settings)
        self._paused: Pause | None = None  # why there is no training now
        self._sweeper = Sweeper(settings, self._sender) if settings.money.sweep_to else None

    def stop(self) -> None:
        """Asks to release all leases and to end within the grace time. Safe to call in a signal handler."""
        if self._stop_asked is None:
            self._stop_asked = time.monotonic()
            for run in list(self._runs.values()):
                run.stop()

    @property
    def stopping(self) -> bool:
        return self._stop_asked is not None

    def run(self) -> None:
        """Returns when it has ended. Raises UserError if another agent works with this key."""
        lock = self._store.lock()
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"an agent is running for {self._account.address} already",
                f"stop that one, or use another key; the lock is {lock.lock_file}",
            ) from error
        try:
            log.info("agent.starts", provider=self._account.address, market=self._settings.market_url)
            self._heed_owner()
            self._readiness.start()
            self._copies.start()
            self._resume()
            if self._sweeper:
                self._sweeper.start()
            while not self._ended():
                try:
                    self._round()
                except Exception:  # a full disk, or a bug: leases that run must be looked after all the same
                    log.exception("agent.round_failed")
                self._pause()
        finally:
            for run in self._runs.values():
                run.close()
            if self._sweeper:
                self._sweeper.close()
            self._copies.close()
            self._readiness.close()
            self._market.close()
            lock.release()
            log.info("agent.ended", leases_done=self._done, leases_left=len(self._runs))

    # ------------------------------------------------------------- rounds

    def _round(self) -> None:
        self._heed_owner()
        self._heed_machine()
        self._leave_to_others()
        if not self.stopping:
            self._look_for_leases()
        if (self._paused or self._is_blind(BLIND_SECONDS)) and not self.stopping:
            self._guarded("ask", self._ask.withdraw)
        if self.stopping or (self._once and self._runs):
            self._withdraw()
        if self.stopping:
            self._hurry_at_last()
        for run in self._runs.values():
            self._turn(run)
        self._heed_refusals()
        self._clear_up()
        self._offer()

    def _turn(self, run: LeaseRun) -> None:
        try:
            run.turn()
        except Exception:  # one lease's trouble, or a bug, must not cost another lease its money
            log.exception("lease.crashed", lease=run.folder.lease)

    def _is_blind(self, seconds: float = 0.0) -> bool:
        """Whether leases can't be looked for, and for so long: one that is never seen costs a penalty."""
        return self._blind_since is not None and time.monotonic() >= self._blind_since + seconds

    def _offer(self) -> None:
        """Keeps an Ask in force while there is work to take and all that it sells is there; else none."""
        reasons = self._reasons_to_wait()
        if reasons is not None and not reasons and self._wants_work():
            self._guarded("ask", self._ask.renew)
            reasons = [self._ask.waits] if self._ask.waits else []
            self._other_knows = False
        elif self._copies.evidence and not self._other_knows:
            # Whoever notices first lets the other know by that.
            self._other_knows = self._copies.other_knows or self._guarded("ask", self._ask.revoke)
        elif self._readiness.machine_lacks() and not self._copies.evidence and self._has_room():
            self._guarded("ask", self._ask.withdraw)
        self._readiness.tell(reasons or [])

    def _reasons_to_wait(self) -> list[str] | None:
        """A sentence each; None while it is not known yet whether there are any."""
        lacks = self._readiness.machine_lacks()
        if lacks is None or not self._copies.looked:
            return None
        others = (self._copies.evidence, self._readiness.lacks_room(), self._chain_trouble)
        return [*(reason for reason in others if reason), *lacks]

    def _wants_work(self) -> bool:
        more = not self._once or (not self._runs and not self._done)
        return not self.stopping and self._paused is None and more and self._has_room()

    def _has_room(self) -> bool:
        """Whether another lease may come."""
        return sum(run.active for run in self._runs.values()) < self._settings.max_active

    def _heed_machine(self) -> None:
        """What runs on a GPU that has gone will not come to an end."""
        trouble = self._readiness.gpu_trouble()
        if trouble is not None and trouble.dead:
            for run in self._runs.values():
                run.give_back(trouble)

    def _leave_to_others(self) -> None:
        """Lets go of leases that another agent of this key works on, as they are."""
        for lease in self._copies.left & self._runs.keys():
            log.error("lease.left", lease=lease, problem="another agent works on it with this key")
            self._runs.pop(lease).close()
        self._copies.leases = {
            name: run.folder for name, run in self._runs.items() if run.folder.file.goal == "training"
        }

    def _heed_owner(self) -> None:
        """Pauses and resumes all leases with the owner's wish, the weekly hours, and the machine's other users."""
        pause = self._presence.look()
        if (pause is None) != (self._paused is None):
            log.info("agent.pauses", reason=pause.reason) if pause else log.info("agent.resumes")
        self._paused = pause
        for run in self._runs.values():
            if pause:
                run.pause(pause)
            else:
                run.resume()

    def _heed_refusals(self) -> None:
        """What is not wanted must not come again with the next clearing."""
        new = {run.folder.lease for run in self._runs.values() if run.refused} - self._backed_off
        if new and self._guarded("ask", self._ask.back_off):
            self._backed_off |= new
            self._readiness.look_now()

    def _pause(self) -> None:
        ends = time.monotonic() + min([self._settings.poll_seconds, *(run.poll_seconds for run in self._runs.values())])
        stopping = self.stopping
        while (left := ends - time.monotonic()) > 0:
            if self._wake.wait(min(left, SLICE_SECONDS)):
                self._wake.clear()
                return
            if self.stopping and not stopping:
                return

    def _ended(self) -> bool:
        if self._stop_asked is not None:
            idle = self._withdrawn and all(run.idle for run in self._runs.values())
            return idle or time.monotonic() > self._stop_asked + self._settings.grace_seconds
        return self._once and self._done > 0 and not self._runs

    # ------------------------------------------------------------- leases

    def _resume(self) -> None:
        """Goes on with what a former agent left on disk."""
        for folder in self._store.leases():
            if folder.file.goal != "over":
                self._start(folder)

    def _look_for_leases(self) -> None:
        problem, chain, address = None, self._chain, self._account.address
        try:
            for folder in discover(chain, address, self._store, self._tell_search, self._copies.is_ours):
                self._start(folder)
        except NODE_AWAY as error:
            problem = f"{type(error).__name__}: {error}"[:500]
        except UserError as error:
            problem = error.message
        except Exception as error:  # the leases that it has must be looked after all the same
            log.exception("agent.search_failed")
            problem = f"{type(error).__name__}: {error}"[:500]
        self._chain_trouble = problem
        if problem is None:
            self._blind_since = None
            self._trouble.over("chain")
        else:
            self._blind_since = self._blind_since or time.monotonic()
            self._trouble.at("chain", f"leases can't be looked for, so there is no Ask: {problem}")

    def _tell_search(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Of a node that gives few blocks at once, years of a chain take long."""
        if total and done < total and time.monotonic() > self._tell_search_at:
            self._tell_search_at = time.monotonic() + TELL_SECONDS
            log.info("chain.searched", provider=self._account.address, blocks=done, of=total)

    def _wake_up(self) -> None:
        self._wake.set()

    def _start(self, folder: LeaseFolder) -> None:
        run = LeaseRun(folder, self._tools, self._settings.sold(self._ask.min_pay).wants)
        self._runs[folder.lease] = run
        if self.stopping:
            run.stop()
        elif self._paused:
            run.pause(self._paused)
        run.start()

    def _clear_up(self) -> None:
        """Lets go of leases that are over, and now and then of old traces."""
        for run in [run for run in self._runs.values() if run.over]:
            run.close()
            if not run.folder.file.vanished:
                run.folder.drop_bulk()
            if not run.refused:
                self._ask.was_wanted()
            del self._runs[run.folder.lease]
            self._done += 1
        if time.monotonic() > self._collect_at:
            self._collect_at = time.monotonic() + COLLECT_SECONDS
            for folder in self._store.leases():
                if folder.file.goal == "over" and self._is_old(folder.file):
                    self._store.collect(folder)

    def _is_old(self, file: LeaseFile) -> bool:
        keep = self._settings.keep_traces_seconds
        if keep is None:
            keep = 10 * file.nums.window + 86_400
        return time.time() > (file.over_since or 0) + keep

    # ------------------------------------------------------------- the end

    def _withdraw(self) -> None:
        """No new lease from now on. Done while a lease is still open, as a rule: then none can slip in."""
        if not self._withdrawn and self._guarded("ask", self._ask.withdraw):
            self._withdrawn = True
            self._look_for_leases()  # one may have been opened just before

    def _hurry_at_last(self) -> None:
        """Towards the end of the grace time there is no waiting for anybody."""
        assert self._stop_asked is not None
        hurry_at = self._stop_asked + (1 - HURRY_SHARE) * self._settings.grace_seconds
        if not self._hurried and time.monotonic() > hurry_at:
            self._hurried = True
            for run in self._runs.values():
                run.hurry()

    def _guarded(self, what: str, act: Callable[[], None]) -> bool:
        """Whether it worked; trouble is logged, and it may be tried again."""
        try:
            act()
        except NODE_AWAY as error:
            self._trouble.at(what, f"{type(error).__name__}: {error}"[:300])
            return False
        except UserError as error:
            self._trouble.at(what, error.message)
            return False
        return True


def _throttle(bytes_a_second: int | None) -> Throttle | None:
    return None if bytes_a_second is None else Throttle(bytes_a_second)
