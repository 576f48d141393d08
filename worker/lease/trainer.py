"""One lease's training: a thread that fetches what is needed, runs the recipe, and commits to its checkpoints."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import structlog

from contracts.api.bodies import CheckpointRecord
from contracts.api.client import MarketClient, Unreachable
from contracts.api.problems import Problem
from contracts.chain.errors import NODE_AWAY
from contracts.chain.lookup import opened
from contracts.errors import UserError
from contracts.finality import at_stake
from contracts.job.file import hash_file
from contracts.job.provider_wants import Wants
from contracts.job.sealing import NotOpened
from contracts.job.spec import JobSpec
from contracts.types import ZERO_TIP, from_hex, to_hex
from worker.downloading.connection_guard import Interrupted
from worker.downloading.downloads import Cache
from worker.lease.discovery import check_class, check_fit, check_signed_units, check_wanted, verified_job
from worker.lease.first_steps import FirstSteps, NotReproducible
from worker.lease.folder import Job, LeaseFolder
from worker.lease.inputs import BadStartState, fetch_files, fetch_start_state, fetch_state, is_state, metrics_so_far
from worker.lease.job_key import JobKey, NoKey
from worker.lease.pace import Pace
from worker.lease.printed import Printed
from worker.lease.tools import LeaseTools
from worker.lease.work_meter import WorkMeter, WorkWatch
from worker.machine.blame import judged
from worker.machine.contention import Contention
from worker.sandbox.limits import Limits
from worker.sandbox.podman import chosen_sandbox
from worker.sandbox.runner import Runner
from worker.training.checkpoints import TakenCheckpoint
from worker.training.failures import Failure, is_full
from worker.training.messages import Checkpoint, Done, Failed, Measured, Ready, Stepped, Stopped

POLL_SECONDS = 0.2
FINALITY_SHARE = 0.25  # of a lease's timeout, at most, for the wait until its opening is final
KEY_SHARE = 0.25  # likewise, for the wait until a sealed job's key is granted
RETRY_SECONDS = (1.0, 30.0)  # first and longest pause while market or chain don't answer

T = TypeVar("T")


class Training(threading.Thread):
    """Trains a lease from its newest checkpoint on. `ended` says how that came out; None while it lasts.

    It never raises, and never waits for market or chain once training has begun.
    """

    def __init__(
        self,
        folder: LeaseFolder,
        tools: LeaseTools,
        wants: Wants,
        market: MarketClient,
        job_key: JobKey,
        wake: Callable[[], None],
        printed: Printed,
    ) -> None:
        super().__init__(name=f"training {folder.lease[:10]}", daemon=True)
        self._folder, self._market, self._job_key, self._wake = folder, market, job_key, wake
        self._printed = printed
        self._chain, self._settings, self._wants, self._standing = tools.chain, tools.settings, wants, tools.standing
        self._xids, self.began = tools.xids, time.monotonic()
        self._key_late: float | None = None  # monotonic: until when the grant of a sealed job's key is waited for
        self._log = structlog.get_logger().bind(lease=folder.lease, job=folder.file.parties.bid)
        self._stop_at: float | None = None  # monotonic; for a checkpoint that comes before it training goes on
        self._killed = threading.Event()
        self._first_steps = FirstSteps(folder, tools.settings, self._must_stop, printed)
        self._metrics: list[dict[str, float]] = []  # of checkpoints 1 .. made, for the job's early stop
        self.early_stop: str | None = None  # why the job is over, if it is before its last checkpoint
        self.ended: Done | Stopped | UserError | None = None
        self._held_at: float | None = None  # monotonic: since when it waits for what is made to be judged
        self.waits_for: str | None = None  # why market or node can't be asked, while nothing can begin for that
        self.pace: Pace | None = None

    # ------------------------------------------------------------- from other threads

    def stop(self, wait: float = 0) -> None:
        """Asks to stop at the next checkpoint if that comes within `wait` seconds, else after this step."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + wait

    def kill(self) -> None:
        """Ends training at once, and waits until the process is gone."""
        self._killed.set()
        if self.is_alive():
            self.join(timeout=30)

    def seconds_left(self) -> float | None:
        """Estimated time to the next checkpoint, from when it may train; None while nothing is known."""
        if self.held:
            return self.checkpoint_seconds()
        return self.pace.seconds_left(time.monotonic()) if self.pace else None

    def checkpoint_seconds(self) -> float | None:
        """Estimated time for a whole checkpoint; None while nothing is known."""
        return self.pace.checkpoint_seconds() if self.pace else None

    @property
    def held(self) -> bool:
        """Whether it waits for what is made to be judged."""
        return self._held_at is not None

    def hang(self, timeout: float) -> float | None:
        """Seconds for which the recipe has been silent, if it hangs; a checkpoint has `timeout` seconds."""
        runs = self.pace and self.is_alive() and not self.held
        return self.pace.hang(time.monotonic(), timeout) if self.pace and runs else None

    # ------------------------------------------------------------- the thread

    def run(self) -> None:
        ended: Done | Stopped | UserError
        try:
            self._xids.read()  # what is of before says nothing of this training
            self.began = time.monotonic()
            job = self._retried(self._prepare)
            self._await_finality()
            ended = self._train(job) if job and not self._must_stop() else Stopped(step=0)
        except UserError as error:
            ended = error
        except OSError as error:  # files and processes of ours, not the recipe's
            ended = Failure("machine", f"this machine's files or processes fail: {error}")
        except Exception as error:  # a bug of ours must end the lease, not leave it hanging
            self._log.exception("training.crashed")
            ended = Failure("exit", f"the worker failed: {type(error).__name__}: {error}")
        is_clear = isinstance(ended, BadStartState) or self._killed.is_set()
        if isinstance(ended, Failure | NotReproducible) and not is_clear:
            ended = judged(ended, self._settings, self._xids, self.began, began=self.pace is not None)
        self.ended = ended
        self._wake()

    def _retried(self, prepare: Callable[[], Job]) -> Job | None:
        """Tries until market and chain answer; None if it was told to stop before."""
        pause, longest = RETRY_SECONDS
        while not self._must_stop():
            try:
                job = prepare()
                self.waits_for = None
                return job
            except Interrupted:
                return None
            except (Unreachable, *NODE_AWAY) as error:
                self.waits_for = str(error)
                self._log.warning("lease.waits", problem=str(error), retry_in=pause)
            except Problem as problem:
                # The market follows the chain a little later than we do; a blob may still be on its way.
                self.waits_for = None
                self._log.warning("lease.waits", problem=problem.message, code=problem.code, retry_in=pause)
            self._killed.wait(pause if not self._must_stop() else 0)
            pause = min(2 * pause, longest)
        return None

    def _must_stop(self) -> bool:
        return self._killed.is_set() or self._stop_at is not None

    def _prepare(self) -> Job:
        """Verifies the job against the chain; fetches and verifies files and state."""
        folder, settings = self._folder, self._settings
        job = folder.file.job or verified_job(self._chain, self._market, folder)
        folder.update(job=job)
        check_wanted(self._wants, job, folder.file.nums, self._standing(job.bid.client, self._wants))
        check_fit(job.spec, settings.resources, settings.units_per_hour, settings.disk_mb)
        cache = Cache(folder.cache_folder, settings.resources.hosts, settings.disk_mb << 20)
        web = partial(cache.get, stopped=self._must_stop)
        job_key = self._await_key()
        fetch_files(self._market, web, job.spec, folder.job_folder, job=folder.file.parties.bid, job_key=job_key)
        self._newest_whole_checkpoint(job_key)
        if folder.file.made == folder.file.base:
            fetch_start_state(self._market, folder, job, settings.disk_mb, job_key)
        self._metrics = metrics_so_far(self._market, folder, job.spec)
        return job

    def _await_key(self) -> bytes | None:
        """A sealed job's key; None if the job is not sealed. Raises NoKey if it does not come in time."""
        timeout = self._folder.file.nums.timeout
        if self._key_late is None:
            self._key_late = time.monotonic() + KEY_SHARE * timeout
        while True:
            try:
                return self._job_key.ask(self._market)
            except NoKey as error:
                if time.monotonic() > self._key_late:
                    raise
                self._log.info("lease.waits", problem=error.message)
            self._killed.wait(min(1.0, timeout / 40))
            if self._must_stop():
                raise Interrupted("it was told to stop")

    def _await_finality(self) -> None:
        """Until the lease's opening is as deep in the chain as what it holds wants, or a part of its timeout is over.

        Not to start at all would cost a price for sure.
        """
        file, finality = self._folder.file, self._chain.settings.finality
        value = at_stake(file.nums, file.parties.stake)
        late = time.monotonic() + FINALITY_SHARE * file.nums.timeout
        while finality.confirmations(value) and not self._must_stop():
            try:
                block = opened(self._chain, self._folder.lease, near=file.opened_block).at.block
                if finality.is_final(block, int(self._chain.w3.eth.block_number), value):
                    return
            except (UserError, *NODE_AWAY) as error:
                self._log.warning("lease.waits", problem=str(error))
            if time.monotonic() > late:
                self._log.warning("lease.starts_before_it_is_final", confirmations=finality.confirmations(value))
                return
            self._killed.wait(min(2.0, file.nums.timeout / 40))

    def _newest_whole_checkpoint(self, job_key: bytes | None) -> None:
        """Makes sure of the state to go on from: of disk, else of the market; else goes back to the one before."""
        folder = self._folder
        for index in range(folder.file.made, folder.file.base, -1):
            record = folder.checkpoint(index)
            if is_state(folder.state_path(index), record):
                return
            try:
                path, bid = folder.state_path(index), folder.file.parties.bid
                fetch_state(self._market, record, path, job=bid, job_key=job_key)
                return
            except (Problem, Failure, NotOpened) as error:
                self._log.warning("checkpoint.lost", n=index, problem=error.message)
                folder.step_back(index - 1)

    def _train(self, job: Job) -> Done | Stopped | UserError:
        folder, settings, made = self._folder, self._settings, self._folder.file.made
        if self._stops_early(job.spec):
            return Stopped(step=job.spec.step_of(made))
        fresh = made == 0 and job.bid.start_tip == ZERO_TIP
        limits = Limits(
            memory_mb=job.spec.resources.memory_mb or Limits().memory_mb,
            disk_mb=settings.disk_mb,
            hang_seconds=settings.hang_seconds,
        )
        state = None if fresh else folder.state_path(made)
        options: dict[str, Any] = {
            "threads": job.spec.resources.threads or settings.threads,
            "device": settings.device,
            "gpus": settings.gpu_names,
            "limits": limits,
            "runtime": chosen_sandbox(settings.sandbox, settings.image),
            "trusted": settings.trusted,
            "keep_log": not job.spec.sealed,
        }
        self._first_steps.rehearse(job, state, options)
        self._await_judgement()
        if self._must_stop():
            return Stopped(step=job.spec.step_of(made))
        runner = Runner(
            job.spec,
            folder.job_folder,
            folder.work_folder,
            first=made + 1,
            last=folder.file.nums.end,
            state=state,
            printed=self._printed.write,
            ahead=0 if folder.file.audits else 1,  # else it would train beyond what may be unjudged
            **options,
        )
        self._log.info("training.starts", after=made, until=folder.file.nums.end, sandbox=runner.sandbox)
        with runner:
            return self._follow(runner, job)

    def _follow(self, run: Runner, job: Job) -> Done | Stopped | UserError:
        numerics: dict[str, str | int] = {}
        asked = False
        watch: WorkWatch | None = None
        while not self._killed.is_set():
            if not asked and self._stop_now():
                run.stop()
                asked = True
            if watch and not asked:
                watch.check()
            match run.next_message(timeout=POLL_SECONDS):
                case Measured() as measured:
                    numerics = measured.numerics
                    check_class(self._market, self._chain.domain, self._folder.file, numerics)
                case Ready() as ready:
                    check_signed_units(ready.units, job.bid.units)
                    self.pace = Pace(job.spec.checkpoint_every, time.monotonic(), run.first)
                    watch = self._watched(run, job)
                    self._log.info("training.ready", parameters=ready.parameters, units=ready.units)
                    run.go()
                case Stepped() as step if self.pace and watch:
                    self.pace.step(step.step - (job.spec.start_step or 0), time.monotonic())
                    watch.step(step.step - (job.spec.start_step or 0))
                case Checkpoint() if self.early_stop:
                    pass  # it was on its way already; nobody would pay for it
                case Checkpoint() as made:
                    if taken := self._with_room(partial(run.take, made, go_on=False)):
                        self._first_steps.heed(taken, job)
                        self._with_room(partial(self._commit, taken, job, numerics))
                        if made.index < run.last and not self._await_judgement():
                            run.stop()
                            asked = True
                        else:
                            run.go_on(made.index)
                    if self.pace and watch:
                        self.pace.checkpoint(made.index, time.monotonic())
                        watch.checkpoint()
                case (Done() | Stopped()) as ended:
                    return ended
                case Failed() as failed:
                    return failed.failure()
        return Stopped(step=0)

    def _await_judgement(self) -> bool:
        """Waits while as much is unjudged as may be. False if it was told to stop meanwhile."""
        if not (file := self._folder.file).full:
            return True
        self._log.info("training.held", unjudged=file.made - file.approved)
        self._held_at = began = time.monotonic()
        while self._folder.file.full and not self._must_stop():
            self._killed.wait(POLL_SECONDS)
        if self.pace:
            self.pace.held(time.monotonic() - began)
        self._held_at = None
        return not self._must_stop()

    def _watched(self, run: Runner, job: Job) -> WorkWatch:
        settings = self._settings
        gpus = settings.gpu_names if settings.device == "cuda" else None
        meter = WorkMeter(
            job.bid.units,
            job.spec.checkpoint_every,
            settings.units_per_hour,
            settings.max_overrun,
            started=time.monotonic(),
            first=run.first,
        )
        threads = job.spec.resources.threads or settings.threads
        return WorkWatch(meter, partial(Contention, run.processes, threads, gpus))

    def _with_room(self, act: Callable[[], T]) -> T | None:
        """Does what writes, again while the disk is full: training waits meanwhile. None if it was killed before."""
        pause, longest = RETRY_SECONDS
        while not self._killed.is_set():
            try:
                return act()
            except OSError as error:
                if not is_full(error):
                    raise
                self._log.warning("checkpoint.waits", problem=f"no room on this disk: {error}", retry_in=pause)
            self._killed.wait(pause)
            pause = min(2 * pause, longest)
        return None

    def _stop_now(self) -> bool:
        if self._stop_at is None:
            return False
        left = self.seconds_left()
        return left is None or time.monotonic() + left > self._stop_at

    def _stops_early(self, spec: JobSpec) -> bool:
        """Whether the newest checkpoint ends the job. Raises Failure if the recipe does not say what `stop` goes by."""
        if spec.stop is None or not self._metrics:
            return False
        if problem := spec.stop.problem(self._metrics[-1]):
            raise Failure("recipe", problem, "return it from evaluate() or step(), or correct `stop` in job.yaml")
        index = spec.stop.reached(self._metrics)
        self.early_stop = spec.stop.sentence(index) if index else None
        return index is not None

    def _commit(self, taken: TakenCheckpoint, job: Job, numerics: dict[str, str | int]) -> None:
        """From now on the checkpoint is made."""
        made = taken.commit(job.spec.job_hash(), numerics, from_hex(self._folder.tip(taken.index - 1)))
        record = CheckpointRecord(
            index=taken.index,
            step=taken.step,
            state_root=to_hex(made.state_root),
            trace_root=to_hex(made.trace_root),
            numerics=numerics,
            root=to_hex(made.root),
            tip=to_hex(made.tip),
            state=hash_file(taken.path),
            metrics=taken.metrics,
            seconds=taken.seconds,
        )
        self._folder.add_checkpoint(record)
        self._log.info("checkpoint.made", n=taken.index, tip=record.tip, seconds=round(taken.seconds, 3))
        self._metrics.append(record.metrics)
        if self._stop_at is not None or self._stops_early(job.spec):  # it was the one to wait for
            self._stop_at = 0.0
        self._wake()
