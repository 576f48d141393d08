"""What the worker costs: training through an agent, a market and a chain, over the same steps in a bare loop.

A pair is one run of each, one after the other, the first of them by turns. The worker's time goes from the building of
the recipe to the market's answer to the last signed Claim: sandbox, traces, checkpoints, roots and uploads included.
The bare loop's goes from the same point to its last step. Start-up is apart. Training has one thread; the agent, the
market and the chain have the machine's other cores. Both runs must end with the same loss, bit for bit.

overhead_ratio  of these times, in the middle of the pairs
stretch_ratio   the same without what comes once in a lease: the recipe's building, and the last checkpoint's way to the
                market, which no training overlaps (tail_seconds)
cpu_ratio       of processor time, the agent's included: what other programs on the machine do hardly changes it, and
                it is what the worker costs where no core is free
bare_spread     between the bare loops: how far the machine's own mood moves the ratios
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
from tests.bench._market import PATIENCE, Market, make_job, market
from tests.support import ROOT
from worker.sandbox.gpus import training_environment

CONFIG = {"width": 384, "layers": 6, "heads": 6, "context": 64, "batch_size": 4}  # 10.8 million parameters
PAIRS = 2
CHECKPOINTS = 3  # a run
CHECKPOINT_SECONDS = 25.0
PROBE_STEPS = 20


class Run(NamedTuple):
    seconds: float
    stretches: float  # seconds from the first step on, to the last one's end or its checkpoint's writing
    cpu_seconds: float
    startup: float
    metrics: dict[str, float]  # of the last step


def main(json: bool) -> None:
    report(measure(), json)


def measure() -> Iterator[Figure]:
    load = os.getloadavg()[0]
    with market() as opened:
        job = opened.stage.home / "chargpt"
        make_job(opened, job, config=CONFIG, checkpoint_every=PROBE_STEPS, checkpoints=1)
        every = max(1, round(CHECKPOINT_SECONDS / (bare(job, PROBE_STEPS).stretches / PROBE_STEPS)))
        agent = psutil.Process(opened.start_agent())
        bares: list[Run] = []
        workers: list[Run] = []
        agent_cpu = 0.0
        for number in range(PAIRS):
            # By its seed each pair has checkpoints of its own: a market takes no file twice.
            make_job(opened, job, config=CONFIG, checkpoint_every=every, checkpoints=CHECKPOINTS, seed=number)
            for what in ("bare", "worker") if number % 2 == 0 else ("worker", "bare"):
                if what == "bare":
                    bares.append(bare(job, every * CHECKPOINTS))
                else:
                    before = sum(agent.cpu_times()[:2])
                    workers.append(worker(opened, job, agent))
                    agent_cpu += sum(agent.cpu_times()[:2]) - before
            if bares[-1].metrics != workers[-1].metrics:
                raise RuntimeError(f"the steps differ: {bares[-1].metrics} and {workers[-1].metrics}")
        parameters = opened.agent_log("training.ready", job_id(opened))[0]["parameters"]
    ratios = [ours.seconds / bare.seconds for ours, bare in zip(workers, bares, strict=True)]
    yield "overhead_ratio", statistics.median(ratios), "times"
    for number, ratio in enumerate(ratios, 1):
        yield f"overhead_ratio_pair_{number}", ratio, "times"
    for name, of in (("stretch_ratio", "stretches"), ("cpu_ratio", "cpu_seconds")):
        pairs = zip(workers, bares, strict=True)
        yield name, statistics.median(getattr(ours, of) / getattr(bare, of) for ours, bare in pairs), "times"
    yield "tail_seconds", statistics.median(run.seconds - run.stretches for run in workers), "s"
    yield "parameters", parameters, "elements"
    yield "checkpoint_seconds", statistics.mean(run.seconds for run in bares) / CHECKPOINTS, "s"
    yield "steps_per_checkpoint", every, "steps"
    yield "worker_startup_seconds", statistics.median(run.startup for run in workers), "s"
    yield "bare_startup_seconds", statistics.median(run.startup for run in bares), "s"
    yield "agent_cpu_share", agent_cpu / sum(run.seconds for run in workers), "cores"
    yield "bare_spread", max(run.seconds for run in bares) / min(run.seconds for run in bares) - 1, "share"
    yield "load_before", load, "processes"


def job_id(opened: Market) -> str:
    return next(iter(opened.api.jobs())).id


def bare(job: Path, steps: int) -> Run:
    variables = training_environment(threads=1, gpus=(), home=os.fspath(job))
    del variables["PYTHONSAFEPATH"]  # -m looks for the benchmark in the current folder
    began = time.time()
    argv = [sys.executable, "-m", "tests.bench._bare", os.fspath(job), str(steps)]
    done = subprocess.run(argv, env=variables, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    said: dict[str, Any] = json_format.loads(done.stdout)
    steps_only = said["seconds"] - said["build_seconds"]
    return Run(said["seconds"], steps_only, said["cpu_seconds"], said["started"] - began, said["metrics"])


def worker(opened: Market, job: Path, agent: psutil.Process) -> Run:
    """From the opening of the lease to its end; nobody approves before the last Claim is in."""
    id = opened.submit(job)
    starts = opened.wait_for_log("lease.starts", id)
    ready = opened.wait_for_log("training.ready", id)
    samples = [children_cpu(agent)]
    before = sum(agent.cpu_times()[:2])

    def reported() -> bool:
        samples.append(children_cpu(agent))  # which nobody can ask for once the training process has ended
        return bool(opened.agent_log("checkpoint.reported", id, n=CHECKPOINTS))

    opened.stage.wait_for("the last Claim", reported, opened.provider, PATIENCE)
    cpu = sum(agent.cpu_times()[:2]) - before + max(samples) - samples[0]
    end = opened.wait_for_log("checkpoint.reported", id, n=CHECKPOINTS)["at"]
    made = [one.checkpoint for one in opened.api.checkpoints(id)]
    opened.finish(id)
    stretches = sum(one.seconds for one in made)
    return Run(end - ready["at"], stretches, cpu, ready["at"] - starts["at"], made[-1].metrics)


def children_cpu(process: psutil.Process) -> float:
    """Seconds of processor time that its children that are alive have used."""
    return sum(sum(child.cpu_times()[:2]) for child in process.children(recursive=True))
