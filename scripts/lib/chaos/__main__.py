"""One market, many jobs, and a long run of bad luck: at the end every job is done and every token in its place."""

import argparse
import json
import logging
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
from rich.console import Console

from contracts.api.bodies import CheckpointStatus, JobStatus, JobSummary
from contracts.errors import UserError
from scripts.lib.chaos import audit_faults, faults
from scripts.lib.chaos.audited import AuditedWorld
from scripts.lib.chaos.faults import Fault, LeftOut
from scripts.lib.chaos.world import World, clear
from scripts.lib.demo.parties import Failure

ROOT = Path(__file__).resolve().parents[3]
HOME = ROOT / ".chaos"
RECOVERY = 180.0  # seconds in which the books must agree again after an event, once the market answers
PATIENCE = 900.0  # seconds for the jobs to be done after the last event
console = Console(highlight=False)

T = TypeVar("T")


class Run:
    def __init__(self, jobs: int, events: int, seed: int, audited: bool) -> None:
        self.jobs, self.events, self.seed = jobs, events, seed
        self.luck = random.Random(seed)
        self.started = time.monotonic()
        self.log: list[dict[str, Any]] = []
        self.tips: dict[tuple[str, int], str] = {}  # job, index -> of every checkpoint that was ever approved
        self.kinds: Counter[str] = Counter()  # events by the fault's name
        self.left_out: list[str] = []
        self.submitted: list[Future[str]] = []
        plan = audit_faults.schedule if audited else partial(faults.schedule, faults.ALL)
        self.schedule: list[Fault] = plan(events, self.luck)
        self.world = (AuditedWorld if audited else World)(HOME, self.say)

    def say(self, text: str) -> None:
        console.print(f"{time.monotonic() - self.started:7.1f} s  {text}", markup=False, soft_wrap=True)

    def run(self) -> dict[str, Any]:
        self.say(f"seed {self.seed}: {self.jobs} jobs, {self.events} events")
        self.world.prepare()
        self.say("all parties are there")
        with ThreadPoolExecutor(1) as pool:
            try:
                for number, fault in enumerate(self.schedule, 1):
                    self.submit(pool, min(self.jobs, self.world.at_once + self.jobs * number // self.events))
                    if number == 1:
                        self.submitted[0].result()
                    time.sleep(self.luck.uniform(0.5, 6))
                    self.suffer(number, fault)
                ids = [one.result() for one in self.submitted]
            finally:
                self.world.over = True
        self.finish(ids)
        return self.outcome()

    def submit(self, pool: ThreadPoolExecutor, until: int) -> None:
        """Jobs are handed in one after the other, while bad luck goes on."""
        for number in range(len(self.submitted) + 1, until + 1):
            self.submitted.append(pool.submit(self.world.submit, number))

    def suffer(self, number: int, fault: Fault) -> None:
        try:
            what = fault(self.world, self.luck)
        except LeftOut as error:
            self.left_out.append(f"{fault.__name__}: {error}")
            self.say(f"event {number} of {self.events} is left out: {self.left_out[-1]}")
            return
        self.kinds[fault.__name__] += 1
        self.recover(f"event {number} of {self.events}: {what}")

    def recover(self, what: str) -> None:
        """Start again what died, and wait until chain, database and files agree."""
        self.say(what)
        began = time.monotonic()
        restarted = self.world.revive()
        self.world.until(f"the market answers after {what}", self.world.market_answers)
        deadline = time.monotonic() + RECOVERY
        while differences := self.world.differences():
            if time.monotonic() > deadline:
                raise Failure(f"the books do not agree after {what}:\n" + "\n".join(differences))
            restarted += self.world.revive()
            time.sleep(0.5)
        took = round(time.monotonic() - began, 1)
        jobs = self.check()
        self.log.append({"event": what, "at": round(began - self.started, 1), "restarted": restarted, "seconds": took})
        self.say(f"  restarted {', '.join(restarted) or 'nothing'}; the books agree after {took} s; {_counted(jobs)}")

    def check(self) -> list[JobSummary]:
        """No accepted checkpoint is ever replaced by another. Raises Failure."""
        jobs = self._asked(self.world.jobs)
        self._asked(self.world.observe)
        for job in jobs:
            for index, tip in self._approved(job.id).items():
                before = self.tips.setdefault((job.id, index), tip)
                if before != tip:
                    raise Failure(f"checkpoint {index} of job {job.id} was accepted as {before}, and is {tip} now")
        return jobs

    def _approved(self, job: str) -> dict[int, str]:
        return {
            one.checkpoint.index: one.checkpoint.tip
            for one in self._asked(lambda: list(self.world.market.checkpoints(job)))
            if one.status is CheckpointStatus.APPROVED
        }

    def _asked(self, ask: Callable[[], T]) -> T:
        """The market's answer. Between two events it has to have one."""
        for _ in range(100):
            try:
                return ask()
            except UserError as error:
                problem = error.message
                time.sleep(0.2)
        raise Failure(f"the market does not answer: {problem}")

    def finish(self, ids: list[str]) -> None:
        """No more events: all jobs get done, all is paid once, the books agree, and the results are what was paid."""
        deadline = time.monotonic() + PATIENCE
        while True:
            waiting = [job for job in self._asked(self.world.jobs) if not _is_over(job)]
            if not waiting and self._asked(self.world.is_over):
                break
            self.world.revive()
            if time.monotonic() > deadline:
                told = [f"job {job.name} {job.id} is {job.status}: {job.reason}" for job in waiting]
                raise Failure("\n".join(told) or "the jobs are done, and their audits are not over")
            time.sleep(0.5)
        self.recover("the end")
        self.world.reconcile()
        jobs = {job.id: job for job in self._asked(self.world.jobs)}
        if sorted(jobs) != sorted(ids):
            raise Failure(f"{len(ids)} jobs were handed in, the market has {len(jobs)}")
        for job in jobs.values():
            for problem in self._problems(job):
                raise Failure(f"job {job.name} {job.id} {problem}")
        if problems := list(self.world.problems()):
            raise Failure("\n".join(problems))
        done = [id for id, job in jobs.items() if job.status is JobStatus.DONE]
        others = f"; an alarm has named {len(ids) - len(done)} others" if len(done) < len(ids) else ""
        self.say(f"{len(done)} of {len(ids)} jobs are done, each checkpoint was paid once{others}; reconcile agrees")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.world.pull, done))
        self.say(f"the results of {len(done)} jobs were downloaded, and verified tip by tip")

    def _problems(self, job: JobSummary) -> list[str]:
        """What is wrong with a job that should be done."""
        if job.status is not JobStatus.DONE:
            return [] if self.world.is_told(job) else [f"is {job.status}: {job.reason}"]
        found, reached, last = list[str](), 0, self.world.checkpoints
        for lease in job.leases:
            if lease.start != reached:
                found.append(f"has a lease from {lease.start}, after one that came to {reached}")
            reached = lease.state.accepted
            if lease.paid != (reached - lease.start) * lease.price:
                found.append(f"has paid {lease.paid} for checkpoints {lease.start} to {reached} at {lease.price}")
        approved = self._approved(job.id)
        lost = [index for index in range(1, last + 1) if approved.get(index) != self.tips.get((job.id, index))]
        if reached != last or lost or len(approved) != last:
            found.append(f"is done at checkpoint {reached} of {last}; approved {sorted(approved)}, lost {lost}")
        return found

    def outcome(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "jobs": self.jobs,
            "checkpoints_of_a_job": self.world.checkpoints,
            "events": self.kinds.total(),
            "kinds": dict(self.kinds),
            "left_out": self.left_out,
            "seconds": round(time.monotonic() - self.started, 1),
            "restarts": sum(len(one["restarted"]) for one in self.log) + self.world.chain_died,
            "chain_restarts": self.world.chain_died,
            "checkpoints_accepted": len(self.tips),
            **self.world.outcome(),
            "longest_recovery_seconds": max(one["seconds"] for one in self.log),
            "log": self.log,
        }


def _is_over(job: JobSummary) -> bool:
    """Done or lost, with no lease whose money is still in the escrow."""
    over = (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)
    return job.status in over and all(lease.finished for lease in job.leases)


def _counted(jobs: list[JobSummary]) -> str:
    done = sum(job.status is JobStatus.DONE for job in jobs)
    return f"{done} of {len(jobs)} jobs done"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--audited", action="store_true", help="with a liar, replays and an arbiter")
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome as JSON")
    options = parser.parse_args()
    clear(HOME)
    run = Run(options.jobs, options.events, options.seed, options.audited)
    try:
        result = run.run()
    except Failure as failure:
        console.print(f"Failed (seed {options.seed}): {failure}\nThe logs are in {HOME}.", markup=False, soft_wrap=True)
        return 1
    finally:
        run.world.stop_all()
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    run.say(
        f"held: {result['events']} events, {result['jobs']} jobs done, {result['checkpoints_accepted']} checkpoints"
    )
    return 0


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # our own; not the parties'
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
