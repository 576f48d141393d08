"""Whose trouble it is that training ended: the recipe's, or this machine's. What the process said is not asked."""

from contracts.errors import UserError
from worker.driver.nvml import NoAnswer, named, read_gpus
from worker.machine.troubles import disk_trouble, environment_trouble, gpu_trouble, sandbox_trouble
from worker.sandbox.bubblewrap import Bare
from worker.sandbox.podman import chosen_sandbox
from worker.sandbox.probe import compute_problem
from worker.settings import ProviderSettings
from worker.training.failures import Failure

FREE_SHARE = 0.9  # of the memory that the Ask sells, which a GPU has free when nobody uses it
SELF_MADE = ("nan", "units", "protocol", "processes")  # kinds of failure that no broken machine leads to


def judged(error: UserError, settings: ProviderSettings, *, began: bool) -> UserError:
    """The same error, or Failure("machine") if a look at this machine finds a reason. Takes seconds.

    `began`: the recipe's process had said that it is ready to train.
    """
    if not isinstance(error, Failure) or error.kind == "machine" or error.kind in SELF_MADE:
        return error
    looks = [disk_trouble] if error.kind == "disk" else [gpu_trouble, sandbox_trouble, environment_trouble]
    for look in looks:
        if trouble := look(settings):
            return Failure("machine", f"{trouble.what}. What came of it: {error.message}", trouble.mend)
    if error.kind == "memory" and (taken := _taken_memory(settings)):
        return Failure("machine", f"{taken}. What came of it: {error.message}", "end other programs on the GPU")
    if error.kind != "disk" and (settings.device == "cuda" or not began):
        runtime = chosen_sandbox(settings.sandbox, settings.image)
        problem = compute_problem(Bare() if runtime.problem() else runtime, settings.device, settings.gpu_names)
        if problem:
            what = f"{problem}. What came of it: {error.message}"
            return Failure("machine", what, "`gpumarket provider selftest` looks at all of this machine")
    return error


def _taken_memory(settings: ProviderSettings) -> str | None:
    """Which GPU's memory somebody else has, now that our process is gone."""
    if settings.device == "cpu":
        return None
    try:
        gpus = read_gpus() or ()
    except NoAnswer as error:
        return error.message
    for gpu in (found for name in settings.gpu_names if (found := named(gpus, name))):
        if not gpu.unified and gpu.free_mb < FREE_SHARE * settings.resources.vram_mb:
            return f"another program has {gpu.memory_mb - gpu.free_mb:,} of {gpu.memory_mb:,} MB of {gpu.label}"
    return None
