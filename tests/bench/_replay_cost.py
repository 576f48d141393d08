"""What a replay costs, beside the training that it repeats: chargpt, on a market of separate processes.

A pair is one lease, trained by an agent, and the replay of its middle checkpoint by the job's client, right after it.

replay_over_training  processor time a step: of `gpumarket replay` from the end of its first step to the roots, over the
                      agent's and its sandbox's; the pairs' median. Both count traces, checkpoint files and roots; the
                      agent, uploads as well. What a start takes before and in the first step (the recipe's making, a
                      state's loading), as the replay measured it, is taken from both
replay_start_s        of a replay: seconds from the sandbox's start to the end of its first step, with the recipe's
                      loading and a step to count its work; once a replay, however many steps it has
"""

import json
import statistics
from collections.abc import Iterator

import psutil
import yaml

from tests.bench import Figure, training
from tests.bench._market import Market, make_job, market

CONFIG = {"width": 96, "layers": 3, "heads": 3, "context": 64, "batch_size": 4}
PAIRS = 3
STEPS = 600  # of a checkpoint, which takes some ten seconds: a real one takes minutes
MIDDLE = 2  # of training.CHECKPOINTS


def figures() -> Iterator[Figure]:
    ratios, starts = [], []
    with market() as opened:
        folder = opened.stage.home / "chargpt"
        agent = psutil.Process(opened.start_agent())
        make_job(opened, folder, config=CONFIG, checkpoint_every=STEPS, checkpoints=training.CHECKPOINTS)
        for seed in range(PAIRS):
            # By its seed each pair has checkpoints of its own: a market takes no file twice.
            written = yaml.safe_load((folder / "job.yaml").read_text())
            (folder / "job.yaml").write_text(yaml.safe_dump(written | {"seed": seed}))
            before = {job.id for job in opened.api.jobs()}
            trained = training.worker(opened, folder, agent)
            (id,) = {job.id for job in opened.api.jobs()} - before
            replayed = _replay(opened, id)
            ratios.append(_over(replayed, trained.cpu_seconds))
            starts.append(replayed["start_seconds"])
            yield f"replay_over_training_pair_{seed + 1}", ratios[-1], "times"
    yield "replay_over_training", statistics.median(ratios), "times"
    yield "replay_start_s", statistics.median(starts), "s"


def _over(replayed: dict[str, float], trained_cpu: float) -> float:
    """Processor time of a step of the replay, over that of the training of all checkpoints."""
    each = replayed["cpu_seconds"] / (STEPS - 1)
    start = replayed["start_cpu_seconds"] - each  # what comes with the first step beside the step itself
    return each / ((trained_cpu - start) / (STEPS * training.CHECKPOINTS))


def _replay(opened: Market, job: str) -> dict[str, float]:
    """What the replay says of itself."""
    said = json.loads(opened.client.run("replay", job, str(MIDDLE), "-o", "json"))
    if said["verdict"] != "equal":
        raise RuntimeError(f"the replay is not equal: {said['why']}")
    replayed: dict[str, float] = said["replayed"]
    return replayed
