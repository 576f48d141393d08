"""One market, many jobs, and a long run of bad luck: at the end every job is done and every token in its place."""

import argparse
import json
import random
import shutil
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chaos_faults import schedule
from chaos_world import CHECKPOINTS, World
from demo_parties import Failure
from rich.console import Console

from contracts.api.bodies import JobOut, JobStatus
from contracts.chain.events import Approved, Opened, Settled
from contracts.chain.follower import Block, Follower, MemoryStore
from contracts.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".chaos"
RECOVERY = 60.0  # seconds in which the books must agree again after an event
PATIENCE = 900.0  # seconds for the jobs to be done after the last event
console = Console(highlight=False)


class Run:
    def __init__(self, jobs: int, events: int, seed: int) -> None:
        self.jobs, self.events, self.seed = jobs, events, seed
        self.luck = random.Random(seed)
        self.started = time.monotonic()
        self.log: list[dict[str, Any]] = []
        self.tips: dict[tuple[str, int], str] = {}  # of every checkpoint that was ever approved
        self.ids: list[str] = []
        self.world = World(HOME, self.say)

    def say(self, text: str) -> None:
        console.print(f"{time.monotonic() - self.started:7.1f} s  {text}", markup=False)

    def run(self) -> dict[str, Any]:
        self.say(f"seed {self.seed}: {self.jobs} jobs, {self.events} events")
        self.world.prepare()
        with ThreadPoolExecutor(1) as pool:
            submitted = [pool.submit(self.world.submit, number) for number in range(1, self.jobs + 1)]
            try:
                submitted[0].result()
                for number, fault in enumerate(schedule(self.events, self.luck), 1):
                    time.sleep(self.luck.uniform(0.5, 6))
                    what = fault(self.world, self.luck)
                    self.recover(f"event {number} of {self.events}: {what}")
                    self._show(submitted)
                self.ids = [one.result() for one in submitted]
            finally:
                self.world.over = True
        self.finish()
        return self.outcome()

    def recover(self, what: str) -> None:
        """Start again what died, and wait until chain, database and files agree."""
        self.say(what)
        began = time.monotonic()
        restarted = self.world.revive()
        self.world.until(f"the market answers after {what}", self.world.market_answers)
        while True:
            agree, text = self.world.reconcile()
            if agree:
                break
            if time.monotonic() - began > RECOVERY:
                raise Failure(f"the books do not agree after {what}:\n{text}")
            restarted += self.world.revive()
            time.sleep(1)
        self.check()
        took = round(time.monotonic() - began, 1)
        self.log.append({"event": what, "restarted": restarted, "reconciled_after": took})
        self.say(f"  restarted {', '.join(restarted) or 'nothing'}; the books agree after {took} s")

    def check(self) -> None:
        """Nothing accepted is lost or changed, nothing is paid twice. Raises Failure."""
        for job in self._jobs():
            for one in self.world.market.checkpoints(job.id):
                if one.status != "approved":
                    continue
                key = (job.id, one.checkpoint.index)
                if self.tips.setdefault(key, one.checkpoint.tip) != one.checkpoint.tip:
                    raise Failure(f"checkpoint {key[1]} of {job.id} was {self.tips[key]}, is {one.checkpoint.tip}")
        for problem in paid_twice(self.world):
            raise Failure(problem)

    def _jobs(self) -> list[JobOut]:
        for _ in range(100):
            try:
                return list(self.world.market.jobs())
            except UserError:
                time.sleep(0.2)
        raise Failure("the market does not list its jobs")

    def _show(self, submitted: "list[Future[str]]") -> None:
        jobs = self._jobs()
        done = sum(job.status is JobStatus.DONE for job in jobs)
        self.say(f"  {sum(one.done() for one in submitted)} jobs handed in, {done} done")

    def finish(self) -> None:
        """No more events: all jobs get done, and the books agree."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.world.revive()
            jobs = {job.id: job for job in self._jobs()}
            waiting = [jobs[id] for id in self.ids if jobs[id].status is not JobStatus.DONE]
            if not waiting:
                break
            lost = [job for job in waiting if job.status in (JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)]
            if lost or time.monotonic() > deadline:
                raise Failure(
                    "\n".join(f"job {job.name} {job.id} is {job.status}: {job.reason}" for job in lost or waiting)
                )
            time.sleep(1)
        self.say("all jobs are done")
        self.world.until("all leases are over", lambda: not list(self.world.market.leases(live=True)), 90)
        self.recover("the end")
        for id in self.ids:
            missing = [index for index in range(1, CHECKPOINTS + 1) if (id, index) not in self.tips]
            if missing:
                raise Failure(f"job {id} is done without approved checkpoints {missing}")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self.world.pull, self.ids))
        self.say(f"the results of {len(self.ids)} jobs were downloaded, and verified tip by tip")

    def outcome(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "jobs": self.jobs,
            "events": len(self.log) - 1,
            "chain_restarts": self.world.chain_died,
            "checkpoints_accepted": len(self.tips),
            "longest_recovery_seconds": max(one["reconciled_after"] for one in self.log),
            "seconds": round(time.monotonic() - self.started, 1),
            "log": self.log,
        }


def paid_twice(world: World) -> list[str]:
    """Checkpoints that the chain paid for more than once, and jobs that lost what was accepted."""
    store, follower = MemoryStore(), Follower(world.direct, MemoryStore())
    follower.store = store
    opened: dict[str, Opened] = {}
    reached: dict[str, int] = {}
    of_bid: dict[str, list[str]] = {}
    while steps := follower.poll():
        for step in steps:
            store.apply(step)
            for event in step.events if isinstance(step, Block) else ():
                if isinstance(event, Opened):
                    id, bid = event.lease, event.terms.parties.bid
                    if bid in of_bid and event.terms.nums.start != reached[of_bid[bid][-1]]:
                        return [f"lease {id} starts at {event.terms.nums.start}, not at {reached[of_bid[bid][-1]]}"]
                    opened[id], reached[id] = event, event.terms.nums.start
                    of_bid.setdefault(bid, []).append(id)
                elif isinstance(event, Approved | Settled):
                    if not reached[event.lease] <= event.n <= opened[event.lease].terms.nums.end:
                        return [f"lease {event.lease} went from {reached[event.lease]} to {event.n}"]
                    reached[event.lease] = event.n
    return []


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcome as JSON")
    options = parser.parse_args()
    shutil.rmtree(HOME, ignore_errors=True)
    run = Run(options.jobs, options.events, options.seed)
    try:
        result = run.run()
    except Failure as failure:
        console.print(f"Failed (seed {options.seed}): {failure}\nThe logs are in {HOME}.", markup=False)
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
