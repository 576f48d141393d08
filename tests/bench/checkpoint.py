"""What a checkpoint costs, at 10 and at 100 million parameters with AdamW: three numbers of 4 bytes each.

The path is an agent's: sandbox, the worker's copy on disk, roots, upload to a market on this machine, signed Claim.

bytes_per_s     from the end of a checkpoint's last step to the market's answer to its Claim
stall_seconds   for which training stands still meanwhile
trace_seconds   between two steps that have no checkpoint between them
start_seconds   from the lease to the first step
resume_seconds  the same, after the machine has lost its files: download, verify and load a state as well
"""

import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import Figure, report
from tests.bench._market import Market, make_job, market
from worker.sandbox.bubblewrap import HOW_TO_MEND, bubblewrap_problem

CHECKPOINTS = 4
KILL_AFTER = 3  # checkpoints, reported


class Size(NamedTuple):
    name: str
    config: dict[str, Any]  # of chargpt
    every: int  # steps; enough that a checkpoint is with the market before the next is due
    memory_mb: int


SIZES = [
    Size("10m", {"width": 384, "layers": 6, "heads": 6}, 100, 3_000),
    Size("100m", {"width": 768, "layers": 15, "heads": 12}, 20, 8_000),
]


def main(json: bool) -> None:
    if problem := bubblewrap_problem():
        sys.exit(f"bench checkpoint: its recipe is a stranger's, and {problem}: {HOW_TO_MEND['bubblewrap']}")
    report(measure(), json)


def measure() -> Iterator[Figure]:
    with market() as opened:
        for size in SIZES:
            yield from _measure(opened, size)


def _measure(opened: Market, size: Size) -> Iterator[Figure]:
    folder = opened.stage.home / size.name
    config = size.config | {"context": 8, "batch_size": 1, "every": size.every}
    resources = {"memory_mb": size.memory_mb}
    opened.client.run("recipe", "new", "chargpt", str(folder))
    shutil.copyfile(Path(__file__).with_name("_timed.py"), folder / "timed.py")
    make_job(
        opened, folder, config=config, checkpoint_every=size.every, checkpoints=CHECKPOINTS, recipe="timed.py:Timed",
        files=["timed.py", "recipe.py", "corpus.txt"], resources=resources,
    )  # fmt: skip
    opened.start_agent()
    job = opened.submit(folder)
    began = opened.wait_for_log("lease.starts", job)["at"]
    reported = {n: opened.wait_for_log("checkpoint.reported", job, n=n)["at"] for n in range(1, KILL_AFTER + 1)}
    opened.provider.kill("agent")
    records = {one.checkpoint.index: one.checkpoint for one in opened.api.checkpoints(job)}
    for state in opened.provider.home.glob("provider/*/leases/*/work/*.safetensors"):
        state.unlink()

    opened.start_agent()
    again = opened.wait_for_log("lease.starts", job)["at"]
    opened.wait_for_log("checkpoint.reported", job, n=KILL_AFTER + 1)
    resumed = [one.checkpoint for one in opened.api.checkpoints(job)][KILL_AFTER]
    if opened.agent_log("checkpoint.lost", job):
        raise RuntimeError("the agent did not go on from the market's copy")
    opened.stop_agent(job)

    took = [at - records[n].metrics["ended"] for n, at in reported.items()]
    # Before the first step there is no gap; the first checkpoint's stall shows in the second's metrics.
    later = [record.metrics for n, record in records.items() if 1 < n <= KILL_AFTER]
    state_bytes = records[1].state.size
    for name, value, unit in (
        ("state_bytes", state_bytes, "bytes"),
        ("bytes_per_s", state_bytes / statistics.median(took), "bytes/s"),
        ("seconds", statistics.median(took), "s"),
        ("stall_seconds", statistics.median(one["stall"] for one in later), "s"),
        ("trace_seconds", statistics.median(one["gap"] for one in later), "s"),
        ("start_seconds", records[1].metrics["began"] - began, "s"),
        ("resume_seconds", resumed.metrics["began"] - again, "s"),
    ):
        yield f"checkpoint_{size.name}_{name}", value, unit
