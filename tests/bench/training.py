"""What the worker costs: training through an agent, a market and a chain, over the same steps in a bare loop.

A pair is one run of each, one after the other, the first of them by turns. The worker's time goes from the building of
the recipe to the market's answer to the last signed Claim: sandbox, traces, checkpoints, roots and uploads included.
The bare loop's goes from the same point to its last step. Start-up is apart. Training has one thread; the agent, the
market and the chain have the machine's other cores. Both runs must end with the same loss, bit for bit.
"""

import json as json_format
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.bench import Figure, report
from tests.bench._market import Market, make_job, market
from worker.environment import training_environment

ROOT = Path(__file__).parents[2]
CONFIG = {"width": 384, "layers": 6, "heads": 6, "context": 64, "batch_size": 4}  # 10.8 million parameters
PAIRS = 3
CHECKPOINTS = 3  # a run
CHECKPOINT_SECONDS = 28.0
PROBE_STEPS = 20


class Run(NamedTuple):
    seconds: float
    startup: float
    metrics: dict[str, float]  # of the last step


def main(json: bool) -> None:
    report(measure(), json)


def measure() -> Iterator[Figure]:
    with market() as opened:
        job = opened.stage.home / "chargpt"
        make_job(opened, job, config=CONFIG, checkpoint_every=PROBE_STEPS, checkpoints=1)
        every = max(1, round(CHECKPOINT_SECONDS / (bare(job, PROBE_STEPS).seconds / PROBE_STEPS)))
        make_job(opened, job, config=CONFIG, checkpoint_every=every, checkpoints=CHECKPOINTS)
        agent = psutil.Process(opened.start_agent())
        bares: list[Run] = []
        workers: list[Run] = []
        cpu_seconds = 0.0
        for number in range(PAIRS):
            for what in ("bare", "worker") if number % 2 == 0 else ("worker", "bare"):
                if what == "bare":
                    bares.append(bare(job, every * CHECKPOINTS))
                else:
                    before = sum(agent.cpu_times()[:2])
                    workers.append(worker(opened, job))
                    cpu_seconds += sum(agent.cpu_times()[:2]) - before
            if bares[-1].metrics != workers[-1].metrics:
                raise RuntimeError(f"the steps differ: {bares[-1].metrics} and {workers[-1].metrics}")
        parameters = opened.agent_log("training.ready", job_id(opened))[0]["parameters"]
    ratios = [ours.seconds / bare.seconds for ours, bare in zip(workers, bares, strict=True)]
    yield "overhead_ratio", statistics.median(ratios), "times"
    for number, ratio in enumerate(ratios, 1):
        yield f"overhead_ratio_pair_{number}", ratio, "times"
    yield "parameters", parameters, "elements"
    yield "checkpoint_seconds", statistics.mean(run.seconds for run in bares) / CHECKPOINTS, "s"
    yield "steps_per_checkpoint", every, "steps"
    yield "worker_startup_seconds", statistics.median(run.startup for run in workers), "s"
    yield "bare_startup_seconds", statistics.median(run.startup for run in bares), "s"
    # What it would take of training where no core is free: the agent's own processor time, the recipe's not.
    yield "agent_cpu_share", cpu_seconds / sum(run.seconds for run in workers), "cores"
    yield "bare_spread", max(run.seconds for run in bares) / min(run.seconds for run in bares) - 1, "share"


def job_id(opened: Market) -> str:
    return next(iter(opened.api.jobs())).id


def bare(job: Path, steps: int) -> Run:
    variables = training_environment(threads=1, gpus=(), home=os.fspath(job))
    del variables["PYTHONSAFEPATH"]  # -m looks for the benchmark in the current folder
    began = time.time()
    argv = [sys.executable, "-m", "tests.bench._bare", os.fspath(job), str(steps)]
    done = subprocess.run(argv, env=variables, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    said: dict[str, Any] = json_format.loads(done.stdout)
    return Run(said["seconds"], said["started"] - began, said["metrics"])


def worker(opened: Market, job: Path) -> Run:
    """From the opening of the lease to its end; nobody approves before the last Claim is in."""
    id = opened.submit(job)
    starts = opened.wait_for_log("lease.starts", id)
    reported = opened.wait_for_log("checkpoint.reported", id, n=CHECKPOINTS)
    ready = opened.wait_for_log("training.ready", id)
    *_, last = opened.api.checkpoints(id)
    opened.finish(id)
    return Run(reported["at"] - ready["at"], ready["at"] - starts["at"], last.checkpoint.metrics)
